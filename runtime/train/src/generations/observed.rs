//! What the plugins of a stage were asked in a step and what they said: the material of shadows, comparisons, circuit breakers and
//! poison cases.

use std::sync::Arc;

use plumb_core::{Batch, Outcome, PluginError, PluginKind, RowFault};

use crate::pipeline::rows::{Scores, StepRows, batch};
use crate::plugins::AnyPlugin;

/// A batch that a plugin was asked about, with one outcome per row.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Name of the plugin in the run.
    pub name: String,
    /// Its kind.
    pub kind: PluginKind,
    /// What it was asked.
    pub batch: Arc<Batch>,
    /// What it said: a reward, a judge's verdict, a shaped value (the mean over tokens where it gave one per token), or a filter's
    /// weight, which is 0 for a row that it drops. All rows failed when the plugin failed as a whole.
    pub outcomes: Vec<Outcome>,
}

impl Observed {
    /// Rows without an answer.
    pub fn failed(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_))).count()
    }

    /// The answers as numbers.
    pub fn values(&self) -> Vec<Option<f64>> {
        self.outcomes.iter().map(Outcome::value).collect()
    }
}

/// What reward plugins and judges were asked in a step, all groups as one batch, and what they said.
pub fn of_rewards(rows: &StepRows) -> Vec<Observed> {
    let mut refs = rows.rows();
    for (row, sampled) in &rows.sampled {
        refs[*row].completion = sampled;
    }
    let whole = Arc::new(batch(rows.step, rows.stage, rows.columns, &refs));
    let observed = |scores: &Scores| Observed {
        name: scores.name.clone(),
        kind: if scores.judgement.is_some() { PluginKind::Judge } else { PluginKind::Reward },
        batch: Arc::clone(&whole),
        outcomes: scores.outcomes.clone(),
    };
    rows.scores.iter().map(observed).collect()
}

/// Asks a plugin about a batch, and reads its answer as [`Observed::outcomes`] says. A reward plugin starts at once and is waited
/// for by the call of what is returned.
///
/// # Panics
/// For a judge, which cannot answer without models.
pub fn ask(plugin: &AnyPlugin, batch: &Batch) -> Box<dyn FnOnce() -> Vec<Outcome>> {
    let rows = batch.rows();
    match plugin {
        AnyPlugin::Reward(reward) => {
            let pending = reward.submit(batch.clone());
            Box::new(move || of_answer(pending.wait().map(|rewards| rewards.outcomes), rows))
        }
        AnyPlugin::Shaper(shaper) => {
            let outcomes = of_answer(shaper.shape(batch).map(|shaped| shaped_outcomes(&shaped, rows)), rows);
            Box::new(move || outcomes)
        }
        AnyPlugin::Filter(filter) => {
            let outcomes = of_answer(filter.select(batch).map(|decision| filter_outcomes(&decision)), rows);
            Box::new(move || outcomes)
        }
        AnyPlugin::Judge(_) => unreachable!("judges are asked by the pipeline, which has the models"),
    }
}

/// One outcome per row, whatever the answer was.
fn of_answer(answer: Result<Vec<Outcome>, PluginError>, rows: usize) -> Vec<Outcome> {
    match answer {
        Ok(outcomes) if outcomes.len() == rows => outcomes,
        Ok(outcomes) => {
            let message = format!("answered {} rows of {rows}", outcomes.len());
            failed(RowFault { code: "wrong_count".into(), message }, rows)
        }
        Err(error) => failed_as_a_whole(&error, rows),
    }
}

/// The outcomes of a plugin that failed as a whole.
pub fn failed_as_a_whole(error: &PluginError, rows: usize) -> Vec<Outcome> {
    failed(RowFault { code: error.fault.code().into(), message: error.fault.to_string() }, rows)
}

fn failed(fault: RowFault, rows: usize) -> Vec<Outcome> {
    vec![Outcome::Failed(fault); rows]
}

/// A shaper's answer by row.
pub fn shaped_outcomes(shaped: &plumb_core::Shaped, rows: usize) -> Vec<Outcome> {
    let mean = |tokens: &[f32]| tokens.iter().map(|&value| f64::from(value)).sum::<f64>() / tokens.len().max(1) as f64;
    let value = |row: usize| match (&shaped.values, &shaped.token_values) {
        (Some(values), _) => values.get(row).copied(),
        (None, Some(tokens)) => (row < tokens.len()).then(|| mean(tokens.row(row))),
        (None, None) => None,
    };
    let outcome = |row: usize| match shaped.faults.iter().find(|(at, _)| *at as usize == row) {
        Some((_, fault)) => Outcome::Failed(fault.clone()),
        None => value(row).map_or_else(
            || Outcome::Failed(RowFault { code: "wrong_count".into(), message: "gave no value".into() }),
            Outcome::Scored,
        ),
    };
    (0..rows).map(outcome).collect()
}

/// A filter's answer by row.
pub fn filter_outcomes(decision: &plumb_core::Decision) -> Vec<Outcome> {
    let weight = |row: usize| decision.weights.as_ref().and_then(|weights| weights.get(row)).copied().unwrap_or(1.0);
    decision.keep.iter().enumerate().map(|(row, &keep)| Outcome::Scored(if keep { weight(row) } else { 0.0 })).collect()
}
