//! `plumb plugin componentize`: the last step of a build in a language that `plumb plugin build` does not know.

use std::path::PathBuf;

use clap::Args;
use plumb_xtask::guest;
use serde_json::json;

use super::language::build_failure;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Make a component of a core module, with a plugin.toml inside: the last step of a build in any language with bindings by wit-bindgen.
#[derive(Debug, Args)]
#[command(
    after_help = "The module must carry the types of its world, as the bindings of wit-bindgen leave them, and import nothing but them.

Examples:
  plumb plugin componentize target/core.wasm
  plumb plugin componentize core.wasm --manifest ../plugin.toml --output mine.wasm"
)]
pub struct ComponentizeArgs {
    /// The core module
    module: PathBuf,
    /// What goes into the component as its manifest
    #[arg(long, value_name = "FILE", default_value = "plugin.toml")]
    manifest: PathBuf,
    /// The component's file [default: NAME.wasm beside the module]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &ComponentizeArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let text = std::fs::read_to_string(&args.manifest).map_err(|e| {
        Diagnostic::io("read", &args.manifest, &e).hint("every plugin has a manifest with its `name`, `kind` and `version`")
    })?;
    let manifest = plumb_host::Manifest::parse(&args.manifest.display().to_string(), text.as_bytes())?;
    let core = std::fs::read(&args.module).map_err(|e| Diagnostic::io("read", &args.module, &e))?;
    let file = args.output.clone().unwrap_or_else(|| args.module.with_file_name(format!("{}.wasm", manifest.name)));
    let made = guest::componentize(&core, Some(&text)).and_then(|component| guest::write_file(&file, &component));
    made.map_err(|error| {
        build_failure(&manifest.name, &error).hint(
            "bind against the worlds in `wit`, as `wit-bindgen` and `wasm-tools component embed` do, and build without WASI: \
             `sdk/c/README.md` shows every step",
        )
    })?;
    if output.json {
        output.data(json!({"type": "plugin", "v": 1, "data": {"file": file}}).to_string())?;
    } else {
        output.data(file.display().to_string())?;
    }
    Ok(ExitStatus::Success)
}
