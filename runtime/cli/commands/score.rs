//! `plumb score`: a reward plugin's answers to completions in a file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use plumb_core::{Outcome, PluginKind, Rewards};
use serde_json::{Map, Value, json};

use super::run::options::ConfigArgs;
use crate::columns::Types;
use crate::exit::ExitStatus;
use crate::output::{Output, Sink};
use crate::plugin_log::PluginLog;
use crate::rows::{self, Row};
use crate::services::{ServiceArgs, Services, Wanted};

/// Rows handed to the host at once; it cuts them into calls for its workers.
const BATCH_ROWS: usize = 4096;

/// Score completions with a reward plugin.
///
/// Each output line belongs to the input line of the same order: `id`, `status` (`scored`, `abstained` or `failed`), `value`,
/// `parts`, `code` and `message`. All columns of a line reach the plugin, with the types that a run gives them: columns of the data
/// are text, those that a run makes (`completion_tokens`, `completion_ids`, `raw`, ...) are numbers or lists. A row without a score
/// has no value, never 0.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb score --plugin reward-exact-match --input answers.jsonl
  plumb score --plugin ./my-reward.wasm --set mode=strict --type difficulty=f64 --input answers.jsonl --output scores.jsonl
  plumb score --plugin ./asks.wasm --model helper=smollm2 --tool calculator --input answers.jsonl")]
pub struct ScoreArgs {
    /// Name of an installed plugin, or path of a .wasm file
    #[arg(long, value_name = "NAME|PATH")]
    pub plugin: String,
    /// Its configuration
    #[command(flatten)]
    pub config: ConfigArgs,
    /// What it may ask
    #[command(flatten)]
    pub services: ServiceArgs,
    /// JSONL with `completion`, and whatever else the plugin reads; `-` is stdin
    #[arg(long)]
    pub input: PathBuf,
    /// Type of a column: `text`, `f64`, `u32`, `tokens`, `token-f32` or `f64-lists`; may be given several times
    #[arg(long = "type", value_name = "COLUMN=TYPE")]
    pub types: Vec<String>,
    /// Where to write; stdout when absent
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Seed of the plugin's random numbers and of what models sample
    #[arg(long, default_value_t)]
    pub seed: u64,
}

/// Runs the command.
pub fn run(args: &ScoreArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let wanted = Wanted::new(&args.plugin, args.config.read(Map::new())?, args.seed).with(&args.services)?;
    let types = Types::read(&args.types)?;
    let rows = rows::read(&args.input)?;
    let log = Arc::new(PluginLog::new(output));
    let mut services = Services::open(&wanted, &args.services, Arc::clone(&log) as _)?;
    let loaded = services.load(PluginKind::Reward, &wanted)?;
    let needs: BTreeSet<String> = loaded.descriptor().needs_columns.iter().cloned().collect();
    let reward = loaded.into_reward()?;

    let mut sink = Sink::open(args.output.as_deref())?;
    let mut counts = [0_usize; 3];
    for chunk in rows.chunks(BATCH_ROWS) {
        // A row without a needed column is told so itself; the others are scored.
        let whole: Vec<&Row> = chunk.iter().filter(|row| rows::missing(&row.columns, &needs).is_none()).collect();
        let answer = if whole.is_empty() {
            Rewards::default()
        } else {
            let batch = rows::lines_batch(&whole, &types, &args.input)?;
            services.while_served(|_| reward.score(batch))?
        };
        // What the plugin wrote is for the rows that follow, and must not pile up until the file's end.
        reward.end_step();
        let mut scored = answer.outcomes.iter().enumerate();
        for row in chunk {
            let line = if let Some(column) = rows::missing(&row.columns, &needs) {
                counts[2] += 1;
                let message = format!("the plugin needs `{column}`, the line has {}", rows::named(&row.columns));
                line(row, "failed", None, &Map::new(), Some(("missing-column", &message)))
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
    services.finish()?;
    log.finish();
    output.note(format!("{} scored, {} abstained, {} failed", counts[0], counts[1], counts[2]));
    Ok(ExitStatus::Success)
}

fn line(row: &Row, status: &str, value: Option<f64>, parts: &Map<String, Value>, fault: Option<(&str, &str)>) -> String {
    let (code, message) = fault.unzip();
    json!({ "id": row.id(), "status": status, "value": value, "parts": parts, "code": code, "message": message }).to_string()
}
