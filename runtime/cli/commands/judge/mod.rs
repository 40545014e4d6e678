//! `plumb judge`: a judge plugin's verdicts about completions in a file, by the turns and rules of a run.
//!
//! Reading order: [`items`] (lines to what is judged together), [`verdict`] (verdicts to lines), [`agreement`] (how they fit the
//! verdicts that the input has).

mod agreement;
mod items;
mod verdict;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use plumb_core::recipe::{FaultPolicy, JudgeUse};
use plumb_core::{PluginKind, RowFault};
use plumb_train::pipeline::judging::{Judged, Spent, judge_each};
use plumb_train::plugins::{JudgeSlot, TOKENS_PER_ROW, Weight};
use serde_json::{Map, Value, json};

use super::run::options::ConfigArgs;
use crate::columns::Types;
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::exit::ExitStatus;
use crate::output::{Output, Sink};
use crate::plugin_log::PluginLog;
use crate::recipe_file;
use crate::rows::{self, Row};
use crate::services::{ServiceArgs, Services, Wanted};
use agreement::Agreement;
use items::Item;

/// Items that ask together hold at least so many rows, while there are more.
const ROUND_ROWS: usize = 256;

/// Let a judge plugin decide about completions, preference pairs or groups in a file.
///
/// A line with `completion` is judged by itself, or against the other lines with the same `group`. A line with `chosen` and
/// `rejected`, or `completion_a` and `completion_b`, is a pair; a judge that compares asks about both orders. Each item is judged by
/// itself, so its verdict does not depend on the rest of the file, and a question that cannot be answered costs its own item alone.
///
/// Each output line belongs to the input line of the same order: `id`, `status` (`scored`, `abstained`, `unparseable` or `failed`),
/// `value` (of a pair the probability that `chosen` or `completion_a` is better), `code`, `message` and `tokens` (read and written
/// for its item), `parts`, and `rationale` where the judge gives one; of a pair `prefers` and `rows`, of a group `matrix`. A `verdict`
/// in the input (a number; of a pair the name of the better one, or `tie`) is kept from the judge, and the summary says how well they
/// agree; pairs without one count `chosen` as right.
///
/// How models sample is the judge's to say: `--temperature`, `--samples` and `--max-tokens` set the keys of its configuration that
/// judges by convention have for that.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb judge --plugin judge-rubric --model smollm2 --set rubric='Correct and brief?' --input answers.jsonl
  plumb judge --plugin judge-pairwise --model judge.gguf --samples 3 --temperature 0.7 --input pairs.jsonl --stats stats.json
  plumb judge --recipe recipes/mine.toml --judge style --model policy=runs/mine/model --input answers.jsonl")]
