//! `plumb run show`: where a run is.

use std::path::PathBuf;

use clap::Args;
use plumb_train::archive::{Generations, generations};
use plumb_train::control;
use plumb_train::run::{self as run_dir, MetricSet};
use serde_json::json;

use crate::exit::ExitStatus;
use crate::output::Output;

/// Print where a run is, its plugins and its last numbers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run show runs/quickstart
  plumb run show runs/quickstart --json | jq -c 'select(.type == \"generation\")'")]
pub struct ShowArgs {
    /// The run's folder
    pub run: PathBuf,
}

/// Runs the command.
pub fn run(args: &ShowArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let run = &args.run;
    let metrics = run_dir::read_metrics(run)?;
    let Generations { in_force, changes } = generations(run)?;
    let pending = control::pending(run)?;
    if output.json {
        let line = |kind: &str, data: serde_json::Value| json!({ "type": kind, "v": 1, "data": data }).to_string();
        for generation in &in_force {
            output.data(line("generation", serde_json::to_value(generation)?))?;
        }
        for change in &changes {
            output.data(line("change", serde_json::to_value(change)?))?;
        }
        for (id, request) in &pending {
            output.data(line("request", json!({ "id": id, "request": request })))?;
        }
        for set in &metrics {
            output.data(line("metrics", serde_json::from_str(&set.to_json())?))?;
        }
        return Ok(ExitStatus::Success);
    }
    let locked = run_dir::read_plugins_lock(run)?;
    for generation in &in_force {
        let id = &generation.id;
        let version = locked.iter().find(|locked| locked.sha256 == id.digest).map_or("", |locked| locked.version.as_str());
        output.data(format!("{} `{}` {version} (sha256 {:.8})", id.kind, id.name, id.digest))?;
    }
    for change in &changes {
        let (name, step, before, after) = (&change.replaced, change.step, &change.before, &change.plugin.id.digest);
        let cause = serde_json::to_value(change.cause)?;
        output.data(format!("step {step}: `{name}` {before:.8} -> {after:.8} ({})", cause.as_str().unwrap_or_default()))?;
    }
    for (id, request) in &pending {
        output.data(format!("pending: request {id}, {} of `{}`", request.kind(), request.name()))?;
    }
    if let Some(last) = metrics.iter().rfind(|set| set.step > 0) {
        let training = if control::require_trainer(run).is_ok() { ", in training" } else { "" };
        output.data(format!("stage {}, step {}{training}", last.stage, last.step))?;
        for (name, value) in last.iter() {
            output.data(format!("  {name:<32} {value:.6}"))?;
        }
    }
    if let Some(accuracy) = last_accuracy(&metrics) {
        output.data(format!("last accuracy {accuracy:.3}"))?;
    }
    Ok(ExitStatus::Success)
}

/// The last evaluation's share of successes.
pub fn last_accuracy(metrics: &[MetricSet]) -> Option<f64> {
    metrics.iter().rev().find_map(|set| set.get("eval/accuracy"))
}
