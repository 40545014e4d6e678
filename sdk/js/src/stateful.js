// Plugins with state. A module of its own, and without effects when it loads: the build reads off the bundle whether it is
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
  return versioned(define("shaper", spec, [["shape"], ["save"], ["load"]]));
}

/**
 * A reward that learns from what it scored, such as one that counts which answers it has seen in the run.
 *
 * Calls of a step are made side by side, on parts of its batches: each begins with the state as it was when the step began, scores,
 * then `observe(batch, rewards, self)`s its own rows, and saves. When the step ends, `merge(states, self)` adds up what they learnt:
 * `states` are what `save` gave after each, in the order of their rows, `self` is the state that they all began with. So a row's value
 * still depends on that row alone, besides what the steps before left. Besides these: `save`, `load` and `stateVersion`.
 */
export function defineStatefulReward(spec) {
  return versioned(define("reward", spec, [["scoreRow", "score"], ["observe"], ["merge"], ["save"], ["load"]]));
}

function versioned(definition) {
  if (!Number.isInteger(definition.stateVersion) || definition.stateVersion < 1) {
    throw new TypeError(`this ${definition.kind}: \`stateVersion\` must be an integer from 1`);
  }
  return definition;
}
