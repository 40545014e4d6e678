// What all kinds share: the definition, its configuration, and how results are checked.

import { configSchema, readConfig } from "./config.js";
import { Fault } from "./fault.js";

/** Makes a definition of a kind; `needed` are the functions that it must have, each a list of alternatives. */
export function define(kind, spec, needed) {
  const wrong = (reason) => new TypeError(`this ${kind}: ${reason}`);
  for (const field of ["name", "version"]) {
    if (typeof spec?.[field] !== "string" || spec[field] === "") throw wrong(`\`${field}\` must be a text`);
  }
  for (const alternatives of needed) {
    if (!alternatives.some((name) => typeof spec[name] === "function")) {
      throw wrong(`it needs the function \`${alternatives.join("` or `")}\``);
    }
  }
  return Object.freeze({ needsColumns: [], outputs: [], ...spec, kind, configSchema: configSchema(spec) });
}

/** Configures a definition from the JSON of its configuration; returns what its functions get as their last argument. */
export function configure(definition, json) {
  const config = readConfig(definition, json);
  const self = definition.create ? definition.create(config) : config;
  return settled(self, "create");
}

/** Refuses promises: a call ends when its function returns, and nothing runs after it. */
export function settled(result, name) {
  if (typeof result?.then === "function") {
    throw new TypeError(`\`${name}\` returned a promise; a plugin's functions answer at once, so it must not be \`async\``);
  }
  return result;
}

/** Numbers as a Float64Array; `what` names them if they are none. */
export function numbers(values, what) {
  if (values instanceof Float64Array) return values;
  const list = new Float64Array(values.length);
  for (let i = 0; i < list.length; i++) {
    const value = values[i];
    if (typeof value !== "number") throw new TypeError(`${what}: entry ${i} is ${describe(value)}, not a number`);
    list[i] = value;
  }
  return list;
}

/** Rows and the like, as a Uint32Array. */
export function integers(values, what) {
  if (values instanceof Uint32Array) return values;
  return Uint32Array.from(values, (value, i) => {
    if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) {
      throw new TypeError(`${what}: entry ${i} is ${describe(value)}, not an integer from 0`);
    }
    return value;
  });
}

export function describe(value) {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

/** Parts in the order in which rows gave them: `{ name: values }` or `[{ name, values }]`. */
export function parts(given, rows) {
  const list = Array.isArray(given) ? given : Object.entries(given ?? {}).map(([name, values]) => ({ name, values }));
  for (const { name, values } of list) {
    if (values.length !== rows) throw new RangeError(`part \`${name}\` has ${values.length} values for ${rows} rows`);
  }
  return list.map(({ name, values }) => ({ name, values: numbers(values, `part \`${name}\``) }));
}

/** `{ row, fault }`s, checked. */
export function rowFaults(faults = []) {
  return Array.from(faults, ({ row, fault }) => {
    if (!(fault instanceof Fault)) throw new TypeError(`the fault of row ${row} must be a \`Fault\``);
    return { row, fault };
  });
}
