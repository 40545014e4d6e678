//! Filters over a stage's data, before its first step.
//!
//! A filter with `scope = "dataset"` sees the rows twice, in batches of at most [`BATCH_ROWS`], each row a group of its own: with the
//! attribute `pass` = `observe` over all of them, whose answers do not count, and then with `select`, where a row that is not kept leaves
//! the stage's data. After each batch the step ends for the filter, so state and `kv` last from batch to batch.

use plumb_core::feedback::PluginFault;
use plumb_core::recipe::{FilterScope, StepPolicy};
use plumb_core::{Batch, Column, Decision, PluginError, Texts};
use plumb_model::Tokenizer;

use super::{StepModels, expect_len};
use crate::error::{Error, Result};
use crate::plugins::{FilterSlot, StagePlugins};
use crate::stage::StageData;

/// Most rows of a batch.
pub const BATCH_ROWS: usize = 1024;

/// What one filter chose.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Name of the filter.
    pub filter: String,
    /// Rows that it saw.
    pub rows: usize,
    /// Rows that leave the stage's data, as indices into [`StageData::examples`], ascending.
    pub dropped: Vec<usize>,
}

/// Lets the stage's dataset filters choose, each among the rows that those before it left.
///
/// # Errors
/// [`Error::Plugin`] and [`Error::Answer`] when a filter fails, unless its `on_failure` is `pass-through`: there is no step to skip
/// yet.
pub fn choose(
    stage: &str,
    data: &StageData,
    tokenizer: &Tokenizer,
    plugins: &StagePlugins,
    models: &mut impl StepModels,
) -> Result<Vec<Choice>> {
    let mut kept: Vec<usize> = (0..data.examples.len()).collect();
    let mut choices = Vec::new();
    for slot in plugins.filters.iter().filter(|filter| filter.scope == FilterScope::Dataset) {
        let rows = kept.len();
        let mut dropped = Vec::new();
        'passes: for pass in ["observe", "select"] {
            for some in kept.chunks(BATCH_ROWS) {
                let mut batch = batch(stage, data, tokenizer, some);
                batch.attrs.insert("scope".into(), "dataset".into());
                batch.attrs.insert("pass".into(), pass.into());
                match decide(slot, &batch, models) {
                    Ok(decision) if pass == "select" => {
                        dropped.extend(some.iter().zip(decision.keep).filter(|(_, keep)| !keep).map(|(&row, _)| row));
                    }
                    Ok(_) => {}
                    Err(error) if may_pass(slot, &error) => {
                        dropped.clear();
                        slot.plugin.retract();
                        break 'passes;
                    }
                    Err(error) => return Err(error),
                }
                slot.plugin.end_step();
                // Numbers of batches before the first step belong to no step.
                slot.plugin.take_metrics();
            }
        }
        kept.retain(|row| dropped.binary_search(row).is_err());
        choices.push(Choice { filter: slot.name.clone(), rows, dropped });
    }
    Ok(choices)
}

fn may_pass(slot: &FilterSlot, error: &Error) -> bool {
    let host = matches!(error, Error::Plugin { source: PluginError { fault: PluginFault::Host { .. }, .. }, .. });
    slot.on_failure == StepPolicy::PassThrough && !host
}

fn decide(slot: &FilterSlot, batch: &Batch, models: &mut impl StepModels) -> Result<Decision> {
    let select = || slot.plugin.select(batch);
    let decision = if slot.plugin.asks_models() { models.while_served(|_| select()) } else { select() };
    let decision = decision.map_err(|source| Error::Plugin { step: batch.step, source })?;
    expect_len(decision.keep.len(), batch.rows(), "decisions", &*slot.plugin, batch.step)?;
    Ok(decision)
}

/// Uppermost bits of a data row's id, which no completion has.
const DATA_ROW: u64 = 0b01 << 62;

/// Data rows with their columns as text: `prompt`, the data's own, and `completion` where the stage learns from it.
fn batch(stage: &str, data: &StageData, tokenizer: &Tokenizer, rows: &[usize]) -> Batch {
    let examples = || rows.iter().map(|&row| &data.examples[row]);
    let ids = examples().map(|example| DATA_ROW | example.prompt.id).collect();
    let mut batch = Batch::new(0, ids, (1..=rows.len() as u32).collect());
    batch.attrs.insert("recipe_stage".into(), stage.into());
    batch.insert("prompt", Column::Text(examples().map(|example| example.prompt_text.as_bytes()).collect::<Texts>()));
    for name in &data.columns {
        let text = examples().map(|example| example.row.text(name).into_owned());
        batch.insert(name, Column::Text(text.collect::<Texts>()));
    }
    if !data.completions.is_empty() {
        let text = rows.iter().map(|&row| tokenizer.decode(&data.completions[row]));
        batch.insert("completion", Column::Text(text.collect::<Texts>()));
        let tokens = rows.iter().map(|&row| data.completions[row].len() as u32);
        batch.insert("completion_tokens", Column::U32(tokens.collect()));
    }
    batch
}
