//! `plumb plugin build`: a plugin's folder to a component.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::language::Language;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Build a plugin's folder into a component, with its plugin.toml inside.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin build plugins/reward-exact-match
  plumb plugin build . --output ~/plugins/mine.wasm")]
pub struct BuildArgs {
    /// The plugin's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The component's file [default: target/NAME.wasm in the folder]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &BuildArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let file = build(&args.folder, args.output.as_deref(), output)?;
    if output.json {
        output.data(json!({"type": "plugin", "v": 1, "data": {"file": file}}).to_string())?;
    } else {
        output.data(file.display().to_string())?;
    }
    Ok(ExitStatus::Success)
}

/// Builds the plugin in `folder` and returns the component's file.
pub fn build(folder: &Path, file: Option<&Path>, output: Output) -> anyhow::Result<PathBuf> {
    let manifest = folder.join("plugin.toml");
    let text = std::fs::read_to_string(&manifest).map_err(|e| {
        Diagnostic::io("read", &manifest, &e).hint("`plumb plugin new` starts a plugin with all the files it needs")
    })?;
    let manifest = plumb_host::Manifest::parse(&folder.display().to_string(), text.as_bytes())?;
    let file = file.map_or_else(|| folder.join("target").join(format!("{}.wasm", manifest.name)), Path::to_owned);
    let language = Language::detect(folder)?;
    output.note(format!("building `{}` ({})", manifest.name, language.build_note()));
    language.build(folder, &manifest, &file, output)?;
    Ok(file)
}
