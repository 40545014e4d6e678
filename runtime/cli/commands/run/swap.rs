//! `plumb run swap`: another plugin for a run under way.

use clap::Args;
use plumb_train::control::{self, Request};
use plumb_train::run::Error;

use super::options::{ConfigArgs, named_plugin};
use super::request::{RequestArgs, leave, send, successor};
use crate::exit::ExitStatus;
use crate::output::Output;

/// Replace a plugin of a run under way, at its next step.
///
/// The run loads the new plugin and tries it on its last batches while it goes on; then it hands over the state and switches between
/// two steps. It refuses a plugin that cannot be loaded, fails on all rows, or does not take the state. Limits and grants are those of
/// the plugin that is replaced; so is the configuration where the new one is another version of it (their manifests have one name)
/// and `--config` is not given. Another plugin begins with `{}`. `--set` changes one key of either.
///
/// A run that was stopped does it when it goes on with `--resume`, before its first step.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run swap runs/quickstart --replace reward-exact-match=reward-math-answer
  plumb run swap runs/a --replace shaper-length-penalty=shaper-length-penalty --set max_length=200 --no-wait")]
pub struct SwapArgs {
    /// Which run
    #[command(flatten)]
    pub request: RequestArgs,
    /// The plugin's name in the run, and what takes its place: a .wasm file, a folder (it is built first) or an installed plugin
    #[arg(long, value_name = "NAME=PLUGIN", value_parser = named_plugin)]
    pub replace: (String, String),
    /// The new plugin's configuration
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Runs the command.
pub fn run(args: &SwapArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let ((name, plugin), run) = (&args.replace, &args.request.run);
    let trained = match control::require_trainer(run) {
        Err(Error::NotTraining { .. }) if !plumb_train::run::is_over(run) => false,
        trained => trained.map(|()| true)?,
    };
    let plugin = successor(run, name, plugin, &args.config, output)?;
    let request = Request::Swap { replace: name.clone(), plugin };
    if trained { send(&args.request, request, output) } else { leave(run, request, output) }
}
