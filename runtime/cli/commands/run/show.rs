//! `plumb run show`: where a run is.

use std::path::PathBuf;

use clap::Args;
use plumb_train::archive::{Generations, generations};
use plumb_train::control;
use plumb_train::run::{self as run_dir, MetricSet};
use serde_json::{Value, json};

use crate::diagnostic::printable;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Refused requests that are shown.
const REFUSED: usize = 3;

/// Print where a run is, its plugins and shadows, requests that wait or were refused, and its last numbers.
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
    let Generations { in_force, shadows, changes, .. } = generations(run)?;
    let (pending, refused) = (control::pending(run)?, control::refused(run)?);
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
        for (name, source) in &shadows {
            output.data(line("shadow", json!({ "of": name, "sha256": source.digest, "config": source.used.config })))?;
        }
        for (id, refusal) in &refused {
            output.data(line("refused", json!({ "id": id, "refusal": refusal })))?;
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
        let cause = cause.as_str().unwrap_or_default();
        output.data(if before == after {
            let config = Value::Object(change.plugin.config.clone());
            format!("step {step}: `{name}` {after:.8} with the configuration {config} ({cause})")
        } else {
            format!("step {step}: `{name}` {before:.8} -> {after:.8} ({cause})")
        })?;
    }
    for (name, source) in &shadows {
        output.data(format!("shadow of `{name}` (sha256 {:.8})", source.digest))?;
    }
    for (id, request) in &pending {
        output.data(format!("pending: request {id}, {} of `{}`", request.kind(), request.name()))?;
    }
    for (id, refusal) in refused.iter().skip(refused.len().saturating_sub(REFUSED)) {
        let told = std::iter::once(&refusal.message).chain(&refusal.causes).map(|text| printable(text)).collect::<Vec<_>>();
        output.data(format!("refused: request {id}: {}", told.join(": ")))?;
    }
    if let Some(last) = metrics.iter().rfind(|set| set.step > 0) {
        let state = if control::require_trainer(run).is_ok() {
            "in training"
        } else if run_dir::is_over(run) {
            "finished"
        } else {
            "stopped; `plumb train RECIPE --run-dir RUN --resume` goes on"
        };
        let steps: u64 = run_dir::read_recipe(run)?.recipe.stages.iter().map(|stage| stage.max_steps).sum();
        output.data(format!("stage {}, step {} of {steps}, {state}", last.stage, last.step))?;
        for (name, value) in last.iter() {
            output.data(format!("  {name:<32} {}", number(value)))?;
        }
    }
    if let Some(accuracy) = last_accuracy(&metrics) {
        output.data(format!("last accuracy {accuracy:.3}"))?;
    }
    Ok(ExitStatus::Success)
}

/// Counts without a point, the rest with six decimals, or as a power of ten where those would say little.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value}")
    } else if value.abs() < 1e-3 {
        format!("{value:.4e}")
    } else {
        format!("{value:.6}")
    }
}

/// The last evaluation's share of successes.
pub fn last_accuracy(metrics: &[MetricSet]) -> Option<f64> {
    metrics.iter().rev().find_map(|set| set.get("eval/accuracy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_what_they_say() {
        assert_eq!([16.0, 0.25, 9e-6, -0.0004].map(number), ["16", "0.250000", "9.0000e-6", "-4.0000e-4"]);
    }
}
