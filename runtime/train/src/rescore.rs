//! Another plugin's opinion of completions that are on record, beside the one that the run had.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_core::recipe::{FilterScope, FilterStage, ShapedValue, StepPolicy};
use plumb_core::services::NoModels;
use plumb_core::{Filter, Outcome, Plugin, PluginId, RewardFn, Shaper};
use plumb_methods::advantage::{Scaling, group_relative};
use serde::Serialize;

use crate::archive::{Archive, Selection};
use crate::compare::{Comparison, compare};
use crate::error::{Error, Result};
use crate::objective::registry::{self, trl_scaling};
use crate::pipeline::filtering::select;
use crate::pipeline::record::RecordedStep;
use crate::pipeline::scoring::checked_rewards;
use crate::pipeline::shaping::shape;
use crate::pipeline::{Assessed, spans};
use crate::plugins::{FilterSlot, ShaperSlot};
use crate::run::{Table, TableColumn};

/// A plugin to ask about recorded completions.
pub enum Subject {
    /// Scores the completions.
    Reward(Arc<dyn RewardFn>),
    /// Shapes the recorded raw rewards, or the advantages of the recorded shaped ones.
    Shaper(Arc<dyn Shaper>, ShapedValue),
    /// Chooses rows by the recorded values of that stage. Its answer is 1 for a row that it keeps and 0 for one that it drops.
    Filter(Arc<dyn Filter>, FilterStage),
}

impl Subject {
    fn plugin(&self) -> &dyn Plugin {
        match self {
            Subject::Reward(plugin) => &**plugin,
            Subject::Shaper(plugin, _) => &**plugin,
            Subject::Filter(plugin, _) => &**plugin,
        }
    }

    /// The recorded value that its answers are compared with unless another is asked for.
    pub fn counterpart(&self) -> &'static str {
        match self {
            Subject::Reward(_) => "raw",
            Subject::Shaper(_, ShapedValue::Reward) => "shaped",
            Subject::Shaper(_, ShapedValue::Advantage) => "advantage",
            Subject::Filter(..) => "kept",
        }
    }
}

/// What [`rescore`] found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rescored {
    /// The plugin that was asked.
    pub plugin: PluginId,
    /// Name of the recorded value.
    pub against: String,
    /// Steps that it was asked about.
    pub steps: u64,
    /// Recorded (old) and new values.
    pub comparison: Comparison,
    /// Rows that it gave a value.
    pub scored: usize,
    /// Rows that are not its case.
    pub abstained: usize,
    /// Rows that it could not do.
    pub failed: usize,
    /// Rows without a value, by code.
    pub codes: BTreeMap<String, usize>,
    /// All rows, in the order of the record.
    #[serde(skip)]
    pub rows: Vec<RescoredRow>,
}

/// A completion with both values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RescoredRow {
    /// Step of the run.
    pub step: u64,
    /// Id of the row, as in the file of completions.
    pub row_id: u64,
    /// Row of the data set.
    pub prompt_id: u64,
    /// What the model read.
    pub prompt: String,
    /// What it wrote.
    pub completion: String,
    /// The recorded value.
    pub old: Option<f64>,
    /// What the plugin says.
    pub new: Option<f64>,
    /// `scored`, `abstained` or `failed`.
    pub status: &'static str,
    /// Why there is no new value, or why a filter drops the row.
    pub reason: Option<String>,
}

impl Rescored {
    /// The rows whose values differ most, at most `n`; those with equal differences in the order of the record.
    pub fn largest(&self, n: usize) -> Vec<&RescoredRow> {
        let difference = |row: &RescoredRow| row.old.zip(row.new).map_or(0.0, |(old, new)| (new - old).abs());
        let mut rows: Vec<&RescoredRow> = self.rows.iter().filter(|row| difference(row) > 0.0).collect();
        rows.sort_by(|a, b| difference(b).total_cmp(&difference(a)));
        rows.truncate(n);
        rows
    }

