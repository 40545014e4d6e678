//! Filters: which rows the loss sees and with which weight, preference pairs, new texts, and groups to sample again.

use std::collections::BTreeMap;

use plumb_core::feedback::{Pairs, Relabel};
use plumb_core::recipe::FilterStage;
use plumb_core::{Batch, Column, Decision};

use super::rows::StepRows;
use super::{Assessed, StepModels, answer_error, call, expect_len};
use crate::error::{Error, Result};
use crate::generations::observed::filter_outcomes;
use crate::plugins::FilterSlot;

/// A filter's statement that one completion is better than another, which may be an answer to another prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Name of the filter.
    pub filter: String,
    /// Row of the step that is preferred.
    pub chosen: usize,
    /// Row that it is preferred to.
    pub rejected: usize,
    /// Probability that `chosen` is better.
    pub probability: f64,
    /// By how much.
    pub margin: f64,
    /// Depth or grade of the comparison.
    pub level: u32,
}

/// Lets a filter decide over the live rows.
///
/// # Errors
/// As [`call`].
pub fn select(rows: &mut StepRows, slot: &FilterSlot, models: &mut impl StepModels, assessed: &mut Assessed) -> Result<()> {
    let (step, live) = (rows.step, rows.live());
    if live.is_empty() {
        return Ok(());
    }
    let mut batch = rows.batch(&live, slot.reads);
    let stage = match slot.reads {
        FilterStage::Raw => "raw",
        FilterStage::Shaped => "shaped",
        FilterStage::Advantage => "advantage",
    };
    batch.attrs.insert("stage".into(), stage.into());
    let select = || slot.plugin.select(&batch);
    let accept = |decision: &Decision| check(slot, decision, &batch, step);
    let answer = call(&*slot.plugin, slot.on_failure, models, select, accept, rows, &live, assessed)?;
    let groups: Vec<usize> = batch.groups().map(|group| group.start).collect();
    assessed.observe(&*slot.plugin, batch, answer.as_ref().map(filter_outcomes));
    let Ok(decision) = answer else { return Ok(()) };

    let name = &slot.name;
    assessed.parts(name, &decision.parts);
    if let Some(weights) = &decision.weights {
        live.iter().zip(weights).for_each(|(&row, &weight)| rows.weights[row] *= weight);
    }
    if let Some(pairs) = decision.pairs {
        let before = assessed.pairs.len();
        assessed.pairs.extend((0..pairs.chosen.len()).map(|i| Pair {
            filter: name.clone(),
            chosen: live[pairs.chosen[i] as usize],
            rejected: live[pairs.rejected[i] as usize],
            probability: pairs.probability[i],
            margin: pairs.margin[i],
            level: pairs.level[i],
        }));
        assessed.metrics.push((format!("plugin/{name}/pairs"), (assessed.pairs.len() - before) as f64));
        assessed
            .notes
            .push(format!("filter `{name}` returned preference pairs: they are in `pairs/`; GRPO itself does not use them"));
    }
    for Relabel { column, rows: texts } in decision.relabels {
        assessed.metrics.push((format!("plugin/{name}/relabelled"), texts.len() as f64));
        for (i, text) in texts {
            relabel(rows, name, live[i as usize], &column, text, models)?;
        }
    }
    let places: Vec<usize> = rows.rows().iter().map(|row| row.place).collect();
    for &group in &decision.regenerate {
        assessed.unwanted.entry(places[live[groups[group as usize]]]).or_insert_with(|| name.clone());
    }
    let reasons: BTreeMap<usize, &str> = decision.reasons.iter().map(|(at, why)| (*at as usize, why.as_str())).collect();
    for (i, &row) in live.iter().enumerate().filter(|(i, _)| !decision.keep[*i]) {
        let why = reasons.get(&i).copied().unwrap_or("dropped");
        rows.drop_row(row, || format!("{name}: {why}"));
    }
    let kept = decision.keep.iter().filter(|&&keep| keep).count();
    assessed.metrics.push((format!("plugin/{name}/kept_ratio"), kept as f64 / live.len() as f64));
    Ok(())
}

