//! `plumb run`: what runs there are, how they went, what their plugins did, and changes to a run under way.

mod export;
mod list;
pub(super) mod options;
mod replay;
mod report;
mod request;
mod rescore;
mod rollback;
mod shadow;
mod show;
mod swap;
mod verify;

use clap::Subcommand;

use crate::exit::ExitStatus;
use crate::output::Output;

/// Look at runs, and change the plugins of one under way.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  plumb run list
  plumb run replay runs/quickstart")]
pub enum RunCommand {
    /// List the runs in a folder
    List(list::ListArgs),
    /// Print where a run is, its plugins and its last numbers
    Show(show::ShowArgs),
    /// Make a run's `report.html` again
    Report(report::ReportArgs),
    /// Verify the hash chain of a run's ledger
    Verify(verify::VerifyArgs),
    /// Ask a run's plugins again and compare every answer with the ledger, bit for bit
    Replay(replay::ReplayArgs),
    /// Ask another plugin about a run's completions and compare
    Rescore(rescore::RescoreArgs),
    /// Write a run's completions or preference pairs for other programs
    Export(export::ExportArgs),
    /// Replace a plugin of a run under way, at its next step
    Swap(swap::SwapArgs),
    /// Let a second plugin score along in a run under way, without using it
    Shadow(shadow::ShadowArgs),
    /// Put the generation before back into a run under way
    Rollback(rollback::RollbackArgs),
}

/// Runs the command.
pub fn run(command: &RunCommand, output: Output) -> anyhow::Result<ExitStatus> {
    match command {
        RunCommand::List(args) => list::run(args, output),
        RunCommand::Show(args) => show::run(args, output),
        RunCommand::Report(args) => report::run(args, output),
        RunCommand::Verify(args) => verify::run(args, output),
        RunCommand::Replay(args) => replay::run(args, output),
        RunCommand::Rescore(args) => rescore::run(args, output),
        RunCommand::Export(args) => export::run(args, output),
        RunCommand::Swap(args) => swap::run(args, output),
        RunCommand::Shadow(args) => shadow::run(args, output),
        RunCommand::Rollback(args) => rollback::run(args, output),
    }
}
