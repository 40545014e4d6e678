import assert from "node:assert/strict";
import test from "node:test";

import { BatchBuilder, configure } from "plumb-sdk/testing";
import plugin from "../src/plugin.js";

test("numbers in named groups become parts", () => {
  const batch = new BatchBuilder().text("completion", ["So the answer is 42.", "I do not know."]).build();
  const { values, parts } = configure(plugin).score(batch);
  assert.deepEqual([...values], [1, 0]);
  assert.deepEqual(parts.map(({ name, values }) => [name, ...values]), [["answer", 42, NaN]]);
});

test("a pattern that is none is refused", () => {
  assert.throws(() => configure(plugin, { pattern: "(" }), { code: "bad-config" });
});
