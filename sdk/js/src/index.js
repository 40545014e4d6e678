// Write plugins for the `plumb` alignment runtime: an object with a few functions, exported as the module's default.

export { Batch, Ragged, Row, Texts } from "./batch.js";
export { Fault } from "./fault.js";
export { Decision, defineFilter } from "./filter.js";
export { ask, defineJudge, done } from "./judge.js";
export { defineReward, Rewards, Spans } from "./reward.js";
export { defineShaper } from "./shaper.js";
export { defineStatefulReward, defineStatefulShaper } from "./stateful.js";
export { defineTool } from "./tool.js";
export { charIndex, charLength, decode, encode } from "./utf8.js";
export * as kv from "./kv.js";
export * as log from "./log.js";
export * as metrics from "./metrics.js";
export * as models from "./models.js";
export * as random from "./random.js";
export * as tools from "./tools.js";
