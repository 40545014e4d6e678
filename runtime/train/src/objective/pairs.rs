//! Losses over pairs of answers: what they share. An algorithm brings a [`PairLoss`]; [`Pairs`] makes an objective of it.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use plumb_methods::loss::dpo::{PairLogps, sequence_logps};
use plumb_methods::loss::grpo::TokenStats;
use plumb_model::engine::Leaves;

use super::registry::Start;
use super::{Grain, Lesson, Objective, completions_lesson};
use crate::error::Result;
use crate::models::Served;
use crate::pack::LossRow;
use crate::plugins::StagePlugins;
use crate::run::MetricSet;
use crate::stage::pair_rows;

/// A loss over pairs: the mean over a step's pairs.
pub(crate) trait PairLoss {
    /// Whether answers are compared with their log-probabilities under the policy as the stage began.
    fn with_reference(&self) -> bool {
        false
    }

    /// Pairs that the loss must see together; see [`Objective::grain`].
    fn grain(&self) -> Grain {
        Grain::Rows(2)
    }

    /// Weights of tokens in their answers' log-probabilities, of a chosen and a rejected answer of so many tokens.
    fn token_weights(&self, chosen: usize, rejected: usize) -> [Vec<f64>; 2];

    /// An answer's reward in the metrics is beta · (policy - reference).
    fn beta(&self) -> f64;

    /// Loss of each pair, `[P]`.
    fn losses(&self, terms: &PairTerms) -> candle_core::Result<Tensor>;

    /// Adds numbers of one pair to the metrics, besides those of all such losses: log-probabilities (chosen, rejected) under the policy, and the
    /// chosen answer's negative log-likelihood, a mean over its tokens.
    fn count(&self, _stats: &mut TokenStats, _policy: [f64; 2], _nll: f64) {}
}

/// Where pairs come from.
pub(crate) trait PairSource {
    /// What step `step` learns from, the batch number `batch` of the stage: rows in twos, without the reference's log-probabilities.
    fn lesson(
        &mut self,
        start: &Start<'_>,
        models: &mut Served<'_>,
        plugins: &StagePlugins,
        batch: u64,
        step: u64,
    ) -> Result<Lesson>;
}

/// The pairs of the data.
pub(crate) struct FromData;

impl PairSource for FromData {
    fn lesson(
        &mut self,
        start: &Start<'_>,
        _models: &mut Served<'_>,
        _plugins: &StagePlugins,
        batch: u64,
        step: u64,
    ) -> Result<Lesson> {
        Ok(pair_lesson(start, &start.sampler.batch(batch), step))
    }
}

/// What a loss over pairs is a function of; `[P]` of float64 each.
pub(crate) struct PairTerms {
    /// Log-probabilities by [`PairLoss::token_weights`], nats.
    pub policy: PairLogps,
    /// The same of the reference, without gradient; None where there is none.
    pub reference: Option<PairLogps>,
    /// Negative log-likelihood of the chosen answers, means over their tokens, nats.
    pub nll: Tensor,
    /// The column `margin`, 0 where a row has none.
    pub margins: Tensor,
}

/// The objective of a loss over pairs.
///
/// Rows come in twos, the chosen answer before the rejected one. Their `token_weight` is the pair's weight in the loss.
pub(crate) struct Pairs<'a, L, S> {
    pub start: Start<'a>,
    pub source: S,
    pub loss: L,
}

/// Weights of tokens in the sums of answers with so many tokens.
pub(crate) fn sum_weights(chosen: usize, rejected: usize) -> [Vec<f64>; 2] {
    [chosen, rejected].map(|tokens| vec![1.0; tokens])
}

/// Weights of tokens in the means of answers with so many tokens.
pub(crate) fn mean_weights(chosen: usize, rejected: usize) -> [Vec<f64>; 2] {
    [chosen, rejected].map(|tokens| vec![1.0 / tokens.max(1) as f64; tokens])
}

impl<L: PairLoss, S> Pairs<'_, L, S> {
    /// Weights of a pair's tokens in their sequences.
    fn weights_of(&self, pair: &[LossRow]) -> [Vec<f64>; 2] {
        self.loss.token_weights(pair[0].completion.len(), pair[1].completion.len())
    }
}

