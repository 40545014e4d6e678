//! One step's feedback: from completions to the advantages and weights that the loss sees.
//!
//! ```text
//! rollouts ─► rewards, group by group while others are still being decoded ─► combine ─► shapers (reward)
//!          ─► group-relative advantages ─► shapers (advantage) ─► filters, each reading the value it names ─► loss
//! ```
//! Group statistics are over all rows that have a reward. Filters come after them and choose what the loss sees, so keeping the
//! best of a group does not change what "best" is measured against.

pub mod combine;
pub mod record;
pub mod rows;

use std::collections::BTreeMap;
use std::time::Instant;

use plumb_core::feedback::{MAX_PARTS, PluginFault};
use plumb_core::recipe::{FilterStage, ScaleRewards, ShapedValue};
use plumb_core::rollout::Group;
use plumb_core::{Batch, Filter, Outcome, Pending, Plugin, PluginError, RewardFn, Rewards, RowFault, Shaper};

use crate::advantage::{self, Advantages, Scaling};
use crate::error::{Error, Result};
use crate::plugins::{RewardSlot, StagePlugins};
use rows::{Scores, StepRows};

type Answer = Pending<Result<Rewards, PluginError>>;

/// Rewards on their way: submitted when a group was finished, collected when all are.
pub struct Scoring<'a> {
    rewards: &'a [RewardSlot],
    /// By group, then by reward.
    pending: Vec<Option<(usize, Vec<Answer>)>>,
}

impl<'a> Scoring<'a> {
    /// Nothing submitted yet, of `groups` groups.
    pub fn new(rewards: &'a [RewardSlot], groups: usize) -> Self {
        Scoring { rewards, pending: (0..groups).map(|_| None).collect() }
    }

    /// Hands a finished group to every reward plugin; returns at once.
    pub fn submit(&mut self, group: usize, batch: &Batch) {
        let answers = self.rewards.iter().map(|reward| reward.plugin.submit(batch.clone())).collect();
        self.pending[group] = Some((batch.rows(), answers));
    }

    /// Waits for all answers, in the order of the groups, and returns them with the seconds waited.
    ///
    /// # Errors
    /// [`Error::Plugin`] when the host failed; [`Error::Answer`] for an answer of the wrong length.
    ///
    /// # Panics
    /// When a group was never submitted.
    pub fn collect(self, step: u64) -> Result<(Vec<Scores>, f64)> {
        let start = Instant::now();
        let mut scores: Vec<Scores> =
            self.rewards.iter().map(|r| Scores { name: r.name.clone(), outcomes: Vec::new(), parts: Vec::new() }).collect();
        for pending in self.pending {
            let (rows, answers) = pending.expect("every group was submitted");
            for ((answer, scores), reward) in answers.into_iter().zip(&mut scores).zip(self.rewards) {
                add_answer(scores, answer.wait(), rows, &*reward.plugin, step)?;
            }
        }
        Ok((scores, start.elapsed().as_secs_f64()))
    }
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

fn expect_len(got: usize, expected: usize, what: &str, plugin: &(impl Plugin + ?Sized), step: u64) -> Result<()> {
    if got == expected { Ok(()) } else { Err(answer_error(plugin, step, format!("returned {got} {what}, expected {expected}"))) }
}

fn answer_error(plugin: &(impl Plugin + ?Sized), step: u64, reason: String) -> Error {
    Error::Answer { step, kind: plugin.id().kind, plugin: plugin.id().name.clone(), reason }
}

/// Runs everything between scores and loss over `rows`, whose `scores` are in. Returns the groups' deviations.
///
/// # Errors
/// As [`combine::combine`]; [`Error::Plugin`] when a shaper or filter fails, [`Error::Answer`] when its answer means nothing here.
pub fn judge(rows: &mut StepRows, plugins: &StagePlugins, scale: ScaleRewards) -> Result<Judged> {
    let mut judged = Judged::default();
    combine::combine(rows, &plugins.rewards)?;
    for shaper in plugins.shapers.iter().filter(|shaper| shaper.shapes == ShapedValue::Reward) {
        shape(rows, &*shaper.plugin, ShapedValue::Reward, &mut judged)?;
    }
    let scaling = Scaling { by: scale, ddof: advantage::TRL_DDOF, epsilon: advantage::TRL_EPSILON };
    let live: Vec<Option<f64>> = (0..rows.len()).map(|i| rows.shaped[i].filter(|_| rows.dropped[i].is_none())).collect();
    let Advantages { values, group_std } = advantage::group_relative(&live, &rows.group_ends(), scaling);
    rows.advantages = values;
    judged.group_std = group_std;
    for shaper in plugins.shapers.iter().filter(|shaper| shaper.shapes == ShapedValue::Advantage) {
        shape(rows, &*shaper.plugin, ShapedValue::Advantage, &mut judged)?;
    }
    for filter in &plugins.filters {
        select(rows, &*filter.plugin, filter.reads, &mut judged)?;
    }
    Ok(judged)
}

/// What [`judge`] learned besides the rows' values.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Deviation of each group's shaped rewards; None for a group without any.
    pub group_std: Vec<Option<f64>>,
    /// Numbers for the metrics.
    pub metrics: Vec<(String, f64)>,
    /// What a plugin asked for that this algorithm has no use for.
    pub unused: Vec<String>,
}

