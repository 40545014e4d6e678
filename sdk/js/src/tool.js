// Tools: what other plugins call through `tools`, under the name that the recipe gives it.

import { Fault } from "./fault.js";
import { define, settled } from "./plugin.js";

/**
 * A tool: `callRow(args, self)` answers one call; `args` is what its JSON says. A string is the result as it is, anything
 * else becomes JSON; a `Fault` says why there is none. Calls are independent of each other.
 */
export function defineTool(spec) {
  return define("tool", spec, [["callRow"]]);
}

/** A definition's results for texts of JSON. */
export function call(definition, texts, self) {
  const output = [];
  const faults = [];
  for (const [row, text] of Array.from(texts).entries()) {
    try {
      const result = settled(definition.callRow(parse(text), self), "callRow");
      output.push(typeof result === "string" ? result : (JSON.stringify(result) ?? "null"));
    } catch (error) {
      if (!(error instanceof Fault) || error.concernsBatch) throw error;
      output.push("");
      faults.push({ row, fault: error });
    }
  }
  return { output, faults };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Fault(Fault.BAD_ARGUMENTS, `the arguments are not JSON: ${error.message}`);
  }
}
