// Random numbers as a pure function of (run seed, plugin name, step, arguments): calls may be repeated, split and reordered
// without changing them.

import { backend } from "./backend.js";

/** `count` numbers of 64 bits, as a BigUint64Array, of the row's stream of that name. `rowId` is a BigInt: `row.id`. */
export function draw(stream, rowId, count) {
  return backend("random").draw(stream, BigInt(rowId), count);
}

/** `count` numbers, uniform in [0, 1), with 53 random bits. */
export function uniform(stream, rowId, count) {
  return Array.from(draw(stream, rowId, count), (bits) => Number(bits >> 11n) / 2 ** 53);
}
