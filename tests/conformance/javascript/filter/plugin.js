// See `tests/conformance/README.md`: the filter.

import { Decision, defineFilter } from "plumb-sdk";

export default defineFilter({
  name: "conformance-filter",
  version: "0.1.0",
  config: { min_value: { type: "number", default: 0.25 } },
  needsColumns: ["value", "completion"],
  outputs: ["kept"],

  select(batch, { min_value }) {
    const values = batch.f64s("value");
    const texts = batch.text("completion");
    const decision = Decision.keepAll(batch.rows);
    const pairs = { chosen: [], rejected: [], probability: [], margin: [], level: [] };
    const relabel = { column: "completion", rows: [], texts: [] };
    const kept = new Array(batch.rows).fill(0);
    values.forEach((value, row) => {
      if (Number.isNaN(value)) decision.dropRow(row, "no value");
      else if (value < min_value) decision.dropRow(row, `row ${batch.rowIds[row]} is low ↓`);
      const text = texts.get(row);
      if (text.endsWith(" ")) {
        relabel.rows.push(row);
        relabel.texts.push(`${text.slice(0, -1)}é😀`);
      }
    });
    batch.groups.forEach(([start, stop], place) => {
      const rows = Array.from({ length: stop - start }, (_, i) => start + i);
      const count = rows.filter((row) => decision.keep[row]).length;
      for (const row of rows) kept[row] = count;
      if (count === 0 && rows.length > 0) decision.regenerate.push(place);
      // The first of the best, and the first of the worst.
      const known = rows.filter((row) => !Number.isNaN(values[row]));
      if (known.length === 0) return;
      const best = known.reduce((best, row) => (values[row] > values[best] ? row : best));
      const worst = known.reduce((worst, row) => (values[row] < values[worst] ? row : worst));
      const margin = values[best] - values[worst];
      if (margin > 0) {
        pairs.chosen.push(best);
        pairs.rejected.push(worst);
        pairs.probability.push(0.5 + margin / (2 * (1 + margin)));
        pairs.margin.push(margin);
        pairs.level.push(place);
      }
    });
    decision.weights = values.map((value) => (Number.isNaN(value) ? 0 : 1 / (1 + Math.abs(value))));
    decision.pairs = pairs;
    if (relabel.rows.length > 0) decision.relabels.push(relabel);
    decision.parts = { kept };
    return decision;
  },
});
