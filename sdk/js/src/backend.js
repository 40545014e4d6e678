// Who answers what a plugin asks: the host in a component, memory in tests.

let current;

/** Sets who answers. */
export function setBackend(backend) {
  current = backend;
}

/** Who answers, for `name`: a part of the backend. */
export function backend(name) {
  if (!current) {
    throw new Error(
      `\`${name}\` has nobody to answer it: a plugin may use it in its functions, not while its module loads; a test imports \`plumb-sdk/testing\``,
    );
  }
  if (!current[name]) {
    throw new Error(`\`${name}\` is a capability: ask for it in plugin.toml, \`[needs] capabilities = ["${name}"]\``);
  }
  return current[name];
}
