import assert from "node:assert/strict";
import test from "node:test";

import { frames } from "../src/guest/stack.js";

const STRETCHES = [
  [100, 10, "src/plugin.js", 5],
  [120, 3, "node_modules/leven/index.js", 40],
];

test("frames_are_the_authors_and_the_packages_by_their_own_lines", () => {
  const stack = [
    "    at <anonymous> (componentize-qjs:user.js:121:9)",
    "    at map (native)",
    "    at inner (componentize-qjs:user.js:104:12)",
    "    at score (componentize-qjs:user.js:80:69)",
    "    at componentize-qjs:user.js:109",
    "    at guard (componentize-qjs:user.js:110:48)",
    "",
  ].join("\n");
  assert.deepEqual(frames({ stack }, STRETCHES), [
    "<anonymous> (node_modules/leven/index.js:41)",
    "inner (src/plugin.js:9)",
    "<anonymous> (src/plugin.js:14)",
  ]);
});

test("what_is_thrown_without_a_stack_has_no_frames", () => {
  for (const thrown of ["text", null, undefined, { stack: 1 }]) assert.deepEqual(frames(thrown, STRETCHES), []);
});
