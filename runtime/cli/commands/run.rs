//! `plumb run`: what runs there are, how they went, and their reports.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use plumb_train::run::{self as run_dir, MetricSet};
use serde_json::json;

use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Look at runs.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  plumb run list
  plumb run report runs/quickstart")]
pub enum RunCommand {
    /// List the runs in a folder
    List {
        /// The folder of runs
        #[arg(default_value = "runs")]
        folder: PathBuf,
    },
    /// Print where a run is and its last numbers
    Show {
        /// The run's folder
        run: PathBuf,
    },
    /// Make a run's `report.html` again
    Report {
        /// The run's folder
        run: PathBuf,
    },
    /// Verify the hash chain of a run's ledger
    Verify {
        /// The run's folder
        run: PathBuf,
    },
}

/// Runs the command.
pub fn run(command: &RunCommand, output: Output) -> anyhow::Result<ExitStatus> {
    match command {
        RunCommand::List { folder } => list(folder, output),
        RunCommand::Show { run } => show(run, output),
        RunCommand::Report { run } => {
            let report = run_dir::report::write(run)?;
            output.data(report.display().to_string())?;
            Ok(ExitStatus::Success)
        }
        RunCommand::Verify { run } => {
            let records = run_dir::ledger::read(&run.join("ledger.jsonl"))?;
            output.data(format!("{} records, the chain is whole", records.len()))?;
            Ok(ExitStatus::Success)
        }
    }
}

fn list(folder: &Path, output: Output) -> anyhow::Result<ExitStatus> {
    let items = std::fs::read_dir(folder).map_err(|e| Diagnostic::io("read", folder, &e))?;
    let mut runs: Vec<PathBuf> =
        items.filter_map(|item| item.ok().map(|item| item.path())).filter(|path| run_dir::is_run(path)).collect();
    runs.sort();
    for run in runs {
        let metrics = run_dir::read_metrics(&run).unwrap_or_default();
        let (last, accuracy) = (metrics.last(), last_accuracy(&metrics));
        if output.json {
            let data =
                json!({ "run": run, "stage": last.map(|m| &m.stage), "step": last.map(|m| m.step), "eval/accuracy": accuracy });
            output.data(json!({ "type": "run", "v": 1, "data": data }).to_string())?;
        } else {
            let place = last.map_or_else(|| "not started".into(), |m| format!("{} step {}", m.stage, m.step));
            let accuracy = accuracy.map_or_else(String::new, |accuracy| format!("  accuracy {accuracy:.3}"));
            output.data(format!("{:<40} {place}{accuracy}", run.display()))?;
        }
    }
    Ok(ExitStatus::Success)
}

fn show(run: &Path, output: Output) -> anyhow::Result<ExitStatus> {
    let metrics = run_dir::read_metrics(run)?;
    if output.json {
        for set in &metrics {
            let data: serde_json::Value = serde_json::from_str(&set.to_json())?;
            output.data(json!({ "type": "metrics", "v": 1, "data": data }).to_string())?;
        }
        return Ok(ExitStatus::Success);
    }
    for plugin in run_dir::read_plugins_lock(run)? {
        output.data(format!("{} `{}` {} (sha256 {:.8})", plugin.kind, plugin.name, plugin.version, plugin.sha256))?;
    }
    if let Some(last) = metrics.iter().rfind(|set| set.step > 0) {
        output.data(format!("stage {}, step {}", last.stage, last.step))?;
        for (name, value) in last.iter() {
            output.data(format!("  {name:<32} {value:.6}"))?;
        }
    }
    if let Some(accuracy) = last_accuracy(&metrics) {
        output.data(format!("last accuracy {accuracy:.3}"))?;
    }
    Ok(ExitStatus::Success)
}

fn last_accuracy(metrics: &[MetricSet]) -> Option<f64> {
    metrics.iter().rev().find_map(|set| set.get("eval/accuracy"))
}
