//! Rewards of completions, while others are still being decoded.

use std::time::Instant;

use plumb_core::feedback::{MAX_PARTS, PluginFault, Span};
use plumb_core::services::Models;
use plumb_core::{Batch, Outcome, Pending, PluginError, RewardFn, Rewards, RowFault};

use super::StepModels;
use super::rows::Scores;
use super::{expect_len, judging};
use crate::error::{Error, Result};
use crate::plugins::{JudgeSlot, RewardSlot, StagePlugins};

type Answer = Pending<Result<Rewards, PluginError>>;

/// Rewards on their way: submitted when a group was finished, collected when all are.
///
/// Models are busy with rollouts until then. So rewards that may ask models get their groups, and judges the whole step, when
/// everything is collected.
pub struct Scoring<'a> {
    plugins: &'a StagePlugins,
    /// By group, then by reward; None where the reward waits for the models.
    pending: Vec<Option<(Batch, Vec<Option<Answer>>)>>,
}

/// What rewards and judges said.
pub struct Collected {
    /// Rewards in the recipe's order, then judges.
    pub scores: Vec<Scores>,
    /// Numbers about the judges' work.
    pub metrics: Vec<(String, f64)>,
    /// Seconds waited.
    pub waited_s: f64,
}

impl<'a> Scoring<'a> {
    /// Nothing submitted yet, of `groups` groups.
    pub fn new(plugins: &'a StagePlugins, groups: usize) -> Self {
        Scoring { plugins, pending: (0..groups).map(|_| None).collect() }
    }

    /// Hands a finished group to every reward plugin that asks no model; returns at once.
    pub fn submit(&mut self, group: usize, batch: Batch) {
        let submit = |reward: &RewardSlot| (!reward.plugin.asks_models()).then(|| reward.plugin.submit(batch.clone()));
        let answers = self.plugins.rewards.iter().map(submit).collect();
        self.pending[group] = Some((batch, answers));
    }

    /// Waits for all answers, in the order of the groups, and for the judges' verdicts over `all` groups together.
    ///
    /// # Errors
    /// [`Error::Plugin`] when the host failed; [`Error::Answer`] for an answer of the wrong length.
    ///
    /// # Panics
    /// When a group was never submitted.
    pub fn collect(self, step: u64, all: impl FnOnce() -> Batch, models: &mut impl StepModels) -> Result<Collected> {
        let start = Instant::now();
        let StagePlugins { rewards, judges, .. } = self.plugins;
        let all = (!judges.is_empty()).then(all);
        let pending = self.pending;
        let asks = !judges.is_empty() || rewards.iter().any(|reward| reward.plugin.asks_models());
        let work = |models: &dyn Models| wait(step, rewards, judges, pending, all, models);
        let (scores, metrics) = if asks { models.while_served(work) } else { work(&plumb_core::services::NoModels) }?;
        Ok(Collected { scores, metrics, waited_s: start.elapsed().as_secs_f64() })
    }
}

fn wait(
    step: u64,
    rewards: &[RewardSlot],
    judges: &[JudgeSlot],
    mut pending: Vec<Option<(Batch, Vec<Option<Answer>>)>>,
    all: Option<Batch>,
    models: &dyn Models,
) -> Result<(Vec<Scores>, Vec<(String, f64)>)> {
    for (batch, answers) in pending.iter_mut().flatten() {
        for (answer, reward) in answers.iter_mut().zip(rewards) {
            answer.get_or_insert_with(|| reward.plugin.submit(batch.clone()));
        }
    }
    let (judged, metrics) = match all {
        Some(batch) => judging::judge(step, judges, batch, models)?,
        None => Default::default(),
    };
    let mut scores: Vec<Scores> = rewards.iter().map(|r| Scores { name: r.name.clone(), ..Scores::default() }).collect();
    for pending in pending {
        let (batch, answers) = pending.expect("every group was submitted");
        for ((answer, scores), reward) in answers.into_iter().flatten().zip(&mut scores).zip(rewards) {
            add_answer(scores, answer.wait(), batch.rows(), &*reward.plugin, step)?;
        }
    }
    scores.extend(judged);
    Ok((scores, metrics))
}

/// Adds a group's answer. A plugin that failed as a whole failed on every row; a host that failed ends the run. Parts beyond
/// [`MAX_PARTS`] are left out.
fn add_answer(
    scores: &mut Scores,
    answer: Result<Rewards, PluginError>,
    rows: usize,
    plugin: &dyn RewardFn,
    step: u64,
) -> Result<()> {
    let rewards = checked_rewards(answer, rows, plugin, step)?;
    let before = scores.outcomes.len();
    scores.outcomes.extend(rewards.outcomes);
    for (name, values) in rewards.parts {
        expect_len(values.len(), rows, "values of a part", plugin, step)?;
        if let Some((_, all)) = scores.parts.iter_mut().find(|(have, _)| *have == name) {
            all.extend(values);
        } else if scores.parts.len() < MAX_PARTS {
            let mut all = vec![f64::NAN; before];
            all.extend(values);
            scores.parts.push((name, all));
        }
    }
    for (_, values) in &mut scores.parts {
        values.resize(before + rows, f64::NAN);
    }
    let inside = rewards.spans.into_iter().filter(|span| (span.row as usize) < rows);
    scores.spans.extend(inside.map(|span| Span { row: span.row + before as u32, ..span }));
    Ok(())
}

/// An answer with one outcome per row, or the error that ends the run.
pub(crate) fn checked_rewards(
    answer: Result<Rewards, PluginError>,
    rows: usize,
    plugin: &dyn RewardFn,
    step: u64,
) -> Result<Rewards> {
    let rewards = match answer {
        Ok(rewards) => rewards,
        Err(source @ PluginError { fault: PluginFault::Host { .. }, .. }) => return Err(Error::Plugin { step, source }),
        Err(PluginError { fault, .. }) => {
            let fault = RowFault { code: fault.code().into(), message: fault.to_string() };
            Rewards { outcomes: vec![Outcome::Failed(fault); rows], ..Rewards::default() }
        }
    };
    expect_len(rewards.outcomes.len(), rows, "outcomes", plugin, step)?;
    Ok(rewards)
}
