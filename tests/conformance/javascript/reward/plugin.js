// See `tests/conformance/README.md`: the reward.

import { charIndex, charLength, defineStatefulReward, encode, Fault, kv, log, metrics, random, Rewards, Spans } from "plumb-sdk";

export default defineStatefulReward({
  name: "conformance-reward",
  version: "0.1.0",
  config: { bonus: { type: "number", default: 0.5 }, marker: { type: "string", default: "é" } },
  needsColumns: ["completion"],
  outputs: ["bytes", "words", "x", "negated", "list", "tokens", "logprobs", "blob", "count", "seen", "learnt", "draw", "uniform"],
  stateVersion: 3,

  create(config) {
    if (config.marker === "") throw Fault.badConfig("`marker` must not be empty");
    // `scored` rows that earlier steps gave a value, and its sum.
    return { ...config, scored: 0n, sum: 0 };
  },

  score(batch, config) {
    if (batch.attr("fail") === "fault") throw new Fault("told-to", `step ${batch.step}`);
    const before = kv.get("seen");
    const seen = before ? new DataView(before.buffer, before.byteOffset).getBigUint64(0, true) : 0n;
    kv.set("seen", new Uint8Array(BigUint64Array.of(seen + BigInt(batch.rows)).buffer));
    kv.set(`step/${batch.step}`, "");
    if (batch.step > 0) kv.remove(`step/${batch.step - 1}`);
    const rewards = new Rewards();
    const marks = new Spans("marks", "char");
    const tail = new Spans("tail", "token");
    for (const row of batch) {
      try {
        rewards.push(scoreRow(row, config, Number(seen)));
        spans(row, config, marks, tail);
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        rewards.push(error);
      }
    }
    metrics.count("texts", batch.rows);
    metrics.observe("chars", Array.from(batch.text("completion"), charLength));
    log.info(`scored ${batch.rows} rows ✓`, {
      columns: batch.columns.join(","),
      groups: batch.groups.map(([start, stop]) => `${start}-${stop}`).join(" "),
      keys: kv.keys("s").join(","),
      stage: batch.attr("recipe_stage") ?? "none",
    });
    rewards.spans = [marks, tail].filter((spans) => spans.rows.length > 0);
    return rewards;
  },

  observe(batch, { values, faults }, self) {
    const faulty = new Set(faults.map(({ row }) => row));
    values.forEach((value, row) => {
      if (faulty.has(row)) return;
      self.scored += 1n;
      self.sum += value;
    });
  },

  save({ scored, sum }) {
    const bytes = new DataView(new ArrayBuffer(16));
    bytes.setBigUint64(0, scored, true);
    bytes.setFloat64(8, sum, true);
    return new Uint8Array(bytes.buffer);
  },

  load(self, fromVersion, bytes) {
    Object.assign(self, read(fromVersion, bytes));
  },

  merge(states, self) {
    const before = { ...self };
    for (const state of states) {
      const { scored, sum } = read(3, state);
      self.scored += scored - before.scored;
      self.sum += sum - before.sum;
    }
    if (self.scored > 1000n) throw new Fault("told-to", `${self.scored} rows are more than 1000`);
  },
});

function read(version, bytes) {
  if (version !== 3 || bytes.length !== 16) throw new Fault("bad-state", `${bytes.length} bytes of version ${version}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return { scored: view.getBigUint64(0, true), sum: view.getFloat64(8, true) };
}

function scoreRow(row, { bonus, scored, sum }, seen) {
  const text = row.text("completion");
  const { batch, index } = row;
  if (text === "") throw Fault.abstain(`row ${row.id} is empty`);
  const fail = text.indexOf("FAIL");
  if (fail >= 0) throw new Fault("told-to", `the text says FAIL at ${charIndex(text, fail)}`, { retryable: true });
  if (text.includes("PANIC")) throw new Error("the text says PANIC");
  const xs = batch.findF64s("x");
  const x = xs ? xs[index] : 0;
  const words = text.split(" ").filter((word) => word !== "").length;
  const value = bonus * charLength(text) + words / 3 + (Number.isNaN(x) ? 0 : x);
  const parts = { bytes: encode(text).length };
  if (words > 1) parts.words = words;
  if (xs) {
    parts.x = x;
    parts.negated = -x;
  }
  const fold = (list, add) => Array.from(list).reduce(add, 0);
  const lists = batch.findF64Lists("list");
  if (lists) parts.list = fold(lists.get(index), (sum, x) => sum + x * 0.1);
  const tokens = batch.findTokens("completion_ids");
  if (tokens) parts.tokens = fold(tokens.get(index), (sum, id) => sum * 0.5 + id);
  const logprobs = batch.findTokenF32s("old_logprobs");
  if (logprobs) parts.logprobs = fold(logprobs.get(index), (sum, p) => sum + p);
  const blobs = batch.findBytes("blob");
  if (blobs) parts.blob = fold(blobs.bytesAt(index), (sum, byte) => sum * 2 + byte);
  const counts = batch.findU32s("count");
  if (counts) parts.count = counts[index];
  parts.seen = seen;
  parts.learnt = Number(scored) + sum / 2;
  const mixed = random.draw("noise", row.id, 3).reduce((mixed, draw) => mixed ^ draw, 0n);
  parts.draw = Number(mixed >> 32n) * 0.5 + Number(mixed & 0xffffffffn);
  parts.uniform = random.uniform("noise", row.id, 1)[0];
  return { value, parts };
}

/** A stretch for each marker, and one over all tokens. */
function spans(row, { marker }, marks, tail) {
  const text = row.text("completion");
  for (let at = text.indexOf(marker); at >= 0; at = text.indexOf(marker, at + marker.length)) {
    const start = charIndex(text, at);
    marks.push(row.index, start, start + charLength(marker), start * 0.25);
  }
  const length = row.batch.findTokens("completion_ids")?.get(row.index).length ?? 0;
  if (length > 0) tail.push(row.index, length - 1, length, -1);
}
