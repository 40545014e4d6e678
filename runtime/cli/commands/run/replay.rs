//! `plumb run replay`: whether the plugins said what the ledger has.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use plumb_train::archive::Archive;
use plumb_train::models::RecordedModels;
use plumb_train::replay::{Difference, Replayed, replay};
use serde_json::{Value, json};

use super::options::SelectArgs;
use crate::exit::ExitStatus;
use crate::output::Output;
use crate::plugins::{self, Plugins};
use crate::trust::Trust;

/// Ask a run's plugins again and compare every answer with the ledger, bit for bit.
///
/// Verifies the ledger's hash chain, then hands the recorded completions to the plugins that were in force at each step, swaps and
/// rollbacks included, and compares rewards, raw, shaped, advantages, weights and decisions. Models are not asked: their answers are
/// in the ledger. Ends with 0 when all values are identical, with 1 at the first that is not.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run replay runs/quickstart
  plumb run replay runs/quickstart --steps 40..60 --json")]
pub struct ReplayArgs {
    /// The run's folder
    pub run: PathBuf,
    /// Which steps to compare. Plugins with state are asked about those before too, silently
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Runs the command.
pub fn run(args: &ReplayArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let archive = Archive::open(&args.run)?;
    let recipe = &archive.recipe;
    // What plugins log they have logged in the run.
    let (models, trust) = (Arc::new(RecordedModels::default()), Trust::new(&recipe.recipe.trust)?);
    let host = plugins::host_with_models(recipe.recipe.seed, Arc::new(plumb_host::Discard), Arc::clone(&models) as _)?;
    let mut factory = Plugins::new(host, recipe.folder.clone(), trust);
    let kept = plugins::kept_tools(&archive.run_dir, archive.tools.iter().map(|tool| tool.id.clone()))?;
    factory.load_tools(&recipe.recipe.tools, &kept)?;
    let last = archive.stages.last().map_or(0, |span| span.last);
    let bar = output.bar(last, "steps");
    let replayed = replay(&archive, &args.select.selection(), &factory, &models, &mut |step| bar.set_position(step))?;
    bar.finish_and_clear();
    if output.json {
        let data = serde_json::to_value(&replayed)?;
        output.data(json!({ "type": "replay", "v": 1, "data": data }).to_string())?;
    } else {
        output.data(text(&replayed))?;
    }
    Ok(if replayed.difference.is_some() { ExitStatus::No } else { ExitStatus::Success })
}

fn text(replayed: &Replayed) -> String {
    let Replayed { steps, values, records, head, .. } = replayed;
    let count = |n: u64, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    match &replayed.difference {
        None => {
            let (steps, values) = (count(*steps, "step"), count(*values, "value"));
            format!(
                "{steps}, {values} identical\nledger of {records} records, the chain is whole, SHA-256 of the last line {head}"
            )
        }
        Some(difference) => difference_text(difference, *values),
    }
}

fn difference_text(difference: &Difference, values: u64) -> String {
    let Difference { stage, step, row, row_id, value, recorded, recomputed, plugins, completions_changed, refilled } = difference;
    let row = row.zip(*row_id).map_or_else(String::new, |(row, id)| format!(", row {row} (id {id:#x})"));
    let shown = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        value => value.to_string(),
    };
    let mut lines = vec![
        format!("stage `{stage}`, step {step}{row}: {value} differs, after {values} identical values"),
        format!("  recorded    {}", shown(recorded)),
        format!("  recomputed  {}", shown(recomputed)),
    ];
    lines.extend(
        plugins.iter().map(|plugin| format!("  by          {} `{}`, sha256 {}", plugin.kind, plugin.name, plugin.digest)),
    );
    if *completions_changed {
        lines.push("  the step's file of completions is not the one that the run wrote".into());
    }
    if *refilled {
        lines.push(
            "  the step was refilled: judges saw groups that are not on record, so that their verdicts need not repeat".into(),
        );
    }
    lines.join("\n")
}
