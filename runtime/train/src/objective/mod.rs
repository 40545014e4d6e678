//! Algorithms: what a step learns from, and the loss over it. The loop around them is one ([`crate::trainer`]).

pub mod cpo;
pub mod distill;
pub mod dpo;
pub mod grpo;
pub mod kto;
pub mod online_dpo;
pub mod orpo;
pub(crate) mod pairs;
pub mod policy_gradient;
pub mod raft;
pub mod registry;
pub mod reward_model;
pub(crate) mod rollouts;
pub mod sft;
pub mod simpo;

use std::ops::Range;

use candle_core::{Device, Tensor};
use plumb_core::recipe::Stage;
use plumb_methods::loss::grpo::TokenStats;
use plumb_model::engine::Leaves;

use crate::error::Result;
use crate::generations::observed::Observed;
use crate::models::Served;
use crate::pack::{LossRow, parts};
use crate::plugins::StagePlugins;
use crate::run::{MetricSet, PairLine, StepRecord, Table};
use crate::stage::StageData;

/// What an algorithm brings to the loop.
pub trait Objective {
    /// Makes the batch number `batch` of the stage (from 0), for step `step` of the run, with the plugins in force.
    fn prepare(&mut self, models: &mut Served<'_>, plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson>;

    /// Optimizer steps that each batch serves.
    fn steps_per_batch(&self) -> u64 {
        1
    }

    /// What logits are divided by.
    fn temperature(&self) -> f32 {
        1.0
    }

    /// What the loss must see together; see [`Objective::loss`].
    fn grain(&self) -> Grain {
        Grain::Rows(1)
    }

    /// What the loss is over.
    fn leaf(&self) -> LeafKind {
        LeafKind::Logprobs
    }

    /// Loss of rows as a scalar graph over their log-probabilities, `[M]` in the order of [`crate::pack::pack`]. The rows are whole
    /// grains; losses of a step's grains add up. Where the objective is over [scores](LeafKind::Scores), it gets the rows' scores instead,
    /// `[rows]` in float64.
    fn loss(&self, logprobs: &Tensor, rows: &[LossRow]) -> candle_core::Result<Tensor>;

    /// Loss of some tokens of the rows as a scalar graph over their logits, `[tokens, V]`, where the objective is over
    /// [those](LeafKind::Logits); counts them too. Tokens are counted over the rows' completions, one after the other.
    fn loss_of_logits(
        &self,
        _logits: &Tensor,
        _rows: &[LossRow],
        _tokens: Range<usize>,
        _stats: &mut TokenStats,
    ) -> candle_core::Result<Tensor> {
        candle_core::bail!("the loss is not over logits")
    }

    /// Counts rows, with the log-probabilities and entropies that the loss saw. The rows are whole grains.
    fn count(&self, stats: &mut TokenStats, rows: &[LossRow], leaves: &Leaves);

    /// Counts the scores of rows that are whole grains.
    fn count_scores(&self, _stats: &mut TokenStats, _scores: &[f64]) {}

    /// Writes what was counted over an update.
    fn report(&self, stats: &TokenStats, metrics: &mut MetricSet);
}

/// What of the policy a loss is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafKind {
    /// Log-probabilities of the completions' tokens.
    Logprobs,
    /// Scores of the policy's head, one a row.
    Scores,
    /// Logits of each token of the completions over the whole vocabulary, a few tokens at a time.
    Logits,
}

/// What a loss is a function of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// So many rows that follow each other, at least 1: the loss is a sum over them.
    Rows(usize),
    /// All rows of one of [`Lesson::parts`]. Where these are more than one micro-batch, they are evaluated once more than otherwise.
    Part,
}

impl Grain {
    /// Rows that a micro-batch keeps together.
    pub(crate) fn rows(self) -> usize {
        match self {
            Grain::Rows(rows) => rows,
            Grain::Part => 1,
        }
    }
}