impl<L: PairLoss, S: PairSource> Objective for Pairs<'_, L, S> {
    fn prepare(&mut self, models: &mut Served<'_>, plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson> {
        let mut lesson = self.source.lesson(&self.start, models, plugins, batch, step)?;
        if self.loss.with_reference() {
            add_reference(models, &mut lesson, self.grain().rows(), self.temperature())?;
        }
        Ok(lesson)
    }

    fn grain(&self) -> Grain {
        self.loss.grain()
    }

    /// Sequences are summed and compared in float64: margins are small differences of large sums.
    fn loss(&self, logprobs: &Tensor, rows: &[LossRow]) -> candle_core::Result<Tensor> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.completion.len()).collect();
        let sequences = |tokens: &Tensor, weights: &dyn Fn(&[LossRow]) -> [Vec<f64>; 2]| {
            let weights: Vec<f64> = rows.chunks(2).flat_map(weights).flatten().collect();
            let both = sequence_logps(tokens, &Tensor::new(weights, &Device::Cpu)?, &lengths)?.reshape((rows.len() / 2, 2))?;
            let side = |i| both.narrow(1, i, 1)?.contiguous()?.squeeze(1);
            candle_core::Result::Ok(PairLogps { chosen: side(0)?, rejected: side(1)? })
        };
        let by_loss = |pair: &[LossRow]| self.weights_of(pair);
        let by_mean = |pair: &[LossRow]| mean_weights(pair[0].completion.len(), pair[1].completion.len());
        let tokens = logprobs.to_dtype(DType::F64)?;
        let reference = rows.iter().all(|row| !row.ref_logprobs.is_empty()).then(|| {
            let tokens = rows.iter().flat_map(|row| &row.ref_logprobs).map(|&logprob| f64::from(logprob));
            sequences(&Tensor::from_iter(tokens, &Device::Cpu)?, &by_loss)
        });
        let of_pairs = |value: fn(&LossRow) -> f64| Tensor::from_iter(rows.chunks(2).map(|pair| value(&pair[0])), &Device::Cpu);
        let losses = self.loss.losses(&PairTerms {
            policy: sequences(&tokens, &by_loss)?,
            reference: reference.transpose()?,
            nll: sequences(&tokens, &by_mean)?.chosen.neg()?,
            margins: of_pairs(|row| row.margin)?,
        })?;
        (losses * of_pairs(|row| row.token_weight)?)?.sum_all()?.to_dtype(logprobs.dtype())
    }

    fn count(&self, stats: &mut TokenStats, rows: &[LossRow], leaves: &Leaves) {
        stats.add_entropies(&leaves.entropies);
        let mut rest = leaves.logprobs.as_slice();
        for pair in rows.chunks(2) {
            let (mut policy, mut reference, mut likelihoods) = ([0.0; 2], [0.0; 2], [0.0; 2]);
            for (i, (row, weights)) in pair.iter().zip(self.weights_of(pair)).enumerate() {
                let (own, after) = rest.split_at(row.completion.len());
                rest = after;
                let sum = |logprobs: &[f32]| logprobs.iter().zip(&weights).map(|(&l, w)| f64::from(l) * w).sum::<f64>();
                (policy[i], reference[i]) = (sum(own), sum(&row.ref_logprobs));
                likelihoods[i] = own.iter().map(|&l| f64::from(l)).sum::<f64>() / own.len().max(1) as f64;
            }
            stats.pairs.add(self.loss.beta(), policy, reference);
            self.loss.count(stats, policy, -likelihoods[0]);
        }
    }

    fn report(&self, stats: &TokenStats, metrics: &mut MetricSet) {
        metrics.set("entropy", stats.entropy / stats.tokens);
        stats.pairs.means().into_iter().for_each(|(name, mean)| metrics.set(name, mean));
        stats.means.iter().for_each(|(name, mean)| metrics.set(name, mean));
    }
}

/// What a step over these pairs of the data learns from: two rows a pair, the chosen answer before the rejected one.
pub(crate) fn pair_lesson(start: &Start<'_>, chosen: &[usize], step: u64) -> Lesson {
    let (stage, data) = (start.stage, start.data);
    let (rows, parts) = pair_rows(data, chosen, stage.optimizer.gradient_accumulation_steps);
    Lesson { parts, ..completions_lesson(stage, data, chosen, rows, step) }
}

/// Adds the reference's log-probabilities to a lesson's rows, of which each `unit` are evaluated together. Nothing without a reference.
pub(crate) fn add_reference(models: &mut Served<'_>, lesson: &mut Lesson, unit: usize, temperature: f32) -> Result<()> {
    let Some(reference) = models.store.reference() else { return Ok(()) };
    let start = Instant::now();
    for part in &lesson.parts {
        let part = &mut lesson.rows[part.clone()];
        let of_reference = reference.logprobs(part, unit, temperature)?;
        part.iter_mut().zip(of_reference).for_each(|(row, reference)| row.ref_logprobs = reference);
    }
    lesson.metrics.push(("time/reference_s".into(), start.elapsed().as_secs_f64()));
    Ok(())
}
