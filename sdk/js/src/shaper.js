// Shapers: rewards (or advantages) to shaped ones.

import { define, integers, numbers, parts, rowFaults, settled } from "./plugin.js";

/**
 * A shaper: `shape(batch, self)` returns numbers, or `{ values, tokenValues, parts, faults }`. It sees whole groups and works
 * on the column `value`; the attribute `stage` says whether that is a `reward` or an `advantage`. A row without a value has
 * NaN there and is passed through.
 *
 * What it keeps in `self` is lost when its instance is dropped, which may happen between any two calls: see
 * `defineStatefulShaper`.
 */
export function defineShaper(spec) {
  return define("shaper", spec, [["shape"]]);
}

/** A definition's answer to a batch, checked. */
export function shape(definition, batch, self) {
  let shaped = settled(definition.shape(batch, self), "shape");
  if (Array.isArray(shaped) || shaped instanceof Float64Array) shaped = { values: shaped };
  const { values, tokenValues, faults } = shaped ?? {};
  if (!values && !tokenValues) throw new TypeError("`shape` returned neither `values` nor `tokenValues`");
  for (const [name, list] of [["values", values], ["tokenValues", tokenValues]]) {
    if (list && list.length !== batch.length) throw new RangeError(`\`${name}\` has ${list.length} entries for ${batch.length} rows`);
  }
  return {
    values: values && numbers(values, "`values`"),
    tokenValues: tokenValues && {
      values: Float32Array.from(numbers(tokenValues.values, "`tokenValues`")),
      ends: integers(tokenValues.ends, "`ends` of `tokenValues`"),
    },
    parts: parts(shaped.parts, batch.length),
    faults: rowFaults(faults),
  };
}