/// What one or more optimizer steps learn from.
#[derive(Default)]
pub struct Lesson {
    /// Completions that the loss sees; may be empty, and then nothing is learned.
    pub rows: Vec<LossRow>,
    /// The rows' division by `gradient_accumulation_steps`.
    pub parts: Vec<Range<usize>>,
    /// Tokens read, prompts included.
    pub tokens: u64,
    /// Numbers about the batch. Those that start with `time/`, `plugin/`, `judge/` or `rollout/` count for its first step alone: later
    /// ones spend no such time, call no plugin and sample nothing.
    pub metrics: Vec<(String, f64)>,
    /// For the ledger, all but the loss.
    pub record: StepRecord,
    /// For the folder of completions.
    pub table: Option<Table>,
    /// Preference pairs that filters made.
    pub pairs: Vec<PairLine>,
    /// What plugins were asked and what they said.
    pub observed: Vec<Observed>,
    /// Things to tell the user.
    pub messages: Vec<String>,
}

/// Calls `token` with each token of the rows: its row, its place in it, log-probability and entropy.
pub(crate) fn for_each_token(rows: &[LossRow], leaves: &Leaves, mut token: impl FnMut(&LossRow, usize, f32, f32)) {
    let places = rows.iter().flat_map(|row| (0..row.completion.len()).map(move |t| (row, t)));
    for ((row, t), (&logprob, &entropy)) in places.zip(leaves.logprobs.iter().zip(&leaves.entropies)) {
        token(row, t, logprob, entropy);
    }
}

/// What a step over these rows of the data learns from: a completion each.
pub(crate) fn completions_lesson(stage: &Stage, data: &StageData, chosen: &[usize], rows: Vec<LossRow>, step: u64) -> Lesson {
    let mut metrics = Vec::new();
    length_metrics(&rows.iter().map(|row| row.completion.len()).collect::<Vec<_>>(), &mut metrics);
    let prompt_ids = chosen.iter().map(|&i| data.examples[i].prompt.id).collect();
    Lesson {
        parts: parts(rows.len(), stage.optimizer.gradient_accumulation_steps),
        tokens: rows.iter().map(|row| (row.prompt.len() + row.completion.len()) as u64).sum(),
        rows,
        metrics,
        record: StepRecord { stage: stage.name.clone(), step, prompt_ids, ..StepRecord::default() },
        ..Lesson::default()
    }
}

/// One float32 per token of the rows, `[M]`; each list has a value per token, or one for all.
pub(crate) fn per_token<'a>(rows: &'a [LossRow], values: impl Fn(&'a LossRow) -> &'a [f32]) -> candle_core::Result<Tensor> {
    let mut flat = Vec::with_capacity(rows.iter().map(|row| row.completion.len()).sum());
    for row in rows {
        match values(row) {
            &[value] => flat.extend(std::iter::repeat_n(value, row.completion.len())),
            values => flat.extend_from_slice(values),
        }
    }
    Tensor::new(flat, &Device::Cpu)
}

/// The rows' weights, one per token, `[M]`.
pub(crate) fn token_weights(rows: &[LossRow]) -> candle_core::Result<Tensor> {
    let weights = rows.iter().flat_map(|row| std::iter::repeat_n(row.token_weight as f32, row.completion.len()));
    Tensor::new(weights.collect::<Vec<f32>>(), &Device::Cpu)
}

/// Sets `completions/mean_length`, `min_length` and `max_length`.
pub(crate) fn length_metrics(lengths: &[usize], metrics: &mut Vec<(String, f64)>) {
    if lengths.is_empty() {
        return;
    }
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    let (min, max) = (lengths.iter().min().copied().unwrap_or(0), lengths.iter().max().copied().unwrap_or(0));
    for (name, value) in [("mean", mean), ("min", min as f64), ("max", max as f64)] {
        metrics.push((format!("completions/{name}_length"), value));
    }
}