pub struct JudgeArgs {
    /// Name of an installed judge plugin, or path of a .wasm file
    #[arg(long, value_name = "NAME|PATH", required_unless_present = "recipe", conflicts_with = "recipe")]
    pub plugin: Option<String>,
    /// Take the judge from this recipe, with its configuration, limits, grants, models and tools
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Which judge of the recipe; not needed where there is one
    #[arg(long, value_name = "NAME", requires = "recipe")]
    pub judge: Option<String>,
    /// Its configuration
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Sets `temperature` in the configuration
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// Sets `samples` in the configuration: answers per prompt
    #[arg(long, value_name = "N")]
    pub samples: Option<u32>,
    /// Sets `max_tokens` in the configuration: most tokens of an answer
    #[arg(long, value_name = "TOKENS")]
    pub max_tokens: Option<u32>,
    /// What it may ask
    #[command(flatten)]
    pub services: ServiceArgs,
    /// JSONL of completions, pairs or groups; `-` is stdin
    #[arg(long)]
    pub input: PathBuf,
    /// Column whose equal values make lines a group
    #[arg(long, value_name = "COLUMN", default_value = "group")]
    pub group: String,
    /// Column with the verdict to agree with
    #[arg(long, value_name = "COLUMN", default_value = "verdict")]
    pub verdict: String,
    /// Type of a column: `text`, `f64`, `u32`, `tokens`, `token-f32` or `f64-lists`; may be given several times
    #[arg(long = "type", value_name = "COLUMN=TYPE")]
    pub types: Vec<String>,
    /// Where to write; stdout when absent
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Where to write the summary, as JSON
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
    /// Seed of the plugin's random numbers and of what models sample [default: 0, or the recipe's]
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Runs the command.
pub fn run(args: &JudgeArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let wanted = wanted(args)?;
    let types = Types::read(&args.types)?;
    let rows = rows::read(&args.input)?;
    let items = items::read(&rows, &args.group, &args.verdict, &args.input)?;
    let log = Arc::new(PluginLog::new(output));
    let mut services = Services::open(&wanted, &args.services, Arc::clone(&log) as _)?;
    let loaded = services.load(PluginKind::Judge, &wanted)?;
    let needs: BTreeSet<String> = loaded.descriptor().needs_columns.iter().cloned().collect();
    let name = loaded.id().name.clone();
    let tokens_per_row = wanted.plugin.grants.tokens_per_row.unwrap_or(TOKENS_PER_ROW);
    let plugin = loaded.into_judge()?;
    let (weights, on_fault) = (Weight::default(), FaultPolicy::default());
    let slot = JudgeSlot { name, plugin, weight: 0.0, weights, on_fault, tokens_per_row };

    let mut sink = Sink::open(args.output.as_deref())?;
    let mut lines = Lines { of_rows: vec![None; rows.len()], written: 0 };
    let mut summary = Summary { agreement: Agreement::new(&args.verdict), ..Summary::default() };
    let bar = output.bar(rows.len() as u64, "lines");
    for round in rounds(&items) {
        let missing = |item: &Item| item.rows.iter().find_map(|row| rows::missing(row, &needs));
        let whole: Vec<&Item> = round.iter().filter(|item| missing(item).is_none()).collect();
        let batches = whole.iter().map(|item| item.batch(&types, &rows, &args.input)).collect::<Result<Vec<_>, _>>()?;
        let mut judged = services.while_served(|models| judge_each(&slot, batches, models))?.into_iter();
        // What the plugin wrote is for the items that follow, and must not pile up until the file's end.
        slot.plugin.end_step();
        for item in round {
            let judged = match missing(item) {
                None => judged.next().expect("every item that was asked about is judged"),
                Some(column) => lacks(item, column),
            };
            summary.add(item, &judged, &rows);
            for (&line, text) in item.lines.iter().zip(verdict::lines(item, &judged, &rows)) {
                lines.of_rows[line] = Some(text);
            }
        }
        lines.write(&mut sink)?;
        bar.set_position(lines.written as u64);
    }
    bar.finish_and_clear();
    sink.finish()?;
    services.finish()?;
    log.finish();
    if let Some(path) = &args.stats {
        let text = serde_json::to_string_pretty(&summary.json())? + "\n";
        std::fs::write(path, text).map_err(|e| Diagnostic::io("write", path, &e))?;
    }
    summary.text().iter().for_each(|line| output.note(line));
    Ok(ExitStatus::Success)
}

/// The judge that the flags mean, and what it may ask.
fn wanted(args: &JudgeArgs) -> anyhow::Result<Wanted> {
    let config = |otherwise: Map<String, Value>| -> Result<Map<String, Value>, Diagnostic> {
        let mut config = args.config.read(otherwise)?;
        let set = [
            ("temperature", args.temperature.map(Value::from)),
            ("samples", args.samples.map(Value::from)),
            ("max_tokens", args.max_tokens.map(Value::from)),
        ];
        config.extend(set.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        Ok(config)
    };
    let wanted = match (&args.plugin, &args.recipe) {
        (_, Some(recipe)) => {
            let file = recipe_file::load(recipe, &[])?;
            let judges: Vec<&JudgeUse> = file.recipe.stages.iter().flat_map(|stage| &stage.judges).collect();
            let used = &chosen(&judges, args.judge.as_deref(), recipe)?.plugin;
            let seed = args.seed.unwrap_or(file.recipe.seed);
            Wanted::of_recipe(&file, used, config(used.config.clone())?, seed)?
        }
        (plugin, None) => Wanted::new(plugin.as_deref().unwrap_or_default(), config(Map::new())?, args.seed.unwrap_or(0)),
    };
    Ok(wanted.with(&args.services)?)
}

/// The judge of that name among a recipe's; the only one where there is no name.
fn chosen<'a>(judges: &[&'a JudgeUse], name: Option<&str>, recipe: &std::path::Path) -> Result<&'a JudgeUse, Diagnostic> {
    let name_of = |judge: &&JudgeUse| judge.plugin.name.clone().unwrap_or_else(|| judge.plugin.plugin.clone());
    let names: BTreeSet<String> = judges.iter().map(name_of).collect();
    let listed = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let file = recipe.display();
    match name {
        _ if judges.is_empty() => Err(Diagnostic::usage("usage.judge", format!("`{file}` has no judge"))),
        Some(name) => judges.iter().find(|judge| name_of(judge) == name).copied().ok_or_else(|| {
            let error = Diagnostic::usage("usage.judge", format!("`{file}` has no judge `{name}`"))
                .because(format!("there are {listed}"));
            did_you_mean(name, names.iter().map(String::as_str)).into_iter().fold(error, Diagnostic::hint)
        }),
        None if names.len() == 1 => Ok(judges[0]),
        None => {
            Err(Diagnostic::usage("usage.judge", format!("`{file}` has several judges: {listed}"))
                .hint("say which: `--judge NAME`"))
        }
    }
}

