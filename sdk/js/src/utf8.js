// UTF-8 and characters. Texts cross as UTF-8, JavaScript's strings are UTF-16, and spans count neither: they count Unicode
// scalar values. QuickJS has no `TextEncoder`, hence these.

/** A string's UTF-8; half of a surrogate pair becomes U+FFFD, as in `TextEncoder`. */
export function encode(text) {
  const bytes = new Uint8Array(text.length * 3);
  let length = 0;
  for (let i = 0; i < text.length; i++) {
    let code = text.charCodeAt(i);
    if (code < 0x80) {
      bytes[length++] = code;
      continue;
    }
    if (code >= 0xd800 && code < 0xe000) {
      const next = text.charCodeAt(i + 1);
      if (code < 0xdc00 && next >= 0xdc00 && next < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (next - 0xdc00);
        i++;
      } else {
        code = 0xfffd;
      }
    }
    if (code < 0x800) {
      bytes[length++] = 0xc0 | (code >> 6);
    } else {
      if (code < 0x10000) {
        bytes[length++] = 0xe0 | (code >> 12);
      } else {
        bytes[length++] = 0xf0 | (code >> 18);
        bytes[length++] = 0x80 | ((code >> 12) & 0x3f);
      }
      bytes[length++] = 0x80 | ((code >> 6) & 0x3f);
    }
    bytes[length++] = 0x80 | (code & 0x3f);
  }
  return bytes.slice(0, length);
}

// Arguments of one `String.fromCharCode`: enough to make the call cheap, few enough for the stack.
const CHUNK = 4096;

/** The string of `bytes[start..stop)`, which the runtime guarantees to be UTF-8. */
export function decode(bytes, start = 0, stop = bytes.length) {
  let text = "";
  const units = [];
  for (let i = start; i < stop; ) {
    const lead = bytes[i++];
    if (lead < 0x80) {
      units.push(lead);
    } else if (lead < 0xe0) {
      units.push(((lead & 0x1f) << 6) | (bytes[i++] & 0x3f));
    } else if (lead < 0xf0) {
      units.push(((lead & 0x0f) << 12) | ((bytes[i++] & 0x3f) << 6) | (bytes[i++] & 0x3f));
    } else {
      const high = ((lead & 0x07) << 18) | ((bytes[i++] & 0x3f) << 12);
      const code = (high | ((bytes[i++] & 0x3f) << 6) | (bytes[i++] & 0x3f)) - 0x10000;
      units.push(0xd800 + (code >> 10), 0xdc00 + (code & 0x3ff));
    }
    if (units.length >= CHUNK) {
      text += String.fromCharCode.apply(null, units);
      units.length = 0;
    }
  }
  return text + String.fromCharCode.apply(null, units);
}

/** Number of Unicode scalar values in a text. */
export function charLength(text) {
  return charIndex(text, text.length);
}

/**
 * The place of a string index, as `indexOf` or a `RegExp` match gives it, in Unicode scalar values: what spans count.
 */
export function charIndex(text, index) {
  let count = 0;
  for (let i = 0; i < index && i < text.length; i++) {
    const code = text.charCodeAt(i);
    // The second half of a pair belongs to the character of the first.
    const low = code >= 0xdc00 && code < 0xe000 && i > 0;
    const before = low ? text.charCodeAt(i - 1) : 0;
    if (!(before >= 0xd800 && before < 0xdc00)) count++;
  }
  return count;
}