    /// All rows as a table, with the columns of [`RescoredRow`].
    pub fn table(&self) -> Table {
        let mut table = Table::new(self.rows.len());
        let rows = || self.rows.iter();
        table.int("step", rows().map(|row| row.step));
        table.int("row_id", rows().map(|row| row.row_id));
        table.int("prompt_id", rows().map(|row| row.prompt_id));
        table.text("prompt", rows().map(|row| row.prompt.as_str()));
        table.text("completion", rows().map(|row| row.completion.as_str()));
        table.float("old", rows().map(|row| row.old));
        table.float("new", rows().map(|row| row.new));
        table.text("status", rows().map(|row| row.status));
        table.insert("reason", TableColumn::Text(rows().map(|row| row.reason.clone()).collect()));
        table
    }
}

/// Asks a plugin about the selected steps, one after the other, so that its state evolves as in training. `against` is the recorded
/// value to compare with: `raw`, `shaped`, `advantage`, `kept`, or a reward's name.
///
/// # Errors
/// [`Error::NoSteps`], [`Error::UnknownValue`]; [`Error::Plugin`] and [`Error::Answer`] as in training.
pub fn rescore(archive: &Archive, selection: &Selection, subject: &Subject, against: &str) -> Result<Rescored> {
    let (mut rows, mut ends, mut steps) = (Vec::<RescoredRow>::new(), Vec::new(), 0);
    for step in archive.steps(selection)? {
        let step = step?;
        let old = recorded(&step, against)?;
        let stage = archive.recipe.recipe.stages.iter().find(|stage| stage.name == step.record.stage);
        let scaling = stage.map_or_else(trl_scaling, |stage| registry::method(stage.algorithm).scaling(stage));
        let outcomes = ask(archive, subject, &step, scaling)?;
        subject.plugin().end_step();
        steps += 1;
        let recorded = step.rows();
        ends.extend(recorded.group_ends().iter().map(|end| end + rows.len() as u32));
        rows.extend(recorded.rows().into_iter().zip(old).zip(outcomes).map(|((row, old), (outcome, reason))| {
            let (status, reason) = match &outcome {
                Outcome::Scored(_) => ("scored", reason),
                Outcome::Abstained(fault) => ("abstained", Some(fault.code.clone())),
                Outcome::Failed(fault) => ("failed", Some(fault.code.clone())),
            };
            RescoredRow {
                step: step.record.step,
                row_id: row.id,
                prompt_id: row.example.prompt.id,
                prompt: row.example.prompt_text.clone(),
                completion: row.completion.text.clone(),
                old,
                new: outcome.value(),
                status,
                reason,
            }
        }));
    }
    let values = |of: fn(&RescoredRow) -> Option<f64>| rows.iter().map(of).collect::<Vec<_>>();
    let count = |status: &str| rows.iter().filter(|row| row.status == status).count();
    let mut codes = BTreeMap::new();
    for row in rows.iter().filter(|row| row.status != "scored") {
        *codes.entry(row.reason.clone().unwrap_or_default()).or_default() += 1;
    }
    Ok(Rescored {
        plugin: subject.plugin().id().clone(),
        against: against.to_owned(),
        steps,
        comparison: compare(&values(|row| row.old), &values(|row| row.new), &ends),
        scored: count("scored"),
        abstained: count("abstained"),
        failed: count("failed"),
        codes,
        rows,
    })
}

/// The recorded values of that name.
fn recorded(step: &RecordedStep, name: &str) -> Result<Vec<Option<f64>>> {
    let completions = &step.record.completions;
    let values = match name {
        "raw" => completions.iter().map(|completion| completion.raw).collect(),
        "shaped" => completions.iter().map(|completion| completion.shaped).collect(),
        "advantage" => completions.iter().map(|completion| completion.advantage).collect(),
        "kept" => completions.iter().map(|completion| Some(f64::from(u8::from(completion.kept)))).collect(),
        name => {
            let rows = step.rewarded_rows();
            let Some(scores) = rows.scores.iter().find(|scores| scores.name == name) else {
                let known = step.reward_names().into_iter().chain(["raw", "shaped", "advantage", "kept"].map(Into::into));
                return Err(Error::UnknownValue { name: name.into(), known: known.collect() });
            };
            scores.outcomes.iter().map(Outcome::value).collect()
        }
    };
    Ok(values)
}

