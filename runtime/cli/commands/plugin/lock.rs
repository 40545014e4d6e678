//! `plumb plugin lock`: which bytes a recipe's plugins are.

use std::path::PathBuf;

use clap::Args;
use plumb_train::run::write_lock;
use serde_json::json;

use crate::exit::ExitStatus;
use crate::output::Output;
use crate::{lock, recipe_file};

/// Write which plugins a recipe means, by digest, grants and signer. `plumb train` then refuses others.
///
/// The lock of `recipes/x.toml` is `recipes/x.plugins.lock`. No plugin is run for it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin lock recipes/quickstart.toml
  plumb train recipes/quickstart.toml --locked")]
pub struct LockArgs {
    /// The recipe, a TOML file
    recipe: PathBuf,
}

/// Runs the command.
pub fn run(args: &LockArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let file = recipe_file::load(&args.recipe, &[])?;
    let plugins = lock::of_recipe(&file)?;
    let path = lock::path(&args.recipe);
    write_lock(&path, &plugins)?;
    if output.json {
        output.data(json!({"type": "lock", "v": 1, "data": {"file": path, "plugins": plugins}}).to_string())?;
        return Ok(ExitStatus::Success);
    }
    for plugin in &plugins {
        let signer = plugin.signer.as_ref().map_or_else(|| "not signed".to_owned(), |key| format!("signed by {}", &key[..16]));
        output.note(format!("{:<8} {} {}  sha256 {}  {signer}", plugin.kind, plugin.name, plugin.version, &plugin.sha256[..16]));
    }
    output.data(path.display().to_string())?;
    Ok(ExitStatus::Success)
}
