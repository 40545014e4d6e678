// Filters: which rows the loss sees, and how.

import { Texts } from "./batch.js";
import { define, integers, numbers, parts, settled } from "./plugin.js";

/**
 * A filter sees all groups of a step at once: `select(batch, self)` returns a `Decision`, or one boolean per row. The column
 * `value` holds what the attribute `stage` names: `raw`, `shaped` or `advantage`. A row without a value has NaN.
 */
export function defineFilter(spec) {
  return define("filter", spec, [["select"]]);
}

/** A decision over a batch. */
export class Decision {
  constructor(keep) {
    /** One per row: whether the loss sees it. */
    this.keep = keep;
    /** Weight of each row in the loss; undefined means 1. */
    this.weights = undefined;
    /** Preference pairs: equally long `chosen`, `rejected`, `probability`, `margin`, `level`. */
    this.pairs = undefined;
    /** New texts for some rows: `{ column, rows, texts }` each. */
    this.relabels = [];
    /** Groups, by index, to sample again. */
    this.regenerate = [];
    /** Named numbers. */
    this.parts = [];
    /** Why rows were dropped: `[row, reason]` each. */
    this.reasons = [];
  }

  /** Keeps all of `rows` rows. */
  static keepAll(rows) {
    return new Decision(new Array(rows).fill(true));
  }

  /** Drops a row and says why. */
  dropRow(row, reason) {
    this.keep[row] = false;
    this.reasons.push([row, reason]);
  }
}

/** A definition's answer to a batch, checked. */
export function select(definition, batch, self) {
  let decision = settled(definition.select(batch, self), "select");
  if (Array.isArray(decision)) decision = new Decision(decision);
  const { keep, weights, pairs, relabels, regenerate, reasons } = decision ?? {};
  if (keep?.length !== batch.length) throw new RangeError(`\`select\` decided on ${keep?.length} of ${batch.length} rows`);
  if (weights && weights.length !== batch.length) throw new RangeError(`\`weights\` has ${weights.length} values for ${batch.length} rows`);
  return {
    keep: Uint8Array.from(keep, (kept) => (kept ? 1 : 0)),
    weights: weights && numbers(weights, "`weights`"),
    pairs: pairs && {
      chosen: integers(pairs.chosen, "`chosen`"),
      rejected: integers(pairs.rejected, "`rejected`"),
      probability: numbers(pairs.probability ?? pairs.chosen.map(() => 1), "`probability`"),
      margin: numbers(pairs.margin ?? pairs.chosen.map(() => 0), "`margin`"),
      level: integers(pairs.level ?? pairs.chosen.map(() => 0), "`level`"),
    },
    relabels: (relabels ?? []).map(({ column, rows, texts }) => ({
      column,
      rows: integers(rows, "`rows` of a relabel"),
      texts: texts instanceof Texts ? texts : Texts.from(texts),
    })),
    regenerate: integers(regenerate ?? [], "`regenerate`"),
    parts: parts(decision.parts, batch.length),
    reasons: (reasons ?? []).map(([row, reason]) => [row, String(reason)]),
  };
}
