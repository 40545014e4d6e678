// From the exported functions of a world to a plugin's definition, and from the SDK's helpers to the host.
//
// Bindings of componentize-qjs: names are camelCase, an option is a value or null, a function with a result returns the ok or
// throws the error, a variant is `{ tag, val }`. Lists of bytes are Uint8Arrays; the others arrive as arrays and may leave as
// typed arrays, which are copied in one piece.

import { setBackend } from "../backend.js";
import { Batch, Ragged, Texts } from "../batch.js";
import { Fault } from "../fault.js";
import { select } from "../filter.js";
import { turn } from "../judge.js";
import { configure, numbers, settled } from "../plugin.js";
import { score } from "../reward.js";
import { shape } from "../shaper.js";
import { call } from "../tool.js";
import { frames } from "./stack.js";

/** The exports of a component for a plugin of that kind; `host` holds the imports of its world. */
export function connect(kind, plugin, host) {
  if (plugin?.kind !== kind) {
    const made = plugin?.kind ? `made by \`define…\` of the kind ${plugin.kind}` : "not made by one of plumb-sdk's `define…`";
    throw new TypeError(`the module's default export is ${made}, and plugin.toml says \`kind = "${kind}"\``);
  }
  setBackend(backendOf(host));
  let configured = null;
  const guard = (name, work) => reported(host, name, () => {
    if (!configured) throw new Fault("not-initialized", "called before `init` succeeded");
    return work(configured.self);
  });
  const onBatch = (name, work) => (rows, ...more) =>
    guard(name, (self) => work(new Batch(new HostSource(rows)), self, ...more));
  return {
    lifecycle: {
      describe: () => ({
        name: plugin.name,
        version: plugin.version,
        configSchema: plugin.configSchema,
        needsColumns: plugin.needsColumns,
        outputs: plugin.outputs,
        stateVersion: plugin.stateVersion ?? 0,
        extra: [],
      }),
      init: () => reported(host, "init", () => {
        configured = { self: configure(plugin, host.config.json()) };
      }),
    },
    rewarding: {
      score: onBatch("score", (batch, self) => {
        const rewards = score(plugin, batch, self);
        if (plugin.observe) settled(plugin.observe(batch, rewards, self), "observe");
        return { ...rewards, faults: rewards.faults.map(lowerRowFault) };
      }),
    },
    shaping: {
      shape: onBatch("shape", (batch, self) => {
        const { values, tokenValues, parts, faults } = shape(plugin, batch, self);
        return { values: values ?? null, tokenValues: tokenValues ?? null, parts, faults: faults.map(lowerRowFault) };
      }),
    },
    state: {
      save: () => guard("save", (self) => bytes(plugin.save(self), "save")),
      load: (fromVersion, saved) => guard("load", (self) => void plugin.load(self, fromVersion, saved)),
    },
    merging: {
      merge: (states) => guard("merge", (self) => void settled(plugin.merge(states, self), "merge")),
    },
    filtering: {
      select: onBatch("select", (batch, self) => {
        const decision = select(plugin, batch, self);
        const relabels = decision.relabels.map((relabel) => ({ ...relabel, texts: lowerTexts(relabel.texts) }));
        return { ...decision, weights: decision.weights ?? null, pairs: decision.pairs ?? null, relabels };
      }),
    },
    judging: {
      begin: onBatch("begin", (batch, self) => lowerTurn(turn(plugin.begin(batch, self), "begin", batch))),
      resume: onBatch("resume", (batch, self, memo, answers) =>
        lowerTurn(turn(plugin.resume(batch, memo, answers.map(liftGenerated), self), "resume", batch)),
      ),
    },
    tooling: {
      call: (args) => guard("call", (self) => {
        const { output, faults } = call(plugin, liftTexts(args), self);
        return { output: lowerTexts(Texts.from(output)), faults: faults.map(lowerRowFault) };
      }),
    },
  };
}

/** Turns a thrown `Fault` into the interface's; anything else is a bug of the plugin: its message goes to the run's log. */
function reported(host, name, work) {
  try {
    return work();
  } catch (error) {
    if (error instanceof Fault) throw lowerFault(error);
    const places = frames(error).map((frame) => `\n    at ${frame}`);
    host.log.write("error", `\`${name}\` failed: ${error}${places.join("")}`, []);
    throw error;
  }
}

function bytes(value, name) {
  if (!(value instanceof Uint8Array)) throw new TypeError(`\`${name}\` must return a Uint8Array`);
  return value;
}

