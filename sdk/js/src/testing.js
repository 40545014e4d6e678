// Tests of plugins in node, without WebAssembly: batches from memory, and a stand-in for the runtime.

import { setBackend } from "./backend.js";
import { Batch, Ragged, Texts } from "./batch.js";
import { Fault } from "./fault.js";
import { select } from "./filter.js";
import { turn } from "./judge.js";
import { configure as read } from "./plugin.js";
import { score } from "./reward.js";
import { shape } from "./shaper.js";
import { call } from "./tool.js";

/** A plugin that is configured as the runtime does it, with the functions of its kind. Throws a `bad-config` fault. */
export function configure(plugin, config = {}) {
  const self = read(plugin, JSON.stringify(config));
  const begin = (result, name, batch) => {
    const next = turn(result, name, batch);
    return next.ask ?? next.done;
  };
  return {
    self,
    score: (batch) => score(plugin, batch, self),
    shape: (batch) => shape(plugin, batch, self),
    select: (batch) => select(plugin, batch, self),
    begin: (batch) => begin(plugin.begin(batch, self), "begin", batch),
    resume: (batch, memo, answers) => begin(plugin.resume(batch, memo, answers, self), "resume", batch),
    call: (args) => call(plugin, args.map((one) => (typeof one === "string" ? one : JSON.stringify(one))), self),
    save: () => plugin.save(self),
    load: (fromVersion, bytes) => plugin.load(self, fromVersion, bytes),
    observe: (batch, rewards) => plugin.observe(batch, rewards, self),
    merge: (states) => plugin.merge(states, self),
  };
}

/** Collects a batch's columns: `new BatchBuilder().text("completion", ["a", "b"]).groups([2]).build()`. */
export class BatchBuilder {
  #columns = new Map();
  #attrs = new Map();
  #groups;
  #rowIds;
  #step = 0;

  /** Adds a text column. */
  text(name, rows) {
    return this.#column("text", name, Texts.from(rows));
  }
  /** Adds a column of numbers. */
  f64s(name, rows) {
    return this.#column("f64s", name, Float64Array.from(rows));
  }
  /** Adds a column of integers. */
  u32s(name, rows) {
    return this.#column("u32s", name, Array.from(rows));
  }
  /** Adds a column of token ids. */
  tokens(name, rows) {
    return this.#column("tokens", name, Ragged.from(rows));
  }
  /** Adds a column of numbers per token; they become 32-bit floats, as in a run. */
  tokenF32s(name, rows) {
    return this.#column("tokenF32s", name, Ragged.from(rows.map((row) => Array.from(row, Math.fround))));
  }
  /** Adds a column of numbers per row. */
  f64Lists(name, rows) {
    return this.#column("f64Lists", name, Ragged.from(rows));
  }
  /** Adds a column of raw bytes. */
  bytes(name, rows) {
    return this.#column("bytes", name, Texts.from(rows));
  }
  /** Sets an attribute. */
  attr(name, value) {
    this.#attrs.set(name, value);
    return this;
  }
  /** Sets the groups by their end rows; one group of all rows otherwise. */
  groups(ends) {
    this.#groups = Array.from(ends);
    return this;
  }
  /** Sets the row ids; 0, 1, ... otherwise. */
  rowIds(ids) {
    this.#rowIds = BigUint64Array.from(ids, BigInt);
    return this;
  }
  /** Sets the step; 0 otherwise. */
  step(step) {
    this.#step = step;
    return this;
  }

  /** The batch. Throws when columns, ids and groups do not have the same number of rows. */
  build() {
    const columns = this.#columns;
    const attrs = this.#attrs;
    const rows = [...columns.values()][0]?.column.length ?? 0;
    for (const [name, { column }] of columns) {
      if (column.length !== rows) throw new RangeError(`column \`${name}\` has ${column.length} rows, the others ${rows}`);
    }
    const ids = this.#rowIds ?? BigUint64Array.from({ length: rows }, (_, row) => BigInt(row));
    if (ids.length !== rows) throw new RangeError(`there are ${ids.length} ids for ${rows} rows`);
    const groups = this.#groups ?? [rows];
    if ((groups.at(-1) ?? 0) !== rows || groups.some((end, i) => i > 0 && end < groups[i - 1])) {
      throw new RangeError(`groups ${JSON.stringify(groups)} must rise to the number of rows, ${rows}`);
    }
    const step = this.#step;
    const source = {
      rows: () => rows,
      step: () => step,
      rowIds: () => ids,
      groupEnds: () => groups,
      columns: () => [...columns.keys()].sort(),
      attr: (name) => attrs.get(name),
    };
    for (const type of ["text", "f64s", "u32s", "tokens", "tokenF32s", "f64Lists", "bytes"]) {
      source[type] = (name) => (columns.get(name)?.type === type ? columns.get(name).column : undefined);
    }
    return new Batch(source);
  }

