// The batch: rows of named columns, grouped by prompt.

import { Fault } from "./fault.js";
import { decode, encode } from "./utf8.js";

/** Many texts as one buffer: row `i` is `bytes[ends[i-1]..ends[i]]`, with `ends[-1] = 0`. Rows are decoded when asked for. */
export class Texts {
  #decoded = [];
  #read;

  /** `read(row)` gives a row's string where that is quicker than to decode it here. */
  constructor(bytes, ends, read) {
    this.bytes = bytes;
    this.ends = ends;
    this.#read = read;
  }

  /** Packs strings (as UTF-8) and byte arrays (as they are). */
  static from(rows) {
    const parts = Array.from(rows, (row) => (typeof row === "string" ? encode(row) : row));
    const ends = new Uint32Array(parts.length);
    let length = 0;
    parts.forEach((part, i) => {
      if (!(part instanceof Uint8Array)) throw new TypeError(`row ${i} is neither a string nor a Uint8Array`);
      length += part.length;
      ends[i] = length;
    });
    const bytes = new Uint8Array(length);
    parts.forEach((part, i) => bytes.set(part, ends[i] - part.length));
    return new Texts(bytes, ends);
  }

  /** Number of rows. */
  get length() {
    return this.ends.length;
  }

  /** Row `row` as a string. */
  get(row) {
    const decoded = this.#decoded[row];
    if (decoded !== undefined) return decoded;
    const [start, stop] = bounds(this.ends, row);
    return (this.#decoded[row] = this.#read ? this.#read(row) : decode(this.bytes, start, stop));
  }

  /** Bytes of row `row`. */
  bytesAt(row) {
    return this.bytes.subarray(...bounds(this.ends, row));
  }

  *[Symbol.iterator]() {
    for (let row = 0; row < this.length; row++) yield this.get(row);
  }
}

/** One list of numbers a row: row `i` is `values[ends[i-1]..ends[i]]`. */
export class Ragged {
  constructor(values, ends) {
    this.values = values;
    this.ends = ends;
  }

  /** Packs lists of numbers. */
  static from(rows) {
    const values = [];
    const ends = [];
    for (const row of rows) {
      for (const value of row) values.push(value);
      ends.push(values.length);
    }
    return new Ragged(values, ends);
  }

  /** Number of rows. */
  get length() {
    return this.ends.length;
  }

  /** Values of row `row`. */
  get(row) {
    return this.values.slice(...bounds(this.ends, row));
  }

  *[Symbol.iterator]() {
    for (let row = 0; row < this.length; row++) yield this.get(row);
  }
}

function bounds(ends, row) {
  if (!(row >= 0 && row < ends.length)) throw new RangeError(`row ${row} of ${ends.length}`);
  return [row === 0 ? 0 : ends[row - 1], ends[row]];
}

// The accessor of each type of column, and its name in messages.
const TYPES = {
  text: "text",
  f64s: "f64",
  u32s: "u32",
  tokens: "tokens",
  tokenF32s: "token-f32",
  f64Lists: "f64-list",
  bytes: "bytes",
};

/**
 * Rows with named columns. The rows of one prompt are adjacent and form a group.
 *
 * A column is copied out of the runtime when it is first asked for, and kept until the call ends; asking again is cheap. One
 * name may be asked for as several types.
 */
export class Batch {
  #source;
  #columns = new Map();
  #rowIds;
  #groups;

  /** For the runtime and for tests: authors get batches, they do not make them. */
  constructor(source) {
    this.#source = source;
    this.length = source.rows();
  }

  /** Number of rows. */
  get rows() {
    return this.length;
  }

  /** The optimizer step this batch belongs to; 0 outside training. */
  get step() {
    return this.#source.step();
  }

