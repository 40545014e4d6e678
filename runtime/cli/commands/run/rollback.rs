//! `plumb run rollback`: back to the generation before.

use clap::Args;
use plumb_train::control::Request;

use super::request::{RequestArgs, send};
use crate::exit::ExitStatus;
use crate::output::Output;

/// Put the generation before back into a run under way.
///
/// It comes back at the next step, with the state that it had when it was replaced. A second rollback undoes the first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run rollback runs/quickstart reward-exact-match
  plumb run rollback runs/quickstart reward-exact-match --no-wait")]
pub struct RollbackArgs {
    /// Which run
    #[command(flatten)]
    pub request: RequestArgs,
    /// The plugin's name in the run
    pub name: String,
}

/// Runs the command.
pub fn run(args: &RollbackArgs, output: Output) -> anyhow::Result<ExitStatus> {
    send(&args.request, Request::Rollback { name: args.name.clone() }, output)
}