/** A batch of the host's. */
class HostSource {
  #rows;
  constructor(rows) {
    this.#rows = rows;
  }
  rows() {
    return this.#rows.rows();
  }
  step() {
    return this.#rows.step();
  }
  rowIds() {
    return words(this.#rows.rowIdBytes());
  }
  groupEnds() {
    return this.#rows.groupEnds();
  }
  columns() {
    return this.#rows.columns();
  }
  attr(name) {
    return this.#rows.attr(name);
  }
  text(column) {
    const texts = this.#rows.text(column);
    // The host's decoder is compiled, the SDK's is interpreted: 1 µs a row in place of some 10 ns a byte.
    return texts && new Texts(texts.bytes, texts.ends, (row) => this.#rows.textAt(column, row));
  }
  f64s(column) {
    const values = this.#rows.f64s(column);
    return values && Float64Array.from(values);
  }
  u32s(column) {
    return unsigned(this.#rows.u32s(column));
  }
  tokens(column) {
    return liftTokens(this.#rows.tokens(column));
  }
  tokenF32s(column) {
    return liftRagged(this.#rows.tokenF32s(column));
  }
  f64Lists(column) {
    return liftRagged(this.#rows.f64Lists(column));
  }
  bytes(column) {
    return liftTexts(this.#rows.bytes(column));
  }
}

/** 64-bit words of little-endian bytes; the bindings' own numbers hold 53 bits. */
function words(bytes) {
  return new BigUint64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

const liftTexts = (texts) => texts && new Texts(texts.bytes, texts.ends);
const liftRagged = (ragged) => ragged && new Ragged(ragged.values, ragged.ends);
// The bindings give integers from 2^31 on as negative ones.
const unsigned = (values) => values && Array.from(Uint32Array.from(values));
const liftTokens = (ragged) => ragged && new Ragged(unsigned(ragged.values), ragged.ends);
const liftGenerated = ({ text, tokens, logprobs, finish }) => ({
  text: liftTexts(text),
  tokens: liftTokens(tokens),
  logprobs: liftRagged(logprobs),
  finish,
});

const lowerTexts = ({ bytes, ends }) => ({ bytes, ends: Uint32Array.from(ends) });
const lowerFault = ({ code, message, retryable }) => ({ code, message, retryable });
const lowerRowFault = ({ row, fault }) => ({ row, fault: lowerFault(fault) });
const lowerSampling = (sampling) => ({
  ...sampling,
  seed: Number(sampling.seed),
  stop: Array.from(sampling.stop),
  extra: Object.entries(sampling.extra).map(([name, value]) => [name, String(value)]),
});

function lowerTurn({ ask, done }) {
  if (ask) {
    const questions = ask.questions.map(({ model, prompts, sampling }) => ({
      model,
      prompts: lowerTexts(prompts),
      params: lowerSampling(sampling),
    }));
    return { tag: "ask", val: { questions, memo: bytes(ask.memo, "memo") } };
  }
  const { scores, pairs, matrices, rationales, parts, faults } = done;
  return {
    tag: "done",
    val: {
      scores: scores ?? null,
      pairs: pairs ?? null,
      matrices: matrices ?? null,
      rationales: rationales ? lowerTexts(rationales) : null,
      parts,
      faults: faults.map(lowerRowFault),
    },
  };
}

/** What the SDK's helpers ask, put to the host's functions. */
function backendOf({ log, metrics, random, kv, models, tools }) {
  return {
    log,
    metrics: { count: metrics.count, observe: (name, values) => metrics.observe(name, numbers(values, `metric \`${name}\``)) },
    random: {
      draw(stream, rowId, count) {
        const id = new Uint8Array(BigUint64Array.of(rowId).buffer);
        return words(random.drawBytes(stream, id, count));
      },
    },
    kv: { get: kv.get, set: (key, value) => faulting(() => kv.set(key, value)), delete: kv.delete, keys: kv.keys },
    models: models && {
      generate: (model, prompts, sampling) =>
        liftGenerated(faulting(() => models.generate(model, lowerTexts(prompts), lowerSampling(sampling)))),
      logprobs: (model, prompts, continuations) =>
        liftRagged(faulting(() => models.logprobs(model, lowerTexts(prompts), lowerTexts(continuations)))),
      tokenLogprobs: (model, prompts, { values, ends }) =>
        liftRagged(faulting(() => models.tokenLogprobs(model, lowerTexts(prompts), {
          values: Uint32Array.from(values),
          ends: Uint32Array.from(ends),
        }))),
      choiceLogprobs: (model, prompts, choices) =>
        faulting(() => models.choiceLogprobs(model, lowerTexts(prompts), choices)),
      score: (model, prompts, continuations) =>
        faulting(() => models.score(model, lowerTexts(prompts), lowerTexts(continuations))),
      embed(model, inputs) {
        const [width, values] = faulting(() => models.embed(model, lowerTexts(inputs)));
        return { width, values };
      },
    },
    tools: tools && {
      call(tool, args) {
        const { output, faults } = faulting(() => tools.call(tool, lowerTexts(args)));
        return { output: liftTexts(output), faults };
      },
    },
  };
}

/** The bindings throw the interface's fault as a plain object; plugins catch `Fault`s. */
function faulting(work) {
  try {
    return work();
  } catch (error) {
    const fault = error?.code === undefined ? error?.payload : error;
    if (fault?.code === undefined) throw error;
    throw new Fault(fault.code, fault.message, fault);
  }
}