  #column(type, name, column) {
    this.#columns.set(name, { type, column });
    return this;
  }
}

/** What plugins wrote since the last call: `{ log, counts, observed }`. */
export function takeOutput() {
  const taken = output;
  output = empty();
  return taken;
}

/** Empties the `kv`. */
export function clearKv() {
  kv.clear();
}

/**
 * Lets `models` answer under that name: `answer` has those of the functions `generate`, `logprobs`, `tokenLogprobs`,
 * `choiceLogprobs`, `score`, `embed` that the test needs, with the arguments after the model's name.
 */
export function scriptModel(name, answer) {
  models.set(name, answer);
}

/** Lets `tools` answer under that name: `answer(args)` returns a result (an object becomes JSON) or throws a `Fault`. */
export function scriptTool(name, answer) {
  tools.set(name, answer);
}

/** Completions of a model, as `generate` and a judge's `resume` get them, without tokens. */
export function generated(texts) {
  const none = () => Ragged.from(texts.map(() => []));
  return { text: Texts.from(texts), tokens: none(), logprobs: none(), finish: texts.map(() => "stop") };
}

const empty = () => ({ log: [], counts: {}, observed: {} });
let output = empty();
const kv = new Map();
const models = new Map();
const tools = new Map();
const MASK = (1n << 64n) - 1n;

function splitMix(x) {
  x = (x + 0x9e3779b97f4a7c15n) & MASK;
  x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return x ^ (x >> 31n);
}

function model(name, what) {
  const found = models.get(name);
  if (!found) throw new Fault("unknown-model", `no model \`${name}\`: the test has no \`scriptModel("${name}", ...)\``);
  if (!found[what]) throw new Fault("denied", `model \`${name}\` answers no \`${what}\``);
  return found[what].bind(found);
}

setBackend({
  log: { write: (level, message, fields) => output.log.push({ level, message, fields: Object.fromEntries(fields) }) },
  metrics: {
    count: (name, delta) => void (output.counts[name] = (output.counts[name] ?? 0) + delta),
    observe: (name, values) => void (output.observed[name] ??= []).push(...values),
  },
  random: {
    // As pure as the runtime's function, though with other numbers: FNV-1a of the name, then SplitMix64.
    draw(stream, rowId, count) {
      let name = 0xcbf29ce484222325n;
      for (const byte of new TextEncoder().encode(stream)) name = ((name ^ BigInt(byte)) * 0x100000001b3n) & MASK;
      const key = splitMix(name ^ splitMix(rowId));
      return BigUint64Array.from({ length: count }, (_, n) => splitMix(key ^ splitMix(BigInt(n))));
    },
  },
  kv: {
    get: (key) => kv.get(key),
    set: (key, value) => void kv.set(key, Uint8Array.from(value)),
    delete: (key) => void kv.delete(key),
    keys: (prefix) => [...kv.keys()].filter((key) => key.startsWith(prefix)).sort(),
  },
  models: Object.fromEntries(
    ["generate", "logprobs", "tokenLogprobs", "choiceLogprobs", "score", "embed"].map((what) => [
      what,
      (name, ...args) => model(name, what)(...args),
    ]),
  ),
  tools: {
    call(name, args) {
      const answer = tools.get(name);
      if (!answer) throw new Fault("unknown-tool", `no tool \`${name}\`: the test has no \`scriptTool("${name}", ...)\``);
      const faults = [];
      const results = Array.from(args, (text, row) => {
        try {
          const result = answer(JSON.parse(text));
          return typeof result === "string" ? result : JSON.stringify(result);
        } catch (error) {
          if (!(error instanceof Fault)) throw error;
          faults.push({ row, fault: error });
          return "";
        }
      });
      return { output: Texts.from(results), faults };
    },
  },
});