/// Items that ask together.
fn rounds(items: &[Item]) -> Vec<&[Item]> {
    let mut rounds = Vec::new();
    let (mut start, mut rows) = (0, 0);
    for (i, item) in items.iter().enumerate() {
        rows += item.rows.len();
        if rows >= ROUND_ROWS || i + 1 == items.len() {
            rounds.push(&items[start..=i]);
            (start, rows) = (i + 1, 0);
        }
    }
    rounds
}

/// An item that cannot be put to the judge, since a line of it has no `column`.
fn lacks(item: &Item, column: &str) -> Judged {
    let fault = RowFault { code: "missing-column".into(), message: format!("the judge needs `{column}`, which is not there") };
    verdict::failed(item, &fault)
}

/// Output lines in the order of the input: a group's are known when its last row is, which may stand far below its first.
struct Lines {
    of_rows: Vec<Option<String>>,
    written: usize,
}

impl Lines {
    /// Writes those before the first that is not known yet.
    fn write(&mut self, sink: &mut Sink) -> std::io::Result<()> {
        while let Some(line) = self.of_rows.get_mut(self.written).and_then(Option::take) {
            sink.line(&line)?;
            self.written += 1;
        }
        Ok(())
    }
}

/// What all verdicts come to.
#[derive(Default)]
struct Summary {
    /// Lines by status, in the order of [`verdict::STATUSES`].
    counts: [usize; 4],
    spent: Spent,
    agreement: Agreement,
}

impl Summary {
    fn add(&mut self, item: &Item, judged: &Judged, rows: &[Row]) {
        let statuses = if item.is_pair() { 0..1 } else { 0..item.rows.len() };
        for row in statuses {
            let status =
                if item.is_pair() { verdict::pair(judged).status } else { verdict::status(&judged.scores.outcomes[row]) };
            self.counts[verdict::STATUSES.iter().position(|name| *name == status).expect("one of four")] += 1;
        }
        let Spent { turns, questions, tokens } = judged.spent;
        self.spent.turns += turns;
        self.spent.questions += questions;
        self.spent.tokens += tokens;
        self.agreement.add(item, judged, rows);
    }

    fn json(&self) -> Value {
        let counts = verdict::STATUSES.iter().zip(self.counts).map(|(name, count)| ((*name).to_owned(), count.into()));
        let mut all: Map<String, Value> = counts.collect();
        let Spent { turns, questions, tokens } = self.spent;
        all.extend([("turns".into(), turns.into()), ("questions".into(), questions.into()), ("tokens".into(), tokens.into())]);
        all.insert("agreement".into(), json!(self.agreement.of_pairs()));
        all.insert("comparison".into(), json!(self.agreement.of_values()));
        all.into()
    }

    fn text(&self) -> Vec<String> {
        let counts = verdict::STATUSES.iter().zip(self.counts).map(|(name, count)| format!("{count} {name}"));
        let Spent { questions, tokens, .. } = self.spent;
        let mut lines = vec![format!("{}; {questions} prompts, {tokens} tokens", counts.collect::<Vec<_>>().join(", "))];
        lines.extend(self.agreement.text());
        lines
    }
}