  /** Stable ids of the rows as BigInts, the keys for `random`. */
  get rowIds() {
    return (this.#rowIds ??= this.#source.rowIds());
  }

  /** The groups, each the rows of one prompt, as `[start, stop)` of rows. */
  get groups() {
    if (!this.#groups) {
      const ends = this.#source.groupEnds();
      this.#groups = Array.from(ends, (stop, i) => [i === 0 ? 0 : ends[i - 1], stop]);
    }
    return this.#groups;
  }

  /** Names of the columns there are. */
  get columns() {
    return this.#source.columns();
  }

  /**
   * A fact about the batch or a column: `recipe_stage` (the stage's name in the recipe), and for shapers and filters `stage`
   * (what `value` holds). Undefined when there is none.
   */
  attr(name) {
    return this.#source.attr(name) ?? undefined;
  }

  /** A text per row: `prompt`, `completion`, `answer`, `finish`, ... Like all of these it throws `missing-column`. */
  text(column) {
    return this.findText(column) ?? this.#missing(column, "text");
  }

  /** A number per row: `value`, `raw`, `reward/<name>`, ... NaN where the row has none. */
  f64s(column) {
    return this.findF64s(column) ?? this.#missing(column, "f64s");
  }

  /** An integer per row: `completion_tokens`, ... */
  u32s(column) {
    return this.findU32s(column) ?? this.#missing(column, "u32s");
  }

  /** Token ids per row: `prompt_ids`, `completion_ids`. */
  tokens(column) {
    return this.findTokens(column) ?? this.#missing(column, "tokens");
  }

  /** A number per token: `old_logprobs`, ... */
  tokenF32s(column) {
    return this.findTokenF32s(column) ?? this.#missing(column, "tokenF32s");
  }

  /** Numbers per row: `judge/<name>/matrix` holds row i of its group's matrix of verdicts. */
  f64Lists(column) {
    return this.findF64Lists(column) ?? this.#missing(column, "f64Lists");
  }

  /** Raw bytes per row; dtype and shape stand in `attr`. */
  bytes(column) {
    return this.findBytes(column) ?? this.#missing(column, "bytes");
  }

  /** A text column that may be absent: undefined then. The others likewise. */
  findText(column) {
    return this.#find("text", column);
  }
  findF64s(column) {
    return this.#find("f64s", column);
  }
  findU32s(column) {
    return this.#find("u32s", column);
  }
  findTokens(column) {
    return this.#find("tokens", column);
  }
  findTokenF32s(column) {
    return this.#find("tokenF32s", column);
  }
  findF64Lists(column) {
    return this.#find("f64Lists", column);
  }
  findBytes(column) {
    return this.#find("bytes", column);
  }

  /** One row. */
  row(index) {
    if (!(index >= 0 && index < this.length)) throw new RangeError(`row ${index} of a batch of ${this.length}`);
    return new Row(this, index);
  }

  /** All rows in order. */
  *[Symbol.iterator]() {
    for (let index = 0; index < this.length; index++) yield new Row(this, index);
  }

  #find(type, column) {
    const key = `${type} ${column}`;
    if (!this.#columns.has(key)) this.#columns.set(key, this.#source[type](column) ?? undefined);
    return this.#columns.get(key);
  }

  #missing(column, type) {
    const names = this.columns;
    const there = names.length === 0 ? "no columns at all" : `\`${names.join("`, `")}\``;
    throw new Fault(Fault.MISSING_COLUMN, `no ${TYPES[type]} column \`${column}\`; the batch has ${there}`);
  }
}

/** One row of a batch. Its accessors throw `missing-column` as the batch's do. */
export class Row {
  constructor(batch, index) {
    /** The batch it belongs to. */
    this.batch = batch;
    /** Its place in the batch. */
    this.index = index;
  }

  /** Its stable id, a BigInt: the key for `random`. */
  get id() {
    return this.batch.rowIds[this.index];
  }

  /** Its text in a column. */
  text(column) {
    return this.batch.text(column).get(this.index);
  }

  /** Its number in a column; NaN where it has none. */
  f64(column) {
    return this.batch.f64s(column)[this.index];
  }

  /** Its integer in a column. */
  u32(column) {
    return this.batch.u32s(column)[this.index];
  }

  /** Its token ids in a column. */
  tokens(column) {
    return this.batch.tokens(column).get(this.index);
  }

  /** Its numbers per token in a column. */
  tokenF32s(column) {
    return this.batch.tokenF32s(column).get(this.index);
  }

  /** Its numbers in a column of lists. */
  f64List(column) {
    return this.batch.f64Lists(column).get(this.index);
  }

  /** Its bytes in a column. */
  bytes(column) {
    return this.batch.bytes(column).bytesAt(this.index);
  }
}
