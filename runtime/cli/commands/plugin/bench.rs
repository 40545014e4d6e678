//! `plumb plugin bench`: what a plugin costs, in time and in fuel.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use plumb_core::{Batch, PluginFault, PluginKind};
use plumb_host::{DirectInstance, Host};
use serde_json::json;

use super::cases::{self, Case};
use super::subject::{self, Subject};
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Measure a plugin's time and fuel per row, and what its limits leave.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin bench reward-brevity
  plumb plugin bench reward-exact-match --cases my-cases.jsonl --rows 4096")]
pub struct BenchArgs {
    /// A plugin's crate, a .wasm file, or the name of an installed plugin
    #[arg(default_value = ".")]
    plugin: String,
    /// JSONL file of cases; the first that expects no error is repeated [default: cases.jsonl in the crate]
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Rows per call, at least
    #[arg(long, default_value_t = 256)]
    rows: usize,
}

/// Calls go on for this long, or until there are [`CALLS_MAX`].
const MEASURE: Duration = Duration::from_millis(500);
/// More calls do not make the median better.
const CALLS_MAX: usize = 10_000;

/// What was measured.
#[derive(Clone, Debug, serde::Serialize)]
struct Measured {
    rows: usize,
    calls: usize,
    call_us_median: f64,
    row_us: f64,
    rows_per_s: f64,
    /// Of a call without rows: instantiation and `init`.
    fuel_fixed: u64,
    fuel_per_row: f64,
    /// Share of the fuel limit that the call takes, in [0, 1].
    fuel_share: f64,
    /// How many times dearer a row may be than this one before a call of a full batch runs out of fuel.
    row_headroom: f64,
}

/// Runs the command.
pub fn run(args: &BenchArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let subject = Subject::find(&args.plugin, output)?;
    let path = args.cases.clone().or_else(|| subject.folder.as_ref().map(|folder| folder.join("cases.jsonl")));
    let path = path
        .ok_or_else(|| Diagnostic::usage("usage", "there are no rows to measure").hint("name a file of cases: `--cases FILE`"))?;
    let found = cases::read(&path)?.into_iter().find(|case| !case.rows.is_empty() && case.expect.get("error").is_none());
    let case = found.ok_or_else(|| Diagnostic::usage("case.none", format!("`{}` has no case with rows", path.display())))?;
    let measured = measure(&subject, &case, args.rows)?;
    let Measured { rows, calls, call_us_median, row_us, rows_per_s, fuel_fixed, fuel_per_row, fuel_share, row_headroom } =
        measured;
    output.data(if output.json {
        json!({"type": "bench", "v": 1, "data": measured}).to_string()
    } else {
        format!(
            "case `{}`, {rows} rows a call, median of {calls} calls\n\
             time   {call_us_median:.1} µs a call, {row_us:.3} µs a row, {rows_per_s:.0} rows/s\n\
             fuel   {fuel_fixed} a call (start included) + {fuel_per_row:.0} a row\n\
             limit  {:.4} % of the fuel of such a call is used; rows may be {row_headroom:.0} times as dear",
            case.name,
            fuel_share * 100.0
        )
    })?;
    Ok(ExitStatus::Success)
}

fn measure(subject: &Subject, case: &Case, rows: usize) -> anyhow::Result<Measured> {
    let (host, _) = subject::host(1)?;
    let times = rows.div_ceil(case.rows.len()).max(1);
    let batch = Arc::new(case.batch(times)?);
    let rows = batch.rows();
    let plugin = subject.load(&host, &case.config)?;
    let (kind, limits) = (plugin.id().kind, plugin.limits());
    let mut instance = plugin.instance().map_err(|fault| failed(&subject.label(), &fault))?;
    let mut calls = Vec::new();
    let start = Instant::now();
    while start.elapsed() < MEASURE && calls.len() < CALLS_MAX {
        let began = Instant::now();
        call(&mut instance, kind, &batch).map_err(|fault| failed(&subject.label(), &fault))?;
        calls.push(began.elapsed().as_secs_f64() * 1e6);
    }
    calls.sort_by(f64::total_cmp);
    let call_us_median = calls[calls.len() / 2];
    // Two sizes tell what a call takes from what a row takes.
    let one = fuel(subject, case, 1)?;
    let more = fuel(subject, case, 9)?;
    let fuel_per_row = more.saturating_sub(one) as f64 / (8 * case.rows.len()) as f64;
    let fuel_fixed = (one as f64 - fuel_per_row * case.rows.len() as f64).max(0.0) as u64;
    Ok(Measured {
        rows,
        calls: calls.len(),
        call_us_median,
        row_us: call_us_median / rows as f64,
        rows_per_s: rows as f64 / call_us_median * 1e6,
        fuel_fixed,
        fuel_per_row,
        fuel_share: (fuel_fixed as f64 + fuel_per_row * rows as f64) / limits.call_fuel(rows) as f64,
        row_headroom: limits.call_fuel(rows).saturating_sub(fuel_fixed) as f64 / rows as f64 / fuel_per_row.max(1.0),
    })
}

fn call(instance: &mut DirectInstance, kind: PluginKind, batch: &Arc<Batch>) -> Result<(), PluginFault> {
    match kind {
        PluginKind::Reward => instance.score(batch).map(drop),
        PluginKind::Shaper => instance.shape(batch).map(drop),
        PluginKind::Filter => instance.select(batch).map(drop),
        PluginKind::Judge | PluginKind::Tool => {
            Err(PluginFault::Host { message: format!("a {kind} cannot be measured by cases") })
        }
    }
}

/// Fuel of a call with the case's rows `times` over, as a run would make it.
fn fuel(subject: &Subject, case: &Case, times: usize) -> anyhow::Result<u64> {
    let (host, _): (Host, _) = subject::host(1)?;
    let plugin = subject.load(&host, &case.config)?;
    let batch = case.batch(times)?;
    match plugin.id().kind {
        PluginKind::Reward => plugin.into_reward()?.score(batch).map(drop)?,
        PluginKind::Shaper => plugin.into_shaper()?.shape(&batch).map(drop)?,
        PluginKind::Filter => plugin.into_filter()?.select(&batch).map(drop)?,
        PluginKind::Judge | PluginKind::Tool => {}
    }
    Ok(host.stats().iter().map(|(_, stats)| stats.counts.fuel).sum())
}

fn failed(plugin: &str, fault: &PluginFault) -> Diagnostic {
    Diagnostic::new(&format!("plugin.{}", fault.code()), ExitStatus::Plugin, format!("`{plugin}` fails on the case"))
        .because(fault.to_string())
}
