//! `plumb plugin build`: a crate to a component.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Build a plugin's crate into a component, with its plugin.toml inside.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin build plugins/reward-exact-match
  plumb plugin build . --output ~/plugins/mine.wasm")]
pub struct BuildArgs {
    /// The crate's folder
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

/// Builds the crate in `folder` and returns the component's file.
pub fn build(folder: &Path, file: Option<&Path>, output: Output) -> anyhow::Result<PathBuf> {
    let manifest = folder.join("plugin.toml");
    let text = std::fs::read_to_string(&manifest).map_err(|e| {
        Diagnostic::io("read", &manifest, &e).hint("`plumb plugin new` starts a plugin with all the files it needs")
    })?;
    let manifest = plumb_host::Manifest::parse(&manifest.display().to_string(), text.as_bytes())?;
    let file = file.map_or_else(|| folder.join("target").join(format!("{}.wasm", manifest.name)), Path::to_owned);
    output.note(format!(
        "building `{}` (the first build on a machine may prepare the WebAssembly target: a few minutes)",
        manifest.name
    ));
    plumb_xtask::guest::build_crate(folder, &file, &target_folder(folder)).map_err(|error| {
        let diagnostic = Diagnostic::usage("plugin.build", format!("plugin `{}` does not build", manifest.name));
        let causes = error.chain().map(ToString::to_string);
        causes.fold(diagnostic, Diagnostic::because)
    })?;
    Ok(file)
}

/// Where cargo keeps its files: in this program's source tree if it is still there, so that plugins share what is built of the
/// SDK and of the standard library, else in the crate.
fn target_folder(folder: &Path) -> PathBuf {
    super::new::source_tree().map_or_else(|| folder.join("target/wasm"), |tree| tree.join("target/wasm"))
}
