// Values kept by plugin name, across calls, checkpoints and swaps. Writes land only if the call returns.

import { backend } from "./backend.js";
import { decode, encode } from "./utf8.js";

/** The bytes at a key; undefined when there are none. */
export function get(key) {
  return backend("kv").get(key) ?? undefined;
}

/** The text at a key; undefined when there is none. */
export function getText(key) {
  const bytes = get(key);
  return bytes && decode(bytes);
}

/** Sets the value at a key: bytes, or a string as UTF-8. Throws a fault when the plugin's quota is used up. */
export function set(key, value) {
  backend("kv").set(key, typeof value === "string" ? encode(value) : value);
}

/** Removes a key, if it is there. */
export function remove(key) {
  backend("kv").delete(key);
}

/** The keys with that prefix, in order. */
export function keys(prefix = "") {
  return backend("kv").keys(prefix);
}
