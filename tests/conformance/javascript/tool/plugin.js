// See `tests/conformance/README.md`: the tool.

import { charLength, defineTool, Fault, log } from "plumb-sdk";

export default defineTool({
  name: "conformance-tool",
  version: "0.1.0",
  config: { prefix: { type: "string", default: ">" } },

  create(config) {
    if (config.prefix === "") throw Fault.badConfig("`prefix` must not be empty");
    return config;
  },

  callRow(given, { prefix }) {
    const { text, times, ...others } = given ?? {};
    if (typeof text !== "string" || !Number.isInteger(times) || times < 0 || Object.keys(others).length > 0) {
      throw new Fault(Fault.BAD_ARGUMENTS, "`text` and `times` are expected");
    }
    if (text === "") throw new Fault("nothing", "∅", { retryable: true });
    if (text.includes("PANIC")) throw new Error("the text says PANIC");
    log.info("repeats", { text });
    return `${prefix}${text.repeat(times)} ${charLength(text)}`;
  },
});
