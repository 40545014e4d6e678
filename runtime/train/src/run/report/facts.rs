//! The report's figures in words and tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::chart::short;
use crate::generations::history::{Boundary, Change};
use crate::run::ChangeCause;
use crate::run::lock::LockedPlugin;
use crate::run::metrics::MetricSet;

/// Wilson's 95 % interval of a share: `successes` of `n`. Unlike the normal one it stays inside [0, 1] and is right near the ends.
///
/// Wilson 1927; z = 1.96. For `n` = 0 nothing is known: (0, 1).
pub fn wilson_interval(successes: f64, n: f64) -> (f64, f64) {
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    let z = 1.959_963_984_540_054_f64;
    let share = successes / n;
    let center = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((center - half) / scale).max(0.0), ((center + half) / scale).min(1.0))
}

/// First and last evaluation of a stage.
#[derive(Serialize)]
pub struct StageResult {
    stage: String,
    before: Share,
    after: Share,
}

/// A share in percent, with its counts and interval.
#[derive(Serialize)]
pub struct Share {
    percent: String,
    successes: String,
    n: String,
    low: String,
    high: String,
}

impl Share {
    fn of(set: &MetricSet) -> Option<Self> {
        let (accuracy, n) = (set.get("eval/accuracy")?, set.get("eval/n")?);
        let successes = set.get("eval/successes").unwrap_or_else(|| (accuracy * n).round());
        let (low, high) = wilson_interval(successes, n);
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        Some(Share {
            percent: percent(accuracy),
            successes: short(successes),
            n: short(n),
            low: percent(low),
            high: percent(high),
        })
    }
}

/// One result per stage that was evaluated at least twice, in the order of the stages.
pub fn results(metrics: &[MetricSet]) -> Vec<StageResult> {
    let mut stages: Vec<&str> = metrics.iter().map(|set| set.stage.as_str()).collect();
    stages.dedup();
    let result = |stage: &str| {
        let mut shares = metrics.iter().filter(|set| set.stage == stage).filter_map(Share::of);
        let (before, after) = (shares.next()?, shares.next_back()?);
        Some(StageResult { stage: stage.to_owned(), before, after })
    };
    stages.into_iter().filter_map(result).collect()
}

