// Numbers for the run's metrics, as `plugin/<name>/<metric>`.

import { backend } from "./backend.js";

/** Adds to a counter. `delta` is an integer from 0 to 2^53. */
export function count(name, delta = 1) {
  backend("metrics").count(name, delta);
}

/** Adds values of which the run keeps the statistics. */
export function observe(name, values) {
  backend("metrics").observe(name, typeof values === "number" ? [values] : Array.from(values));
}
