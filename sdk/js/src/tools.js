// The tools of the recipe: other plugins, or tools of the host. A capability: plugin.toml asks for it (`[needs]`,
// `capabilities = ["tools"]`), and the recipe grants it.

import { backend } from "./backend.js";
import { Texts } from "./batch.js";
import { Fault } from "./fault.js";

/**
 * One call per element of `args` (objects become JSON, strings are JSON already): its output as a string, or the `Fault` that
 * says why it has none. Throws a fault when the tool is not there or not granted.
 */
export function call(tool, args) {
  const texts = Texts.from(Array.from(args, (one) => (typeof one === "string" ? one : JSON.stringify(one))));
  const { output, faults } = backend("tools").call(tool, texts);
  const results = Array.from(output);
  for (const { row, fault } of faults) results[row] = new Fault(fault.code, fault.message, fault);
  return results;
}
