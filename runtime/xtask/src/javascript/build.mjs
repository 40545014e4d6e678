// Bundles a plugin and turns it into a component. Run by `javascript.rs` with one argument, a JSON object (see `Job` there).
// Writes one line of JSON to stdout: `{"ok": true}`, or `{"error": ...}` in the form of `Report` there.

import { createRequire, builtinModules } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

const job = JSON.parse(process.argv[2]);
const require = createRequire(path.join(job.tools, "package.json"));
const { build } = require("esbuild");
const { componentize } = require("componentize-qjs");

/** Stops with a problem that the author can mend. */
class Problem extends Error {
  constructor(report) {
    super(report.kind);
    this.report = report;
  }
}

const place = (location) => location && `${location.file}:${location.line}:${location.column + 1}`;

/** Modules of node itself cannot work: there is no system below a plugin. */
const builtins = new Set(builtinModules);
const refuseBuiltins = {
  name: "refuse-builtins",
  setup(bundle) {
    bundle.onResolve({ filter: /.*/ }, (found) => {
      const name = found.path.replace(/^node:/, "");
      if (found.kind === "entry-point" || (!found.path.startsWith("node:") && !builtins.has(name))) return undefined;
      // A package of that name (`punycode`, `buffer`) does the same in plain JavaScript.
      if (!found.path.startsWith("node:") && job.packages.includes(name)) return undefined;
      return { errors: [{ text: name, detail: "builtin" }] };
    });
  },
};

/** The module that the component starts with: the SDK's glue around the plugin. */
function entry() {
  const lines = [`import "plumb-sdk/guest/prelude";`];
  const names = ["config", "kv", "log", "metrics", "random", ...job.capabilities];
  for (const name of names) lines.push(`import ${name} from "plumb:align/${name}@${job.version}";`);
  lines.push(
    `import { connect } from "plumb-sdk/guest";`,
    `import plugin from ${JSON.stringify(job.entry)};`,
    `const exported = connect(${JSON.stringify(job.kind)}, plugin, { ${names.join(", ")} });`,
    `export const { lifecycle, ${job.exports}${{ shaper: ", state", reward: ", state, merging" }[job.kind] ?? ""} } = exported;`,
  );
  return lines.join("\n");
}

async function bundle() {
  try {
    return await build({
      stdin: { contents: entry(), resolveDir: job.folder, sourcefile: "plumb-entry.js", loader: "js" },
      absWorkingDir: job.folder,
      bundle: true,
      external: ["plumb:align/*"],
      format: "esm",
      target: "es2022",
      platform: "neutral",
      mainFields: ["module", "main"],
      conditions: ["import", "default"],
      nodePaths: job.sdk ? [job.sdk] : [],
      plugins: [refuseBuiltins],
      metafile: true,
      sourcemap: "external",
      sourcesContent: false,
      write: false,
      outfile: "plugin.js",
      logLevel: "silent",
      charset: "utf8",
    });
  } catch (failure) {
    const error = failure.errors?.[0];
    if (!error) throw failure;
    const where = place(error.location);
    if (error.detail === "builtin") throw new Problem({ kind: "builtin", module: error.text, place: where });
    const missing = /^Could not resolve "([^"]+)"/.exec(error.text);
    if (missing) throw new Problem({ kind: "unresolved", module: missing[1], place: where });
    if (/^No matching export .* for import "default"/.test(error.text)) throw new Problem({ kind: "no_default" });
    throw new Problem({ kind: "syntax", message: error.text, place: where, line: error.location?.lineText });
  }
}

/** The numbers of a source map's segment: base 64, five bits a digit from the lowest on, the sign in the lowest bit of all. */
function numbers(segment) {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const found = [];
  let value = 0;
  let shift = 0;
  for (const character of segment) {
    const digit = digits.indexOf(character);
    value += (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    found.push(value & 1 ? -(value >> 1) : value >> 1);
    value = shift = 0;
  }
  return found;
}

/** Where the bundle's lines come from, as `guest/stack.js` of the SDK reads it; without the SDK's own. */
function stretches({ sources, mappings }) {
  const glue = sources.find((source) => source.endsWith("src/guest/connect.js")) ?? "";
  const own = glue.slice(0, -"src/guest/connect.js".length);
  const found = [];
  let source = 0;
  let there = 0;
  for (const [index, line] of mappings.split(";").entries()) {
    let start;
    for (const segment of line.split(",").map(numbers)) {
      source += segment[1] ?? 0;
      there += segment[2] ?? 0;
      if (segment.length > 1) start ??= { file: sources[source], line: there + 1 };
    }
    if (!start || start.file.startsWith(own) || start.file === "plumb-entry.js") continue;
    const last = found.at(-1);
    const follows = last && last[0] + last[1] === index + 1 && last[2] === start.file && last[3] + last[1] === start.line;
    if (follows) last[1] += 1;
    else found.push([index + 1, 1, start.file, start.line]);
  }
  return found;
}

try {
  const { outputFiles, metafile } = await bundle();
  const inputs = Object.values(metafile.outputs).flatMap((output) => Object.entries(output.inputs));
  // The bundler leaves out what is not used: so `defineStateful…` is in it if the plugin calls one.
  const stateful = inputs.some(([file, { bytesInOutput }]) => file.endsWith("src/stateful.js") && bytesInOutput > 0);
  const [map, code] = ["plugin.js.map", "plugin.js"].map((name) => outputFiles.find((file) => file.path.endsWith(name)).text);
  // Behind the code, so that its lines stay where they are.
  const places = `globalThis[Symbol.for("plumb.stretches")] = ${JSON.stringify(stretches(JSON.parse(map)))};`;
  const { component } = await componentize({
    witPath: stateful ? job.stateful_wit : job.wit,
    world: "plugin",
    jsSource: `${code}\n${places}\n`,
    sync: true,
    stubWasi: true,
  }).catch((error) => {
    throw new Problem({ kind: "evaluate", message: String(error.message ?? error) });
  });
  writeFileSync(job.output, component);
  console.log(JSON.stringify({ ok: true }));
} catch (error) {
  if (!(error instanceof Problem)) throw error;
  console.log(JSON.stringify({ error: error.report }));
}
