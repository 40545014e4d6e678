//! `plumb score`: a reward plugin's answers to completions in a file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use plumb_core::{Outcome, PluginKind};
use plumb_host::{LoadRequest, Source};
use serde_json::{Map, Value, json};

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
    let config = args.config.as_deref().map(rows::json_object).transpose()?.unwrap_or_default();
    let path = plugin_path::resolve(&args.plugin, None)?;
    let rows = rows::read(&args.input)?;
    let log = Arc::new(PluginLog::new(output));
    let loaded = plugins::host(args.seed, Arc::clone(&log) as _)?.load(LoadRequest {
        source: Source::Path(path),
        config,
        ..LoadRequest::new(PluginKind::Reward, "")
    })?;
    let needs: BTreeSet<String> = loaded.descriptor().needs_columns.iter().cloned().collect();
    let reward = loaded.into_reward()?;

    let mut sink = Sink::open(args.output.as_deref())?;
    let mut counts = [0_usize; 3];
    for chunk in rows.chunks(BATCH_ROWS) {
        // A row without a needed column is told so itself; the others are scored.
        let whole: Vec<&Row> = chunk.iter().filter(|row| rows::missing(&row.columns, &needs).is_none()).collect();
        let ids = whole.iter().map(|row| row.line as u64).collect();
        let answer = reward.score(rows::batch(ids, whole.iter().map(|row| &row.columns)))?;
        // What the plugin wrote is for the rows that follow, and must not pile up until the file's end.
        reward.end_step();
        let mut scored = answer.outcomes.iter().enumerate();
        for row in chunk {
            let line = if let Some(column) = rows::missing(&row.columns, &needs) {
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

fn line(row: &Row, status: &str, value: Option<f64>, parts: &Map<String, Value>, fault: Option<(&str, &str)>) -> String {
    let (code, message) = fault.unzip();
    json!({ "id": row.id(), "status": status, "value": value, "parts": parts, "code": code, "message": message }).to_string()
}
