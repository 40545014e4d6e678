// Lines for the run's log. Bounded per call; what is beyond the bound is dropped and counted.

import { backend } from "./backend.js";

/** Writes a line; `level` is `trace`, `debug`, `info`, `warn` or `error`, `fields` an object of named values. */
export function write(level, message, fields = {}) {
  backend("log").write(level, String(message), Object.entries(fields).map(([name, value]) => [name, String(value)]));
}

/** Something that helps to understand a run in detail. */
export const debug = (message, fields) => write("debug", message, fields);
/** Something worth knowing. */
export const info = (message, fields) => write("info", message, fields);
/** Something that may make results wrong. */
export const warn = (message, fields) => write("warn", message, fields);