/// Label and value of what the run cost.
pub fn facts(metrics: &[MetricSet]) -> Vec<(&'static str, String)> {
    let sum = |name: &str| metrics.iter().filter_map(|set| set.get(name)).sum::<f64>();
    let last = |name: &str| metrics.iter().rev().find_map(|set| set.get(name));
    let mut facts = vec![("steps", metrics.last().map_or(0, |set| set.step).to_string())];
    let (steps_s, eval_s) = (sum("time/step_s"), sum("time/eval_s"));
    if steps_s > 0.0 {
        facts.push(("training time", duration(steps_s)));
    }
    if eval_s > 0.0 {
        facts.push(("evaluation time", duration(eval_s)));
    }
    facts.extend(last("num_tokens").map(|tokens| ("tokens", short(tokens))));
    let rollout_steps_s: f64 =
        metrics.iter().filter(|set| set.get("time/rollout_s").is_some()).filter_map(|set| set.get("time/step_s")).sum();
    if rollout_steps_s > 0.0 {
        let busy_s = sum("time/reward_busy_s");
        if busy_s > 0.0 {
            facts.push(("workers in rewards", duration(busy_s)));
        }
        facts.push(("waiting for rewards", format!("{:.2} % of step time", 100.0 * sum("time/reward_s") / rollout_steps_s)));
    }
    facts
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A plugin and how it did.
#[derive(Serialize)]
pub struct PluginRow {
    name: String,
    kind: String,
    version: String,
    /// Digests in the order of their use, with the step from which on: `0a1b2c3d, 4e5f6a7b from step 40 (swap)`.
    generations: String,
    calls: String,
    rows: String,
    abstained: String,
    failed: String,
    retries: String,
    fuel: String,
    /// Rows without a value by code, most first: `unparseable 12, trap 3`.
    faults: String,
}

/// The run's plugins by name, all generations together: what they were given in training and had no value for, what that cost, and
/// when they changed.
pub fn plugins(locked: &[LockedPlugin], changes: &[Boundary], metrics: &[MetricSet]) -> Vec<PluginRow> {
    let sum = |metric: String| {
        let values: Vec<f64> = metrics.iter().filter_map(|set| set.get(&metric)).collect();
        if values.is_empty() { String::new() } else { short(values.iter().sum()) }
    };
    let row = |plugin: &LockedPlugin| PluginRow {
        name: plugin.name.clone(),
        kind: plugin.kind.to_string(),
        version: plugin.version.clone(),
        generations: generations(plugin, changes),
        calls: sum(format!("plugin/{}/calls", plugin.name)),
        rows: sum(format!("plugin/{}/rows", plugin.name)),
        abstained: sum(format!("plugin/{}/abstained", plugin.name)),
        failed: sum(format!("plugin/{}/failed", plugin.name)),
        retries: sum(format!("plugin/{}/retries", plugin.name)),
        fuel: sum(format!("plugin/{}/fuel", plugin.name)),
        faults: faults(&format!("plugin/{}/faults/", plugin.name), metrics),
    };
    let first = |(i, plugin): (usize, &LockedPlugin)| {
        !locked[..i].iter().any(|other| (&other.name, other.kind) == (&plugin.name, plugin.kind))
    };
    locked.iter().enumerate().filter(|&at| first(at)).map(|(_, plugin)| row(plugin)).collect()
}

/// The generations that a name had, from the first.
fn generations(plugin: &LockedPlugin, changes: &[Boundary]) -> String {
    let short = |digest: &str| digest.chars().take(8).collect::<String>();
    let mut text = short(&plugin.sha256);
    for (step, change) in changes.iter().flat_map(|line| line.changes.iter().map(move |change| (line.step, change))) {
        let _ = match change {
            Change::Replace { name, plugin: new, cause, .. } if *name == plugin.name => {
                let why = if *cause == ChangeCause::Schedule { "schedule" } else { "swap" };
                write!(text, ", {} from step {step} ({why})", short(&new.digest))
            }
            Change::Restore { name, cause, .. } if *name == plugin.name => {
                let why = if *cause == ChangeCause::Circuit { "circuit" } else { "rollback" };
                write!(text, ", the one before from step {step} ({why})")
            }
            _ => Ok(()),
        };
    }
    text
}

/// Sums the metrics that begin with `prefix`, and lists them by what follows it.
fn faults(prefix: &str, metrics: &[MetricSet]) -> String {
    let mut sums = BTreeMap::<&str, f64>::new();
    for (name, rows) in metrics.iter().flat_map(MetricSet::iter) {
        if let Some(code) = name.strip_prefix(prefix) {
            *sums.entry(code).or_default() += rows;
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    sums.into_iter().map(|(code, rows)| format!("{code} {}", short(rows))).collect::<Vec<_>>().join(", ")
}

/// What the run started from: the last part of the path, or the sizes of a model made on the spot.
pub fn model_name(recipe: &toml::Table) -> String {
    let Some(model) = recipe.get("model").and_then(toml::Value::as_table) else { return String::new() };
    if let Some(path) = model.get("path").and_then(toml::Value::as_str) {
        return path.rsplit('/').next().unwrap_or(path).to_owned();
    }
    let size = |name: &str| model.get("random")?.get(name)?.as_integer();
    match (size("num_hidden_layers"), size("hidden_size")) {
        (Some(layers), Some(width)) => format!("new transformer, {layers} layers of width {width}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_wilson_interval_matches_published_values() {
        // Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, 15 of 148 gives 0.0624 to 0.1605, 0 of 20 gives 0 to 0.1611.
        for ((successes, n), (low, high)) in
            [((81.0, 263.0), (0.2553, 0.3662)), ((15.0, 148.0), (0.0624, 0.1605)), ((0.0, 20.0), (0.0, 0.1611))]
        {
            let found = wilson_interval(successes, n);
            assert!((found.0 - low).abs() < 5e-5 && (found.1 - high).abs() < 5e-5, "{successes} of {n}: {found:?}");
        }
        assert_eq!(wilson_interval(0.0, 0.0), (0.0, 1.0));
    }
}
