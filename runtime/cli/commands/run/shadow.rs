//! `plumb run shadow`: a second opinion in a run under way.

use clap::Args;
use plumb_train::control::{self, Request};

use super::options::{ConfigArgs, named_plugin};
use super::request::{RequestArgs, send, successor};
use crate::exit::ExitStatus;
use crate::output::Output;

/// Let a second plugin score along in a run under way, without using it.
///
/// From its first step on the run's metrics have, as `shadow/NAME/...`, how the second plugin compares with the one in use: share of
/// equal values, agreement in order within groups, rank correlation, drift. Limits and grants are those of the one in use; so is the
/// configuration where both files are versions of one plugin (their manifests have one name) and `--config` is not given.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run shadow runs/quickstart --with reward-exact-match=reward-math-answer
  plumb run shadow runs/quickstart --stop reward-exact-match")]
pub struct ShadowArgs {
    /// Which run
    #[command(flatten)]
    pub request: RequestArgs,
    /// The plugin's name in the run, and the one beside it: a .wasm file, a folder (it is built first) or an installed plugin
    #[arg(long, value_name = "NAME=PLUGIN", value_parser = named_plugin, required_unless_present = "stop")]
    pub with: Option<(String, String)>,
    /// End the shadow of the plugin of this name
    #[arg(long, value_name = "NAME", conflicts_with = "with")]
    pub stop: Option<String>,
    /// The second plugin's configuration
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Runs the command.
pub fn run(args: &ShadowArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let request = match (&args.with, &args.stop) {
        (Some((name, plugin)), _) => {
            control::require_trainer(&args.request.run)?;
            let plugin = successor(&args.request.run, name, plugin, &args.config, output)?;
            Request::Shadow { name: name.clone(), plugin }
        }
        (None, stop) => Request::Unshadow { name: stop.clone().unwrap_or_default() },
    };
    send(&args.request, request, output)
}
