// See `tests/conformance/README.md`: the tool.

import { charLength, defineTool, Fault } from "plumb-sdk";

export default defineTool({
  name: "conformance-tool",
  version: "0.1.0",
  config: { prefix: { type: "string", default: ">" } },

  callRow({ text, times }, { prefix }) {
    if (text === "") throw Fault.abstain("nothing to repeat ∅");
    return `${prefix}${text.repeat(times)}:${charLength(text)}`;
  },
});
