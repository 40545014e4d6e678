//! `plumb run list`: the runs in a folder.

use std::path::PathBuf;

use clap::Args;
use plumb_train::control;
use plumb_train::run as run_dir;
use serde_json::json;

use super::show::last_accuracy;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;

/// List the runs in a folder.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run list
  plumb run list experiments --json | jq -r 'select(.data.training) | .data.run'")]
pub struct ListArgs {
    /// The folder of runs
    #[arg(default_value = "runs")]
    pub folder: PathBuf,
}

/// Runs the command.
pub fn run(args: &ListArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let folder = &args.folder;
    let items = std::fs::read_dir(folder).map_err(|e| Diagnostic::io("read", folder, &e))?;
    let mut runs: Vec<PathBuf> =
        items.filter_map(|item| item.ok().map(|item| item.path())).filter(|path| run_dir::is_run(path)).collect();
    runs.sort();
    for run in runs {
        let metrics = run_dir::read_metrics(&run).unwrap_or_default();
        let (last, accuracy) = (metrics.last(), last_accuracy(&metrics));
        let (training, pending) = (control::require_trainer(&run).is_ok(), control::pending(&run).map_or(0, |all| all.len()));
        if output.json {
            let data = json!({
                "run": run, "stage": last.map(|m| &m.stage), "step": last.map(|m| m.step), "eval/accuracy": accuracy,
                "training": training, "pending_requests": pending,
            });
            output.data(json!({ "type": "run", "v": 1, "data": data }).to_string())?;
        } else {
            let place = last.map_or_else(|| "not started".into(), |m| format!("{} step {}", m.stage, m.step));
            let accuracy = accuracy.map_or_else(String::new, |accuracy| format!("  accuracy {accuracy:.3}"));
            let training = if training { "  in training" } else { "" };
            let pending = if pending > 0 { format!("  {pending} pending") } else { String::new() };
            output.data(format!("{:<40} {place}{accuracy}{training}{pending}", run.display()))?;
        }
    }
    Ok(ExitStatus::Success)
}
