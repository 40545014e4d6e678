//! `plumb run report`: the report, made again.

use std::path::PathBuf;

use clap::Args;

use crate::exit::ExitStatus;
use crate::output::Output;

/// Make a run's `report.html` again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run report runs/quickstart
  xdg-open $(plumb run report runs/quickstart)")]
pub struct ReportArgs {
    /// The run's folder
    pub run: PathBuf,
}

/// Runs the command.
pub fn run(args: &ReportArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let report = plumb_train::run::report::write(&args.run)?;
    output.data(report.display().to_string())?;
    Ok(ExitStatus::Success)
}
