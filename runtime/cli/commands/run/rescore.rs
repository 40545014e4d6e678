//! `plumb run rescore`: another plugin's opinion of a run's completions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use plumb_core::PluginKind;
use plumb_core::recipe::{FilterStage, ShapedValue};
use plumb_train::PluginFactory;
use plumb_train::archive::Archive;
use plumb_train::rescore::{Rescored, RescoredRow, Subject, rescore};
use serde_json::json;

use super::options::{self, ConfigArgs, SelectArgs};
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::{Output, Sink};
use crate::plugin_log::PluginLog;
use crate::plugins::{self, Plugins};
use crate::trust::Trust;

/// Ask another plugin about a run's completions and compare.
///
/// A reward scores them, a shaper shapes the recorded rewards, a filter chooses among the recorded values (kept is 1, dropped 0).
/// "Equal values" is the share of completions with the recorded value; "same order" that of pairs of completions of one prompt that
/// both order alike, whatever the values; the correlation is Spearman's, over all rows; drift is the mean of new minus old. A group's
/// winner has changed when none of its best completions is still among the best.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run rescore runs/quickstart --plugin reward-math-answer
  plumb run rescore runs/a --plugin ./stricter.wasm --set tolerance=0 --compare exact --steps 50.. --out rescored.parquet")]
pub struct RescoreArgs {
    /// The run's folder
    pub run: PathBuf,
    /// A .wasm file, a plugin's folder (it is built first), or the name of an installed plugin
    #[arg(long, value_name = "NAME|PATH")]
    pub plugin: String,
    /// Its configuration
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The recorded value to compare with: a reward's name, `raw`, `shaped`, `advantage` or `kept` [default: raw for a reward,
    /// what it shapes for a shaper, kept for a filter]
    #[arg(long, value_name = "NAME")]
    pub compare: Option<String>,
    /// What a filter reads, and what a shaper shapes (`raw` and `shaped` are the reward) [default: raw]
    #[arg(long, value_enum)]
    pub reads: Option<Reads>,
    /// Which steps
    #[command(flatten)]
    pub select: SelectArgs,
    /// Accept plugins signed by this key too; a run whose recipe has `[trust]` is rescored by signed plugins only
    #[arg(long, value_name = "KEY")]
    pub trust: Vec<String>,
    /// Write every row, with both values, to this .jsonl or .parquet file
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Rows to show whose values differ most
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub largest: usize,
}

/// A stage of a row's value.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Reads {
    /// Weighted sum of the rewards
    Raw,
    /// After the shapers
    Shaped,
    /// Advantages
    Advantage,
}

/// Runs the command.
pub fn run(args: &RescoreArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let archive = Archive::open(&args.run)?;
    let (file, inspection) = options::component(&args.plugin, output)?;
    let kind = inspection.kind;
    // Random streams are keyed by the name, so a plugin that is to repeat a reward gets the reward's.
    let used = options::plugin_use(&file, args.compare.clone(), args.config.read(serde_json::Map::new())?);
    let log = Arc::new(PluginLog::new(output));
    let host = plugins::host(archive.recipe.recipe.seed, Arc::clone(&log) as _)?;
    let trust = Trust::new(&archive.recipe.recipe.trust)?.and(&args.trust)?;
    let factory = Plugins::new(host, archive.recipe.folder.clone(), trust);
    let subject = match kind {
        PluginKind::Reward => Subject::Reward(factory.reward(&used).map_err(plugins::unboxed)?),
        PluginKind::Shaper => {
            let shapes = if matches!(args.reads, Some(Reads::Advantage)) { ShapedValue::Advantage } else { ShapedValue::Reward };
            Subject::Shaper(factory.shaper(&used).map_err(plugins::unboxed)?, shapes)
        }
        PluginKind::Filter => {
            let reads = match args.reads {
                None | Some(Reads::Raw) => FilterStage::Raw,
                Some(Reads::Shaped) => FilterStage::Shaped,
                Some(Reads::Advantage) => FilterStage::Advantage,
            };
            Subject::Filter(factory.filter(&used).map_err(plugins::unboxed)?, reads)
        }
        PluginKind::Judge | PluginKind::Tool => {
            let error = Diagnostic::usage(
                "usage.kind",
                format!("`{}` is a {kind}; a run is rescored by a reward, shaper or filter", args.plugin),
            );
            return Err(error.hint("judges answer files of rows: `plumb judge`").into());
        }
    };
    let against = args.compare.as_deref().unwrap_or_else(|| subject.counterpart());
    let rescored = rescore(&archive, &args.select.selection(), &subject, against)?;
    log.finish();
    if let Some(out) = &args.out {
        write(out, &rescored)?;
    }
    let largest = rescored.largest(args.largest);
    if output.json {
        let data = json!({ "summary": rescored, "largest": largest });
        output.data(json!({ "type": "rescore", "v": 1, "data": data }).to_string())?;
    } else {
        output.data(text(&args.plugin, &rescored, &largest))?;
    }
    Ok(ExitStatus::Success)
}

fn write(path: &Path, rescored: &Rescored) -> anyhow::Result<()> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
        rescored.table().write(path)?;
        return Ok(());
    }
    let mut sink = Sink::open(Some(path))?;
    for row in &rescored.rows {
        sink.line(&serde_json::to_string(row)?)?;
    }
    Ok(sink.finish()?)
}

fn text(asked: &str, rescored: &Rescored, largest: &[&RescoredRow]) -> String {
    let Rescored { plugin, against, steps, comparison: c, scored, abstained, failed, codes, .. } = rescored;
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let share = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{:.1} %", 100.0 * value));
    let codes: Vec<String> = codes.iter().map(|(code, rows)| format!("{code} {rows}")).collect();
    let codes = if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) };
    let mut lines = vec![
        format!(
            "{} `{asked}` (sha256 {:.8}) against `{against}`: {} rows of {steps} steps, {} with both values",
            plugin.kind, plugin.digest, c.rows, c.both
        ),
        format!("  scored {scored}, abstained {abstained}, failed {failed}{codes}"),
        format!("  mean             {} recorded, {} now", number(c.mean_old), number(c.mean_new)),
        format!("  std              {} recorded, {} now", number(c.std_old), number(c.std_new)),
        format!("  equal values     {}", share(c.equal)),
        format!("  same order       {}", share(c.agreement)),
        format!("  rank correlation {}", number(c.spearman)),
        format!("  drift            {}", number(c.drift)),
        format!("  changed winners  {}", share(c.changed_winners)),
    ];
    for row in largest {
        lines.push(format!("step {}, id {:#x}: {} recorded, {} now", row.step, row.row_id, number(row.old), number(row.new)));
        lines.push(format!("  prompt     {}", clip(&row.prompt)));
        lines.push(format!("  completion {}", clip(&row.completion)));
    }
    lines.join("\n")
}

/// The beginning of a text, on one line.
fn clip(text: &str) -> String {
    const SHOWN: usize = 100;
    let shown: String = text.chars().take(SHOWN).collect();
    let more = if text.chars().nth(SHOWN).is_some() { "..." } else { "" };
    format!("{shown:?}{more}")
}
