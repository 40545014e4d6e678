// Rewards: completions to numbers.

import { Fault } from "./fault.js";
import { define, describe, integers, numbers, parts, rowFaults, settled } from "./plugin.js";

/**
 * A reward. `scoreRow(row, self)` returns a row's number, or `{ value, parts: { name: number } }`, and throws a `Fault` where
 * there is none. Whoever works faster on many rows at once writes `score(batch, self)` instead, which returns `Rewards` or
 * numbers; the runtime may split a batch anywhere, so that a row's value may depend on that row alone.
 */
export function defineReward(spec) {
  return define("reward", spec, [["scoreRow", "score"]]);
}

/** A batch's rewards. */
export class Rewards {
  constructor() {
    /** One value per row; that of a row with a fault is ignored. */
    this.values = [];
    /** Named components: `{ name, values }`. */
    this.parts = [];
    /** Rewards of stretches of the completions, besides `values`: `Spans`. */
    this.spans = [];
    /** Rows without a value: `{ row, fault }`. */
    this.faults = [];
  }

  /** Adds the next row: a number, `{ value, parts }`, or a `Fault`. Rows that a part leaves out have NaN there, "no value". */
  push(score) {
    const row = this.values.length;
    if (score instanceof Fault) {
      this.values.push(0);
      this.faults.push({ row, fault: score });
    } else {
      const value = typeof score === "object" && score !== null ? score.value : score;
      if (typeof value !== "number") {
        throw new TypeError(`row ${row}: the reward is ${describe(value)}, not a number; throw \`Fault.abstain\` where there is none`);
      }
      this.values.push(value);
      for (const name in score?.parts) {
        const part = score.parts[name];
        if (typeof part !== "number") throw new TypeError(`row ${row}: part \`${name}\` is ${describe(part)}, not a number`);
        this.#values(name, row).push(part);
      }
    }
    for (let i = 0; i < this.parts.length; i++) {
      if (this.parts[i].values.length === row) this.parts[i].values.push(NaN);
    }
  }

  /** The values of a part, which rows before `row` left out if it is new. */
  #values(name, row) {
    for (let i = 0; i < this.parts.length; i++) if (this.parts[i].name === name) return this.parts[i].values;
    const values = new Array(row).fill(NaN);
    this.parts.push({ name, values });
    return values;
  }
}

/**
 * Rewards of stretches: stretch `i` is `[starts[i], stops[i])` of row `rows[i]`, counted in `unit`: `char` (Unicode scalar
 * values of the completion, see `charIndex`) or `token`.
 */
export class Spans {
  constructor(name, unit) {
    if (unit !== "char" && unit !== "token") throw new TypeError(`spans count \`char\` or \`token\`, not ${describe(unit)}`);
    this.name = name;
    this.unit = unit;
    this.rows = [];
    this.starts = [];
    this.stops = [];
    this.values = [];
  }

  /** Adds a stretch. */
  push(row, start, stop, value) {
    this.rows.push(row);
    this.starts.push(start);
    this.stops.push(stop);
    this.values.push(value);
  }
}

/** A definition's answer to a batch, checked. */
export function score(definition, batch, self) {
  let rewards;
  if (definition.score) {
    rewards = settled(definition.score(batch, self), "score");
    if (Array.isArray(rewards) || rewards instanceof Float64Array) rewards = Object.assign(new Rewards(), { values: rewards });
  } else {
    rewards = new Rewards();
    for (const row of batch) rewards.push(scoreRow(definition, row, self));
  }
  if (rewards?.values?.length !== batch.length) {
    throw new RangeError(`\`score\` returned ${rewards?.values?.length} values for ${batch.length} rows`);
  }
  return {
    values: numbers(rewards.values, "`values`"),
    parts: parts(rewards.parts, batch.length),
    spans: (rewards.spans ?? []).map((spans) => ({
      name: spans.name,
      unit: spans.unit,
      rows: integers(spans.rows, "`rows` of spans"),
      starts: integers(spans.starts, "`starts` of spans"),
      stops: integers(spans.stops, "`stops` of spans"),
      values: numbers(spans.values, "`values` of spans"),
    })),
    faults: rowFaults(rewards.faults),
  };
}

function scoreRow(definition, row, self) {
  try {
    return settled(definition.scoreRow(row, self), "scoreRow");
  } catch (error) {
    if (error instanceof Fault && !error.concernsBatch) return error;
    throw error;
  }
}