/// Replaces a text. A new completion gets its own ids and log-probabilities, ended as the sampled one was.
fn relabel(
    rows: &mut StepRows,
    filter: &str,
    row: usize,
    column: &str,
    text: String,
    models: &mut impl StepModels,
) -> Result<()> {
    if column != "completion" {
        rows.relabels.entry(column.into()).or_default().insert(row, text);
        return Ok(());
    }
    let (place, index) = rows.locate(row);
    let group = &mut rows.groups[place];
    let rewritten = match models.rewrite(&group.prompt, &group.completions[index], text) {
        Ok(rewritten) => rewritten,
        // Too long, or with a character that the vocabulary does not have.
        Err(Error::Model(error)) => {
            rows.drop_row(row, || format!("{filter}: its new completion cannot be used ({error})"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let sampled = std::mem::replace(&mut group.completions[index], rewritten);
    let tokens = group.completions[index].tokens.len();
    // What was said of stretches and tokens of the old text says nothing about the new one.
    rows.spans.iter_mut().for_each(|(_, values)| values[row] = vec![0.0; tokens]);
    if let Some(advantages) = &mut rows.token_advantages {
        advantages[row] = vec![rows.advantages[row].unwrap_or(0.0) as f32; tokens];
    }
    rows.sampled.entry(row).or_insert(sampled);
    Ok(())
}

/// Whether an answer means something for this batch.
fn check(slot: &FilterSlot, decision: &Decision, batch: &Batch, step: u64) -> Result<()> {
    let (filter, rows) = (&*slot.plugin, batch.rows());
    let wrong = |reason: String| Err(answer_error(filter, step, reason));
    let outside = |row: &&u32| **row as usize >= rows;
    expect_len(decision.keep.len(), rows, "decisions", filter, step)?;
    if let Some(weights) = &decision.weights {
        expect_len(weights.len(), rows, "weights", filter, step)?;
        if let Some((row, weight)) = weights.iter().enumerate().find(|(_, weight)| !weight.is_finite()) {
            return wrong(format!("returned the weight {weight} for row {row}"));
        }
    }
    if let Some(Pairs { chosen, rejected, probability, margin, level }) = &decision.pairs {
        for (what, got) in [
            ("rejected rows", rejected.len()),
            ("probabilities", probability.len()),
            ("margins", margin.len()),
            ("levels", level.len()),
        ] {
            expect_len(got, chosen.len(), what, filter, step)?;
        }
        if let Some(row) = chosen.iter().chain(rejected).find(outside) {
            return wrong(format!("made a pair of row {row} of {rows}"));
        }
        for i in 0..chosen.len() {
            if chosen[i] == rejected[i] {
                return wrong(format!("prefers row {} to itself", chosen[i]));
            }
            if !(0.0..=1.0).contains(&probability[i]) || !margin[i].is_finite() {
                return wrong(format!("returned the probability {} and the margin {} for pair {i}", probability[i], margin[i]));
            }
        }
    }
    for Relabel { column, rows: texts } in &decision.relabels {
        if column == "prompt" {
            return wrong(
                "returned new texts for the column `prompt`: the loss is of completions given what the model read".into(),
            );
        }
        if !matches!(batch.column(column), Some(Column::Text(_))) || column == "finish" || column.starts_with("judge/") {
            return wrong(format!(
                "returned new texts for the column `{column}`, which is no text of the data or the completions"
            ));
        }
        if let Some((row, _)) = texts.iter().find(|(row, _)| *row as usize >= rows) {
            return wrong(format!("returned a new text for row {row} of {rows}"));
        }
    }
    match decision.regenerate.iter().find(|group| **group as usize >= batch.group_ends.len()) {
        Some(group) => wrong(format!("wants group {group} of {} sampled again", batch.group_ends.len())),
        None => Ok(()),
    }
}
