//! `plumb score`: a reward plugin's answers to completions in a file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use plumb_core::{Batch, Column, Outcome, PluginKind, Texts};
use plumb_host::{LoadRequest, Source};
use serde_json::{Map, Value, json};

use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::{Output, Sink};
use crate::plugin_log::PluginLog;
use crate::rows::{self, Row};
use crate::{plugin_path, plugins};

/// Rows handed to the host at once; it cuts them into calls for its workers.
const BATCH_ROWS: usize = 4096;

/// Score completions with a reward plugin.
///
/// Each output line belongs to the input line of the same order: `id`, `status` (`scored`, `abstained` or `failed`), `value`,
/// `parts`, `code` and `message`. All columns of a line reach the plugin. A row without a score has no value, never 0.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb score --plugin reward-exact-match --input answers.jsonl
  plumb score --plugin ./my-reward.wasm --config '{\"mode\": \"strict\"}' --input answers.jsonl --output scores.jsonl")]
pub struct ScoreArgs {
    /// Name of an installed plugin, or path of a .wasm file
    #[arg(long, value_name = "NAME|PATH")]
    pub plugin: String,
    /// The plugin's configuration, a JSON object
    #[arg(long, value_name = "JSON")]
    pub config: Option<String>,
    /// JSONL with `completion`, and whatever else the plugin reads; `-` is stdin
    #[arg(long)]
    pub input: PathBuf,
    /// Where to write; stdout when absent
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Seed of the plugin's random numbers
    #[arg(long, default_value_t)]
    pub seed: u64,
}

/// Runs the command.
pub fn run(args: &ScoreArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let config = config(args.config.as_deref())?;
    let path = plugin_path::resolve(&args.plugin, None)?;
    let rows = rows::read(&args.input)?;
    let log = Arc::new(PluginLog::new(output));
    let loaded = plugins::host(args.seed, Arc::clone(&log) as _)?.load(LoadRequest {
        source: Source::Path(path),
        kind: PluginKind::Reward,
        name: None,
        config,
        limits: plumb_core::recipe::LimitsUse::default(),
    })?;
    let needs: BTreeSet<String> = loaded.descriptor().needs_columns.iter().cloned().collect();
    let reward = loaded.into_reward()?;

    let mut sink = Sink::open(args.output.as_deref())?;
    let mut counts = [0_usize; 3];
    for chunk in rows.chunks(BATCH_ROWS) {
        // A row without a needed column is told so itself; the others are scored.
        let whole: Vec<&Row> = chunk.iter().filter(|row| missing(row, &needs).is_none()).collect();
        let answer = reward.score(batch(&whole))?;
        // What the plugin wrote is for the rows that follow, and must not pile up until the file's end.
        reward.end_step();
        let mut scored = answer.outcomes.iter().enumerate();
        for row in chunk {
            let line = if let Some(column) = missing(row, &needs) {
                counts[2] += 1;
                line(row, "failed", None, &Map::new(), Some(("missing-column", &format!("the line has no `{column}`"))))
            } else {
                let (j, outcome) = scored.next().expect("the host gives an outcome for each row");
                let parts = answer.parts.iter().filter(|(_, values)| values[j].is_finite());
                let parts: Map<String, Value> = parts.map(|(name, values)| (name.clone(), values[j].into())).collect();
                let (place, status) = match outcome {
                    Outcome::Scored(_) => (0, "scored"),
                    Outcome::Abstained(_) => (1, "abstained"),
                    Outcome::Failed(_) => (2, "failed"),
                };
                counts[place] += 1;
                let fault = match outcome {
                    Outcome::Scored(_) => None,
                    Outcome::Abstained(fault) | Outcome::Failed(fault) => Some((fault.code.as_str(), fault.message.as_str())),
                };
                line(row, status, outcome.value(), &parts, fault)
            };
            sink.line(&line)?;
        }
    }
    sink.finish()?;
    log.finish();
    output.note(format!("{} scored, {} abstained, {} failed", counts[0], counts[1], counts[2]));
    Ok(ExitStatus::Success)
}

fn config(text: Option<&str>) -> Result<Map<String, Value>, Diagnostic> {
    let wrong = |reason: String| Diagnostic::usage("usage.config", format!("`--config` is not a JSON object: {reason}"));
    match text.map(serde_json::from_str) {
        None => Ok(Map::new()),
        Some(Ok(Value::Object(config))) => Ok(config),
        Some(Ok(other)) => Err(wrong(format!("it is `{other}`"))),
        Some(Err(e)) => Err(wrong(e.to_string())),
    }
}

fn missing<'a>(row: &Row, needs: &'a BTreeSet<String>) -> Option<&'a String> {
    needs.iter().find(|column| row.columns.get(*column).is_none_or(Value::is_null))
}

/// All columns as text, as in training: a string as it is, anything else as compact JSON, nothing where a row lacks it.
fn batch(rows: &[&Row]) -> Batch {
    let n = rows.len() as u32;
    let ids = rows.iter().map(|row| row.line as u64).collect();
    let mut batch = Batch::new(0, ids, (1..=n).collect());
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.columns.keys()).collect();
    for name in names {
        let text = |row: &&Row| match row.columns.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        batch.insert(name, Column::Text(rows.iter().map(text).collect::<Texts>()));
    }
    batch
}

fn line(row: &Row, status: &str, value: Option<f64>, parts: &Map<String, Value>, fault: Option<(&str, &str)>) -> String {
    let (code, message) = fault.unzip();
    json!({ "id": row.id(), "status": status, "value": value, "parts": parts, "code": code, "message": message }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_reach_the_plugin_as_text_and_missing_ones_are_told() {
        let row = |line: usize, text: &str| match serde_json::from_str(text).unwrap() {
            Value::Object(columns) => Row { line, columns },
            _ => panic!("an object"),
        };
        let rows = [row(1, r#"{"completion": "4", "answer": 4}"#), row(2, r#"{"completion": null, "tags": ["a"]}"#)];
        let batch = batch(&rows.iter().collect::<Vec<_>>());
        let Some(Column::Text(answers)) = batch.column("answer") else { panic!("a text column") };
        assert_eq!((answers.get(0), answers.get(1)), (Some("4"), Some("")));
        assert_eq!(batch.row_ids, [1, 2]);
        let needs = BTreeSet::from(["completion".to_owned()]);
        assert_eq!((missing(&rows[0], &needs), missing(&rows[1], &needs)), (None, Some(&"completion".to_owned())));
    }
}
