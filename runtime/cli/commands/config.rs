//! `plumb config`: recipes with everything filled in, and what they may contain.

use std::path::PathBuf;

use clap::Subcommand;

use crate::exit::ExitStatus;
use crate::output::Output;
use crate::{recipe_file, schema};

/// Show recipes and what they may contain.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  plumb config schema > recipe.schema.json
  plumb config show recipes/quickstart.toml --set stages.grpo.grpo.beta=0.04")]
pub enum ConfigCommand {
    /// Print the JSON schema of recipes
    Schema,
    /// Print a recipe with every default and every `--set` applied
    Show {
        /// The recipe, a TOML file
        recipe: PathBuf,
        /// Change a value, as in `--set stages.grpo.grpo.beta=0.04`
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
}

/// Runs the command.
pub fn run(command: &ConfigCommand, output: Output) -> anyhow::Result<ExitStatus> {
    match command {
        ConfigCommand::Schema => output.data(serde_json::to_string_pretty(&schema::recipe_schema())?)?,
        ConfigCommand::Show { recipe, sets } => {
            let file = recipe_file::load(recipe, sets)?;
            if output.json {
                output.data(serde_json::to_string(&file.recipe)?)?;
            } else {
                output.data(plumb_train::run::recipe_text(&file.recipe).trim_end())?;
            }
        }
    }
    Ok(ExitStatus::Success)
}
