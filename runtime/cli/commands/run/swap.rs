//! `plumb run swap`: another plugin for a run under way.

use clap::Args;
use plumb_train::control::Request;

use super::options::{ConfigArgs, named_plugin};
use super::request::{RequestArgs, send, successor};
use crate::exit::ExitStatus;
use crate::output::Output;

/// Replace a plugin of a run under way, at its next step.
///
/// The run loads the new plugin and tries it on its last batches while it goes on; then it hands over the state and switches between
/// two steps. It refuses a plugin that cannot be loaded, fails on all rows, or does not take the state. Limits, grants and, without
/// `--config`, the configuration are those of the plugin that is replaced.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run swap runs/quickstart --replace exact=./stricter.wasm
  plumb run swap runs/quickstart --replace length=shaper-length-penalty --set target=200 --no-wait")]
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
    let (name, plugin) = &args.replace;
    let plugin = successor(&args.request.run, name, plugin, &args.config, output)?;
    send(&args.request, Request::Swap { replace: name.clone(), plugin }, output)
}
