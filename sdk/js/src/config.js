// The configuration: its schema, its defaults, and what is wrong with one.
//
// A definition's `config` gives the keys, each with a JSON schema and usually a `default`: `{ max_words: { type: "integer",
// minimum: 1, default: 50 } }`. A key without default is required, and other keys are errors. Whoever needs more gives the
// whole `configSchema`, and checks the rest in `create`.

import { Fault } from "./fault.js";

/** The JSON schema of a definition's configuration, as text. */
export function configSchema(spec) {
  if (spec.configSchema !== undefined) {
    return typeof spec.configSchema === "string" ? spec.configSchema : JSON.stringify(spec.configSchema);
  }
  if (spec.config === undefined) return JSON.stringify({ type: "object" });
  const required = Object.keys(spec.config).filter((key) => !("default" in spec.config[key]));
  return JSON.stringify({ type: "object", properties: spec.config, required, additionalProperties: false });
}

/** The configuration that a JSON text gives, with defaults. Throws `bad-config`. */
export function readConfig(definition, json) {
  let given;
  try {
    given = JSON.parse(json);
  } catch (error) {
    throw Fault.badConfig(error.message);
  }
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw Fault.badConfig(`the configuration must be an object, not ${json}`);
  }
  if (definition.config === undefined) return given;
  const known = Object.keys(definition.config);
  for (const key of Object.keys(given)) {
    if (!known.includes(key)) {
      throw Fault.badConfig(`unknown key \`${key}\`, expected ${known.length ? `\`${known.join("`, `")}\`` : "none"}`);
    }
  }
  const config = {};
  for (const key of known) {
    const schema = definition.config[key];
    if (key in given) {
      check(given[key], schema, `\`${key}\``);
      config[key] = given[key];
    } else if ("default" in schema) {
      config[key] = structuredCopy(schema.default);
    } else {
      throw Fault.badConfig(`missing key \`${key}\``);
    }
  }
  return config;
}

const structuredCopy = (value) => (typeof value === "object" && value !== null ? JSON.parse(JSON.stringify(value)) : value);

const TYPES = {
  integer: Number.isInteger,
  number: (value) => typeof value === "number",
  string: (value) => typeof value === "string",
  boolean: (value) => typeof value === "boolean",
  array: Array.isArray,
  object: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  null: (value) => value === null,
};

/** Checks the schema's most used words; the runtime checks all of them when it loads a component. */
function check(value, schema, place) {
  const wrong = (must) => Fault.badConfig(`${place} must ${must}, and is ${JSON.stringify(value)}`);
  const types = schema.type === undefined ? [] : [schema.type].flat();
  if (types.length && !types.some((type) => TYPES[type]?.(value))) throw wrong(`be of type ${types.join(" or ")}`);
  if (schema.enum && !schema.enum.includes(value)) throw wrong(`be one of ${JSON.stringify(schema.enum)}`);
  if (value < schema.minimum) throw wrong(`be at least ${schema.minimum}`);
  if (value > schema.maximum) throw wrong(`be at most ${schema.maximum}`);
  if (value <= schema.exclusiveMinimum) throw wrong(`be more than ${schema.exclusiveMinimum}`);
  if (value >= schema.exclusiveMaximum) throw wrong(`be less than ${schema.exclusiveMaximum}`);
  if (Array.isArray(value) && schema.items) value.forEach((item, i) => check(item, schema.items, `${place}[${i}]`));
}