impl Judged {
    fn parts(&mut self, plugin: &dyn Plugin, parts: &[(String, Vec<f64>)]) {
        let name = &plugin.id().name;
        for (part, values) in parts {
            self.metrics.push((format!("plugin/{name}/{part}"), finite_mean(values.iter().copied()).unwrap_or(f64::NAN)));
        }
    }
}

/// Mean of the finite values, if there are any.
pub fn finite_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    (!values.is_empty()).then(|| advantage::mean(&values))
}

/// Rows without a value by code, as `plugin/<name>/faults/<code>`. Codes are a plugin's own words, and each becomes a series in
/// the run's records: those that are no plain name of at most 64 letters, and those beyond [`FAULT_CODES`] in the alphabet's
/// order, are counted together as `other`.
pub fn fault_counts<'a>(plugin: &str, codes: impl Iterator<Item = &'a str>) -> Vec<(String, f64)> {
    let plain =
        |code: &str| (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    let mut counts = BTreeMap::<&str, f64>::new();
    for code in codes {
        *counts.entry(if plain(code) { code } else { OTHER_CODES }).or_default() += 1.0;
    }
    let mut other = counts.remove(OTHER_CODES).unwrap_or(0.0);
    while counts.len() > FAULT_CODES {
        other += counts.pop_last().map_or(0.0, |(_, rows)| rows);
    }
    if other > 0.0 {
        counts.insert(OTHER_CODES, other);
    }
    counts.into_iter().map(|(code, rows)| (format!("plugin/{plugin}/faults/{code}"), rows)).collect()
}

/// Codes of a plugin that are counted by themselves.
const FAULT_CODES: usize = 15;
const OTHER_CODES: &str = "other";

fn shape(rows: &mut StepRows, shaper: &dyn Shaper, shapes: ShapedValue, judged: &mut Judged) -> Result<()> {
    let (step, live) = (rows.step, rows.live());
    if live.is_empty() {
        return Ok(());
    }
    let (reads, name) = match shapes {
        ShapedValue::Reward => (FilterStage::Shaped, "reward"),
        ShapedValue::Advantage => (FilterStage::Advantage, "advantage"),
    };
    let mut batch = rows.batch(&live, reads);
    batch.attrs.insert("stage".into(), name.into());
    let shaped = shaper.shape(&batch).map_err(|source| Error::Plugin { step, source })?;
    judged.parts(shaper, &shaped.parts);
    let faulty: Vec<usize> = shaped.faults.iter().filter_map(|(row, _)| live.get(*row as usize).copied()).collect();
    judged.metrics.push((format!("plugin/{}/failed", shaper.id().name), faulty.len() as f64));
    judged.metrics.extend(fault_counts(&shaper.id().name, shaped.faults.iter().map(|(_, fault)| fault.code.as_str())));
    for (row, fault) in faulty.iter().zip(shaped.faults.iter().map(|(_, fault)| fault)) {
        rows.drop_row(*row, || format!("{}: {}", shaper.id().name, fault.code));
    }
    if let Some(tokens) = &shaped.token_values {
        if shapes == ShapedValue::Reward {
            let reason = "returned rewards per token; GRPO has one reward per completion (shape the advantage instead)";
            return Err(answer_error(shaper, step, reason.into()));
        }
        expect_len(tokens.len(), live.len(), "rows of token values", shaper, step)?;
        let completions = rows.rows().iter().map(|row| row.completion.tokens.len()).collect::<Vec<_>>();
        let mut all: Vec<Vec<f32>> =
            completions.iter().zip(&rows.advantages).map(|(&n, advantage)| vec![advantage.unwrap_or(0.0) as f32; n]).collect();
        for (i, &row) in live.iter().enumerate() {
            expect_len(tokens.row(i).len(), completions[row], "token values in a row", shaper, step)?;
            all[row] = tokens.row(i).to_vec();
            rows.advantages[row] = finite_mean(all[row].iter().map(|&value| f64::from(value)));
        }
        rows.token_advantages = Some(all);
    }
    let Some(values) = &shaped.values else {
        let message = "returned neither values nor token values";
        return if shaped.token_values.is_some() { Ok(()) } else { Err(answer_error(shaper, step, message.into())) };
    };
    expect_len(values.len(), live.len(), "values", shaper, step)?;
    for (&row, &value) in live.iter().zip(values) {
        if rows.dropped[row].is_some() {
            continue;
        }
        if !value.is_finite() {
            return Err(answer_error(shaper, step, format!("returned {value} for row {row}")));
        }
        match shapes {
            ShapedValue::Reward => rows.shaped[row] = Some(value),
            ShapedValue::Advantage => rows.advantages[row] = Some(value),
        }
    }
    if shapes == ShapedValue::Advantage && shaped.token_values.is_none() {
        // One advantage per completion replaces what an earlier shaper said about its tokens.
        rows.token_advantages = None;
    }
    Ok(())
}

fn select(rows: &mut StepRows, filter: &dyn Filter, reads: FilterStage, judged: &mut Judged) -> Result<()> {
    let (step, live) = (rows.step, rows.live());
    if live.is_empty() {
        return Ok(());
    }
    let mut batch = rows.batch(&live, reads);
    let name = match reads {
        FilterStage::Raw => "raw",
        FilterStage::Shaped => "shaped",
        FilterStage::Advantage => "advantage",
    };
    batch.attrs.insert("stage".into(), name.into());
    let decision = filter.select(&batch).map_err(|source| Error::Plugin { step, source })?;
    expect_len(decision.keep.len(), live.len(), "decisions", filter, step)?;
    judged.parts(filter, &decision.parts);
    if let Some(weights) = &decision.weights {
        expect_len(weights.len(), live.len(), "weights", filter, step)?;
        for (&row, &weight) in live.iter().zip(weights) {
            if !weight.is_finite() {
                return Err(answer_error(filter, step, format!("returned the weight {weight} for row {row}")));
            }
            rows.weights[row] *= weight;
        }
    }
    let id = &filter.id().name;
    let reasons: BTreeMap<usize, &str> = decision.reasons.iter().map(|(at, why)| (*at as usize, why.as_str())).collect();
    for (i, &row) in live.iter().enumerate().filter(|(i, _)| !decision.keep[*i]) {
        let why = reasons.get(&i).copied().unwrap_or("dropped");
        rows.drop_row(row, || format!("{id}: {why}"));
    }
    let kept = decision.keep.iter().filter(|&&keep| keep).count();
    judged.metrics.push((format!("plugin/{id}/kept_ratio"), kept as f64 / live.len() as f64));
    for (asked, what) in [
        (decision.pairs.is_some(), "preference pairs"),
        (!decision.relabels.is_empty(), "new texts for rows"),
        (!decision.regenerate.is_empty(), "groups to sample again"),
    ] {
        if asked {
            judged.unused.push(format!("filter `{id}` returned {what}, which GRPO has no use for"));
        }
    }
    Ok(())
}

/// Groups as they come from sampling, in any order, put in the order of their prompts.
///
/// # Panics
/// When a group is missing.
pub fn in_order(groups: Vec<Option<Group>>) -> Vec<Group> {
    groups.into_iter().map(|group| group.expect("the rollout engine answers every prompt")).collect()
}