/// One outcome per row, and a filter's reason for dropping it. Shapers and filters do not see rows that had left the step.
fn ask(
    archive: &Archive,
    subject: &Subject,
    step: &RecordedStep,
    scaling: Scaling<f64>,
) -> Result<Vec<(Outcome, Option<String>)>> {
    let mut rows = step.rewarded_rows();
    if rows.scores.iter().any(|scores| !scores.spans.is_empty()) {
        spans::align(&mut rows, archive.tokenizer()?);
    }
    let gone: Vec<bool> = rows.dropped.iter().map(Option::is_some).collect();
    let (mut assessed, mut models) = (Assessed::default(), NoModels);
    match subject {
        Subject::Reward(reward) => {
            // Asked about one group a call, as in training.
            let batches: Vec<_> = (0..rows.groups.len()).map(|place| rows.group_batch(place)).collect();
            let answers: Vec<_> = batches.iter().map(|batch| reward.submit(batch.clone())).collect();
            let mut outcomes = Vec::with_capacity(rows.len());
            for (answer, batch) in answers.into_iter().zip(&batches) {
                outcomes.extend(checked_rewards(answer.wait(), batch.rows(), &**reward, rows.step)?.outcomes);
            }
            return Ok(outcomes.into_iter().map(|outcome| (outcome, None)).collect());
        }
        Subject::Shaper(shaper, ShapedValue::Reward) => {
            rows.shaped = rows.raw.clone();
            rows.advantages.fill(None);
            shape(&mut rows, &slot(shaper, ShapedValue::Reward), &mut models, &mut assessed)?;
        }
        Subject::Shaper(shaper, ShapedValue::Advantage) => {
            let live: Vec<Option<f64>> = rows.shaped.iter().zip(&gone).map(|(value, gone)| value.filter(|_| !gone)).collect();
            rows.advantages = group_relative(&live, &rows.group_ends(), scaling).values;
            shape(&mut rows, &slot(shaper, ShapedValue::Advantage), &mut models, &mut assessed)?;
        }
        Subject::Filter(filter, reads) => {
            let (name, plugin) = (filter.id().name.clone(), Arc::clone(filter));
            let slot = FilterSlot { name, plugin, reads: *reads, scope: FilterScope::Step, on_failure: StepPolicy::Abort };
            select(&mut rows, &slot, &mut models, &mut assessed)?;
        }
    }
    let missing = |code: &str| Outcome::Failed(plumb_core::RowFault { code: code.into(), message: String::new() });
    let outcome = |row: usize| {
        let value = match subject {
            Subject::Shaper(_, ShapedValue::Advantage) => rows.advantages[row],
            _ => rows.shaped[row],
        };
        match (subject, &rows.dropped[row]) {
            _ if gone[row] => (missing("left-the-step"), None),
            (Subject::Filter(..), dropped) => (Outcome::Scored(f64::from(u8::from(dropped.is_none()))), dropped.clone()),
            (_, Some(reason)) => (missing(reason), None),
            (_, None) => (value.map_or_else(|| missing("no-value"), Outcome::Scored), None),
        }
    };
    Ok((0..rows.len()).map(outcome).collect())
}

/// A shaper as a stage has it; without a rule that lets a failure pass.
fn slot(shaper: &Arc<dyn Shaper>, shapes: ShapedValue) -> ShaperSlot {
    let (name, plugin) = (shaper.id().name.clone(), Arc::clone(shaper));
    ShaperSlot { name, plugin, shapes, on_failure: StepPolicy::Abort }
}
