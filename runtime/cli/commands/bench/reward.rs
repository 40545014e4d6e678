//! `plumb bench reward`: reward plugins as a step asks them, through the pool of workers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use plumb_core::{Batch, Outcome, PluginKind, RewardFn};
use serde_json::{Map, Value, json};

use super::plugins::plugin_use;
use super::report::{Report, Row, Spread};
use super::{CommonArgs, at_least};
use crate::columns::Types;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;
use crate::plugin_log::PluginLog;
use crate::plugins::{self, Plugins};
use crate::trust::Trust;
use crate::{rows, system};

/// Measure reward plugins.
///
/// Each plugin alone, then all of them side by side as in a training step. Rows are built in (`prompt`, `completion`, `answer`: sums with right
/// and wrong answers) or those of a file, repeated to the number wanted. `plumb plugin bench` measures fuel and limits of one plugin.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb bench reward --plugin reward-exact-match --plugin 'reward-format={\"tags\": {\"names\": [\"think\"]}}' --rows 1024
  plumb bench reward --plugin ./my-reward.wasm --input answers.jsonl --json")]
pub struct RewardArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Installed plugin or .wasm file, with its configuration as JSON; may be given several times
    #[arg(long = "plugin", required = true, value_name = "NAME|PATH[=CONFIG]")]
    plugins: Vec<String>,
    /// Rows of a batch
    #[arg(long, default_value_t = 256)]
    rows: usize,
    /// JSONL with `completion`, and whatever else the plugins read
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// A round repeats its batch for this long, so that the clock's grain does not matter.
const ROUND: Duration = Duration::from_millis(100);

/// Runs the command.
pub fn run(args: &RewardArgs, output: Output) -> anyhow::Result<Report> {
    args.common.check()?;
    at_least("--rows", args.rows, 1)?;
    let batch = batch(args)?;
    let peak = system::PeakRss::start();
    let log = Arc::new(PluginLog::new(output));
    let loader = Plugins::new(plugins::host(0, Arc::clone(&log) as _)?, None, Trust::default());
    let mut rewards: Vec<Arc<dyn RewardFn>> = Vec::new();
    for flag in &args.plugins {
        let loaded = loader.load(PluginKind::Reward, &plugin_use(flag)?).map_err(plugins::unboxed)?;
        let needs: BTreeSet<String> = loaded.descriptor().needs_columns.iter().cloned().collect();
        if let Some(column) = needs.iter().find(|column| batch.column(column).is_none()) {
            let error = Diagnostic::usage("input.missing_column", format!("`{flag}` needs the column `{column}`"));
            return Err(error.hint("give rows that have it: `--input FILE`").into());
        }
        rewards.push(loaded.into_reward()?);
    }
    let scored = rewards.iter().map(|reward| scored(reward, &batch)).collect::<anyhow::Result<Vec<_>>>()?;

    let row = |name: String, rewards: &[Arc<dyn RewardFn>], scored: usize| -> anyhow::Result<Row> {
        let rounds = (0..args.common.rounds).map(|_| round(rewards, &batch)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Row {
            name,
            keys: vec![("scored_rows", scored.into())],
            figures: vec![
                ("rows_per_s", Spread::of(rounds.iter().map(|seconds| args.rows as f64 / seconds)).into()),
                ("us_per_row", Spread::of(rounds.iter().map(|seconds| seconds / args.rows as f64 * 1e6)).into()),
                ("ms_per_batch", Spread::of(rounds.iter().map(|seconds| seconds * 1e3)).into()),
            ],
        })
    };
    let mut lines = Vec::new();
    for (reward, scored) in rewards.iter().zip(&scored) {
        lines.push(row(reward.id().name.clone(), std::slice::from_ref(reward), *scored)?);
    }
    if rewards.len() > 1 {
        lines.push(row("all together".into(), &rewards, scored.iter().sum())?);
    }
    log.finish();
    Ok(Report {
        command: "reward",
        setup: vec![("rows_per_batch", args.rows.into()), ("rounds", args.common.rounds.into())],
        ceilings: None,
        figures: Vec::new(),
        rows: lines,
        peak_rss_mib: peak.mib(),
    })
}

/// How many rows a plugin scores; also warms it up.
fn scored(reward: &Arc<dyn RewardFn>, batch: &Batch) -> anyhow::Result<usize> {
    let answer = reward.score(batch.clone())?;
    reward.end_step();
    let failed = answer.outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Failed(fault) => Some(fault),
        _ => None,
    });
    if let Some(fault) = failed {
        let error = Diagnostic::new("plugin.failed_rows", ExitStatus::Plugin, format!("{} fails on rows", reward.id()));
        let cause = format!("`{}`: {}", fault.code, fault.message);
        return Err(error.because(cause).hint("give rows that it can score: `--input FILE`").into());
    }
    Ok(answer.outcomes.iter().filter(|outcome| outcome.value().is_some()).count())
}

/// Seconds for a batch: the mean of as many as fit into a round. All plugins are asked before any answer is waited for.
fn round(rewards: &[Arc<dyn RewardFn>], batch: &Batch) -> anyhow::Result<f64> {
    let (mut spent, mut calls) = (Duration::ZERO, 0_u32);
    while spent < ROUND {
        let copies = vec![batch.clone(); rewards.len()];
        let start = Instant::now();
        let pending: Vec<_> = rewards.iter().zip(copies).map(|(reward, batch)| reward.submit(batch)).collect();
        pending.into_iter().try_for_each(|answer| answer.wait().map(drop))?;
        spent += start.elapsed();
        calls += 1;
        rewards.iter().for_each(|reward| reward.end_step());
    }
    Ok(spent.as_secs_f64() / f64::from(calls))
}

fn batch(args: &RewardArgs) -> anyhow::Result<Batch> {
    let rows: Vec<Map<String, Value>> = match &args.input {
        Some(path) => {
            let rows: Vec<_> = rows::read(path)?.into_iter().map(|row| row.columns).collect();
            if rows.is_empty() {
                let error = Diagnostic::resource("input.empty", format!("`{}` has no rows", path.display()));
                return Err(error.hint("give a file with a JSON object a line").into());
            }
            rows
        }
        None => (0..64).map(built_in).collect(),
    };
    let repeated = rows.iter().cycle().take(args.rows);
    let (ids, ends) = ((0..args.rows as u64).collect(), vec![args.rows as u32]);
    rows::batch(ids, ends, repeated, &Types::read(&[])?).map_err(|(column, misfit)| {
        let at = format!("row {} of the rows that are repeated", misfit.row % rows.len() + 1);
        Diagnostic::resource("input.broken_line", format!("column `{column}`: {}", misfit.reason(&column))).at(at).into()
    })
}

/// A sum, worked out in a few sentences; every other answer is wrong.
fn built_in(i: usize) -> Map<String, Value> {
    let (a, b) = (12 + 7 * i, 30 + 11 * (i % 17));
    let said = a + b + i % 2;
    let steps = (1..=1 + i % 4).map(|step| format!("Step {step}: take {a}, and then count {b} further. "));
    let completion = format!("<think>{}</think>\nThe answer is {said}.", steps.collect::<String>());
    let row = json!({ "prompt": format!("What is {a} + {b}?"), "completion": completion, "answer": (a + b).to_string() });
    let Value::Object(row) = row else { unreachable!("an object was written") };
    row
}
