// See `tests/conformance/README.md`: the judge.

import { ask, decode, defineJudge, done, Fault, models } from "plumb-sdk";

export default defineJudge({
  name: "conformance-judge",
  version: "0.1.0",
  config: { model: { type: "string", default: "judge" } },
  needsColumns: ["prompt", "completion"],
  outputs: ["second"],

  begin(batch, { model }) {
    if (batch.rows === 0) return done({ scores: [] });
    const prompts = Array.from(batch, (row) => `Grade „${row.text("completion")}“ for ${row.text("prompt")}: `);
    const sampling = {
      maxTokens: 8,
      temperature: 0.75,
      topP: 0.9,
      count: 2,
      seed: batch.step + 7,
      stop: ["\n", "。"],
      extra: { style: "brief" },
    };
    return ask([{ model, prompts, sampling }], "first");
  },

  resume(batch, memo, [answers]) {
    if (memo.length === 5 && decode(memo) === "first") {
      // Two answers a row; rows whose first cannot be read are asked about again.
      const grades = Array.from(batch, ({ index }) => grade(answers.text.get(2 * index)) ?? -1);
      const again = grades.flatMap((grade, row) => (grade < 0 ? [row] : []));
      if (again.length === 0) return done(verdicts(batch, grades, grades.map(() => 0)));
      const prompts = again.map((row) => `Row ${row}, digits only: `);
      return ask([{ model: "critic", prompts, sampling: models.greedy(2) }], new Uint8Array(Float64Array.from(grades).buffer));
    }
    const grades = Array.from(new Float64Array(memo.slice().buffer));
    const second = grades.map(() => 0);
    grades.flatMap((grade, row) => (grade < 0 ? [row] : [])).forEach((row, place) => {
      second[row] = 1;
      grades[row] = grade(answers.text.get(place)) ?? -1;
    });
    return done(verdicts(batch, grades, second));
  },
});

/** The digits that a text begins with, in tenths. */
function grade(text) {
  const digits = /^ *([0-9]{1,3})/.exec(text);
  return digits ? Number(digits[1]) / 10 : undefined;
}

function verdicts(batch, grades, second) {
  const pairs = { first: [], second: [], probability: [] };
  const matrices = { values: [], readable: [] };
  for (const [start, stop] of batch.groups) {
    for (let i = start; i < stop; i++) {
      for (let j = start; j < stop; j++) {
        const readable = grades[i] >= 0 && grades[j] >= 0;
        const edge = readable ? grades[i] - grades[j] : 0;
        matrices.values.push(edge);
        matrices.readable.push(readable);
        if (readable && i < j) {
          pairs.first.push(i);
          pairs.second.push(j);
          pairs.probability.push(0.5 + edge / (2 * (1 + Math.abs(edge))));
        }
      }
    }
  }
  return {
    scores: grades.map((grade) => (grade < 0 ? NaN : grade)),
    pairs,
    matrices,
    rationales: grades.map((grade) => (grade < 0 ? "–" : "ok")),
    parts: { second },
    faults: grades.flatMap((grade, row) =>
      grade < 0 ? [{ row, fault: Fault.unparseable(`row ${row} has no grade`) }] : [],
    ),
  };
}
