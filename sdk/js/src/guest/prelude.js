// Loads before everything else in a component: takes away what would make answers differ between two runs.
//
// QuickJS has a clock and a generator of its own. Below a plugin the clock is a trap, which would end the call without a word,
// and the generator starts anew from one seed for every batch. So both throw here, and say what to use.

function refused(what, instead) {
  return function refuse() {
    throw new Error(`\`${what}\` does not work in a plugin, whose answers must repeat: ${instead}`);
  };
}

const clock = "the step of training is `batch.step`, and there is no other time";

Math.random = refused("Math.random", "use `random.uniform(name, row.id, count)` of plumb-sdk");

const SystemDate = Date;
const now = refused("Date.now", clock);
globalThis.Date = class Date extends SystemDate {
  /** A date that is given is a date like any other. */
  constructor(...args) {
    if (args.length === 0) now();
    super(...args);
  }
  static now() {
    now();
  }
};

if (globalThis.performance) {
  globalThis.performance = { now: refused("performance.now", clock), timeOrigin: 0 };
}
for (const name of ["setTimeout", "setInterval", "fetch"]) {
  if (!(name in globalThis)) {
    globalThis[name] = refused(name, "a call works through its batch and returns; nothing runs after it");
  }
}
