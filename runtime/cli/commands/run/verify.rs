//! `plumb run verify`: the ledger's chain.

use std::path::PathBuf;

use clap::Args;
use plumb_train::run::LEDGER;
use plumb_train::run::ledger::Reader;

use crate::exit::ExitStatus;
use crate::output::Output;

/// Verify the hash chain of a run's ledger.
///
/// A line that was changed, dropped or put in between is named. The SHA-256 of the last line stands for all of them: note it
/// elsewhere, and a ledger that was written anew shows too. Whether the plugins really said what is recorded: `plumb run replay`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run verify runs/quickstart
  plumb run verify runs/quickstart && plumb run replay runs/quickstart")]
pub struct VerifyArgs {
    /// The run's folder
    pub run: PathBuf,
}

/// Runs the command.
pub fn run(args: &VerifyArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let mut reader = Reader::open(&args.run.join(LEDGER))?;
    let mut records = 0_u64;
    for record in reader.by_ref() {
        record?;
        records += 1;
    }
    output.data(format!("{records} records, the chain is whole, SHA-256 of the last line {}", reader.head()))?;
    Ok(ExitStatus::Success)
}
