// Shapers with state. A module of its own, and without effects when it loads: the build reads off the bundle whether it is
// in use, and gives the component the export `state` then.

import { define } from "./plugin.js";

/**
 * A shaper with state that the runtime saves with every checkpoint and hands over when the plugin is swapped.
 *
 * Besides `shape`: `save(self)` returns the state as bytes, the same for the same state; `load(self, fromVersion, bytes)` takes
 * back what `save` wrote at `stateVersion` `fromVersion`, or throws a `Fault` for what it cannot read; `stateVersion` is an
 * integer from 1, raised when those bytes change.
 */
export function defineStatefulShaper(spec) {
  const definition = define("shaper", spec, [["shape"], ["save"], ["load"]]);
  if (!Number.isInteger(spec.stateVersion) || spec.stateVersion < 1) {
    throw new TypeError("this shaper: `stateVersion` must be an integer from 1");
  }
  return definition;
}
