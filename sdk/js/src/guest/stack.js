// Where an error comes from, in the author's files: a component runs one bundle, whose lines mean nothing to its author.

/** Global under which the build leaves `[first line of the bundle, number of lines, file, its first line]` for each stretch of it that
 * is not the SDK's, in order. */
export const STRETCHES = Symbol.for("plumb.stretches");

/** The frames of an error's stack that are the author's or a package's: `name (file:line)`, innermost first. */
export function frames(error, stretches = globalThis[STRETCHES] ?? []) {
  if (typeof error?.stack !== "string") return [];
  return error.stack.split("\n").flatMap((frame) => {
    const [, name, line] = /^\s*at (?:(.*?) \()?[^()]*?:(\d+)(?::\d+)?\)?\s*$/.exec(frame) ?? [];
    const stretch = stretches.find(([first, lines]) => line >= first && line < first + lines);
    if (!stretch) return [];
    const [first, , file, there] = stretch;
    return [`${name ?? "<anonymous>"} (${file}:${there + (line - first)})`];
  });
}
