//! `plumb plugin test`: cases with expected answers.

use std::path::PathBuf;

use clap::Args;
use plumb_core::feedback::RowFault;
use plumb_core::{Outcome, PluginKind};
use plumb_host::{Host, LoadedPlugin};
use serde_json::{Map, Value, json};

use super::cases::{self, Case};
use super::subject::{self, Subject};
use super::verdicts;
use super::watch::Watch;
use crate::args::GlobalArgs;
use crate::diagnostic::{self, Diagnostic};
use crate::exit::ExitStatus;
use crate::output::Output;
use crate::plugin_path;

/// Run a plugin on cases with expected answers. Exits with 1 when an answer differs.
#[derive(Debug, Args)]
#[command(
    after_help = r#"A case is one line of JSON: {"rows": [{"completion": "4", "answer": "4"}], "config": {}, "expect": [1]}
Expected per row: a number, null (no value), {"value": 1, "parts": {"words": 2}} or {"status": "abstained", "code": "abstain"}
for rewards and for judges that give scores; a number or null for shapers; true or false for filters; a text for tools, whose
arguments the rows are. Judges that compare have {"pairs": [[0, 1, 0.75]], "matrices": [...], "rows": [...]}. {"error": "bad-config"} in place of the list expects a
failure.

Examples:
  plumb plugin test reward-brevity
  plumb plugin test reward-brevity --watch
  plumb plugin test reward-exact-match --cases my-cases.jsonl"#
)]
pub struct TestArgs {
    /// A plugin's crate, a .wasm file, or the name of an installed plugin
    #[arg(default_value = ".")]
    plugin: String,
    /// JSONL file of cases [default: cases.jsonl in the crate]
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Run again whenever a source or a case changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// Runs the command.
pub fn run(args: &TestArgs, global: &GlobalArgs, output: Output) -> anyhow::Result<ExitStatus> {
    if !args.watch {
        return run_once(args, global, output);
    }
    let folder = PathBuf::from(&args.plugin);
    let plugin = if folder.is_dir() { folder } else { plugin_path::resolve(&args.plugin, None)? };
    let mut watch = Watch::new(std::iter::once(plugin).chain(args.cases.clone()).collect())?;
    loop {
        // A plugin that does not build is what one watches for: it is told, and the next change may mend it.
        if let Err(error) = run_once(args, global, output) {
            if diagnostic::is_broken_pipe(&error) {
                return Err(error);
            }
            Diagnostic::from(error).emit(output);
        }
        output.note("waiting for changes; Ctrl-C ends");
        watch.wait();
    }
}

fn run_once(args: &TestArgs, global: &GlobalArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let subject = Subject::find(&args.plugin, output)?;
    let path = args.cases.clone().or_else(|| subject.folder.as_ref().map(|folder| folder.join("cases.jsonl")));
    let path =
        path.ok_or_else(|| Diagnostic::usage("usage", "there are no cases to run").hint("name a file of cases: `--cases FILE`"))?;
    let (host, _) = subject::host(global.threads.unwrap_or(1))?;
    let (mut passed, mut failed) = (0, 0);
    for case in cases::read(&path)? {
        let got = answer(&subject, &host, &case)?;
        let differences = differences(&case, &got);
        if differences.is_empty() {
            passed += 1;
        } else {
            failed += 1;
        }
        if output.json {
            let data = json!({"name": case.name, "passed": differences.is_empty(), "differences": differences, "answer": got});
            output.data(json!({"type": "case", "v": 1, "data": data}).to_string())?;
        } else if differences.is_empty() {
            output.data(format!("ok    {}", case.name))?;
        } else {
            output.data(format!("FAIL  {}\n        {}", case.name, differences.join("\n        ")))?;
        }
    }
    if passed + failed == 0 {
        return Err(Diagnostic::usage("case.none", format!("`{}` has no cases", path.display())).into());
    }
    if !output.json {
        output.data(format!("{passed} passed, {failed} failed"))?;
    }
    Ok(if failed == 0 { ExitStatus::Success } else { ExitStatus::No })
}

/// What the plugin answers, in the form in which cases expect it.
fn answer(subject: &Subject, host: &Host, case: &Case) -> anyhow::Result<Value> {
    let plugin = match subject.load(host, &case.config) {
        Ok(plugin) => plugin,
        Err(plumb_host::Error::Config { code, message, .. }) => return Ok(json!({"error": code, "message": message})),
        Err(error) => return Err(error.into()),
    };
    Ok(call(plugin, case)?.unwrap_or_else(|error| {
        let code = match &error {
            plumb_core::PluginFault::Fault { code, .. } => code.clone(),
            other => other.code().to_owned(),
        };
        json!({"error": code, "message": error.to_string()})
    }))
}

type Answer = Result<Value, plumb_core::PluginFault>;

/// Calls a plugin of any kind.
fn call(plugin: LoadedPlugin, case: &Case) -> anyhow::Result<Answer> {
    // Not for a tool: the keys of its rows are arguments, whatever a column of that name would hold.
    let batch = || case.batch(1);
    let fault = |error: plumb_core::PluginError| error.fault;
    Ok(match plugin.id().kind {
        PluginKind::Reward => plugin.into_reward()?.score(batch()?).map_err(fault).map(|rewards| {
            let row = |(row, outcome): (usize, &Outcome)| match outcome {
                Outcome::Scored(value) => {
                    let parts = rewards.parts.iter().filter(|(_, values)| !values[row].is_nan());
                    let parts: Map<String, Value> = parts.map(|(name, values)| (name.clone(), values[row].into())).collect();
                    json!({"status": "scored", "value": value, "parts": parts})
                }
                Outcome::Abstained(fault) => without("abstained", fault),
                Outcome::Failed(fault) => without("failed", fault),
            };
            rewards.outcomes.iter().enumerate().map(row).collect()
        }),
        PluginKind::Shaper => plugin.into_shaper()?.shape(&batch()?).map_err(fault).map(|shaped| {
            // Infinities never get here, so what JSON cannot hold is "no value".
            let values = shaped.values.unwrap_or_default();
            let row = |(row, value): (usize, f64)| match shaped.faults.iter().find(|(at, _)| *at as usize == row) {
                Some((_, fault)) => without("failed", fault),
                None => value.into(),
            };
            values.into_iter().enumerate().map(row).collect()
        }),
        PluginKind::Filter => plugin.into_filter()?.select(&batch()?).map_err(fault).map(|decision| json!(decision.keep)),
        PluginKind::Judge => verdicts::judge(&*plugin.into_judge()?, batch()?, &case.models),
        PluginKind::Tool => Ok(verdicts::tool(&plugin.into_tool()?, &case.rows)),
    })
}

fn without(status: &str, fault: &RowFault) -> Value {
    json!({"status": status, "code": fault.code, "message": fault.message})
}

/// How an answer differs from what is expected; empty when it does not.
fn differences(case: &Case, got: &Value) -> Vec<String> {
    let whole = |text: String| vec![text];
    match (&case.expect, got) {
        (Value::Null, _) => whole(format!("nothing is expected; the answer is {got}")),
        (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => {
            let rows = expected.iter().zip(got).enumerate();
            rows.filter(|(_, (expected, got))| !fits(expected, got, case.tolerance))
                .map(|(row, (expected, got))| format!("row {row}: expected {expected}, got {got}"))
                .collect()
        }
        (expected @ Value::Object(_), Value::Object(_)) if fits(expected, got, case.tolerance) => Vec::new(),
        (expected, got) => whole(format!("expected {expected}, got {got}")),
    }
}

/// Whether an answer has all that is expected of it: objects may have more keys, numbers may be off by the tolerance.
fn fits(expected: &Value, got: &Value, tolerance: f64) -> bool {
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => {
            expected.iter().all(|(key, value)| got.get(key).is_some_and(|found| fits(value, found, tolerance)))
        }
        (Value::Array(expected), Value::Array(got)) => {
            expected.len() == got.len() && expected.iter().zip(got).all(|(expected, got)| fits(expected, got, tolerance))
        }
        // A number or null stands for the row's value.
        (Value::Number(_), Value::Object(got)) => got.get("value").is_some_and(|value| fits(expected, value, tolerance)),
        (Value::Null, Value::Object(got)) => !got.contains_key("value"),
        (Value::Number(expected), Value::Number(got)) => {
            let (expected, got) = (expected.as_f64().unwrap_or(f64::NAN), got.as_f64().unwrap_or(f64::NAN));
            (expected - got).abs() <= tolerance * expected.abs().max(1.0)
        }
        (expected, got) => expected == got,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differ(expect: &Value, got: &Value) -> Vec<String> {
        let case = serde_json::from_value(json!({"rows": [], "expect": expect, "tolerance": 0.01})).unwrap();
        differences(&case, got)
    }

    #[test]
    fn answers_fit_values_parts_and_statuses() {
        let got = json!([{"status": "scored", "value": 1.005, "parts": {"a": 2.0, "b": 3.0}}, {"status": "abstained", "code": "abstain", "message": "no"}]);
        assert!(differ(&json!([1, null]), &got).is_empty());
        assert!(differ(&json!([{"value": 1, "parts": {"a": 2}}, {"status": "abstained"}]), &got).is_empty());
        assert_eq!(differ(&json!([1.02, 0]), &got).len(), 2);
        assert_eq!(differ(&json!([{"parts": {"c": 1}}, null]), &got).len(), 1);
        assert_eq!(differ(&json!([1]), &got).len(), 1);
    }

    #[test]
    fn missing_expectation_and_unexpected_errors_are_differences() {
        assert_eq!(differ(&Value::Null, &json!([1])).len(), 1);
        assert_eq!(differ(&json!([1]), &json!({"error": "trap", "message": "x"})).len(), 1);
        assert!(differ(&json!({"error": "trap"}), &json!({"error": "trap", "message": "x"})).is_empty());
        assert_eq!(differ(&json!([true, false]), &json!([true, true])).len(), 1);
    }
}
