// See `tests/conformance/README.md`: the shaper with state.

import { defineStatefulShaper, Fault, log, Ragged } from "plumb-sdk";

export default defineStatefulShaper({
  name: "conformance-shaper",
  version: "0.1.0",
  config: { share: { type: "number", minimum: 0, maximum: 1, default: 0.5 } },
  needsColumns: ["value"],
  outputs: ["running", "group_mean"],
  stateVersion: 2,

  create: ({ share }) => ({ share, count: 0n, mean: 0 }),

  shape(batch, self) {
    const values = batch.f64s("value");
    const before = self.mean;
    const shaped = Float64Array.from(values);
    const means = new Array(batch.rows).fill(NaN);
    const faults = [];
    batch.groups.forEach(([start, stop], place) => {
      const known = [];
      for (let row = start; row < stop; row++) if (!Number.isNaN(values[row])) known.push(row);
      let sum = 0;
      for (const row of known) {
        sum += values[row];
        self.count += 1n;
        self.mean += (values[row] - self.mean) / Number(self.count);
      }
      if (known.length === 0) log.warn(`group ${place} has no value`);
      for (const row of known) {
        means[row] = sum / known.length;
        shaped[row] = values[row] + self.share * (means[row] - values[row]);
        if (Math.abs(values[row]) > 1e9) faults.push({ row, fault: new Fault("too-large", "beyond 1e9") });
      }
    });
    if (batch.attr("fail") === "fault") throw new Fault("told-to", "after it counted");
    if (batch.attr("fail") === "panic") throw new Error("told to");
    const logprobs = batch.findTokenF32s("old_logprobs");
    const tokenValues = logprobs && Ragged.from(Array.from(logprobs, (row) => row.map((p) => p * self.share)));
    const parts = [
      { name: "running", values: new Array(batch.rows).fill(before) },
      { name: "group_mean", values: means },
    ];
    return { values: shaped, tokenValues, parts, faults };
  },

  save({ count, mean }) {
    const bytes = new DataView(new ArrayBuffer(16));
    bytes.setBigUint64(0, count, true);
    bytes.setFloat64(8, mean, true);
    return new Uint8Array(bytes.buffer);
  },

  load(self, fromVersion, bytes) {
    if (fromVersion !== 2 || bytes.length !== 16) {
      throw new Fault("bad-state", `${bytes.length} bytes of version ${fromVersion}`);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    self.count = view.getBigUint64(0, true);
    self.mean = view.getFloat64(8, true);
  },
});
