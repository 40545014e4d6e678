//! Direct preference optimization on the pairs of the data.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use plumb_core::recipe::{Dpo as Settings, DpoLoss, Stage};
use plumb_methods::loss::dpo::{PairLogps, dpo, sequence_logps, sequence_weights};
use plumb_methods::loss::grpo::TokenStats;
use plumb_model::engine::Leaves;

use super::registry::{Columns, Flaw, Length, Method, Needs, Start, positive, require};
use super::{Grain, Lesson, Objective, pair_lesson};
use crate::data::Sampler;
use crate::error::Result;
use crate::models::Served;
use crate::pack::LossRow;
use crate::plugins::StagePlugins;
use crate::run::MetricSet;
use crate::stage::StageData;

/// Direct preference optimization, as the registry has it.
pub struct DpoMethod;

impl Method for DpoMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        let Settings { batch_size, loss_type, label_smoothing, beta, ld_alpha, discopop_tau, .. } = stage.dpo;
        require(positive(beta), "dpo.beta", "must be a finite number above 0")?;
        require((0.0..0.5).contains(&label_smoothing), "dpo.label_smoothing", "must be at least 0 and below 0.5")?;
        let finite = label_smoothing > 0.0 || loss_type != DpoLoss::ExoPair;
        let rule = "must be above 0 with `loss_type = \"exo_pair\"`, whose loss is infinite without; 0.001 is usual";
        require(finite, "dpo.label_smoothing", rule)?;
        let rule = "must be between 0 and 1: 0 ignores what is longer than the other answer, 1 counts it like the rest";
        require(ld_alpha.is_none_or(|alpha| (0.0..=1.0).contains(&alpha)), "dpo.ld_alpha", rule)?;
        let between = discopop_tau > 0.0 && discopop_tau < 1.0;
        require(between, "dpo.discopop_tau", "must be above 0 and below 1")?;
        let enough = !loss_type.sorts() || batch_size >= 2 * stage.optimizer.gradient_accumulation_steps;
        let rule = "must give each of the `optimizer.gradient_accumulation_steps` at least two pairs: this loss compares them with each other";
        require(enough, "dpo.batch_size", rule)
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let length = Length { settings: "dpo", max: stage.dpo.max_length, truncate: stage.dpo.truncate };
        let reference = !stage.dpo.reference_free;
        Needs { rows: stage.dpo.batch_size, columns: Columns::Pairs(length), reference, score_head: false }
    }

    fn objective<'a>(&self, Start { stage, data, sampler, .. }: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Dpo { stage, data, sampler })
    }
}

/// A loss over pairs of answers, [`plumb_core::recipe::DpoLoss`]: the mean over the step's pairs.
///
/// Rows come in twos, the chosen answer before the rejected one. Their `token_weight` is the pair's weight in the loss.
pub struct Dpo<'a> {
    /// The stage in the recipe.
    pub stage: &'a Stage,
    /// Its pairs.
    pub data: &'a StageData,
    /// Which pairs a step takes.
    pub sampler: Sampler,
}

impl Dpo<'_> {
    fn settings(&self) -> &Settings {
        &self.stage.dpo
    }
}

impl Objective for Dpo<'_> {
    fn prepare(&mut self, models: &mut Served<'_>, _plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson> {
        let mut lesson = pair_lesson(self.stage, self.data, &self.sampler.batch(batch), step);
        if let Some(reference) = models.store.reference().filter(|_| !self.settings().reference_free) {
            let start = Instant::now();
            for part in &lesson.parts {
                let part = &mut lesson.rows[part.clone()];
                let of_reference = reference.logprobs(part, self.grain().rows(), self.temperature())?;
                part.iter_mut().zip(of_reference).for_each(|(row, reference)| row.ref_logprobs = reference);
            }
            lesson.metrics.push(("time/reference_s".into(), start.elapsed().as_secs_f64()));
        }
        Ok(lesson)
    }

    /// Losses that sort compare all pairs of a part with each other.
    fn grain(&self) -> Grain {
        if self.settings().loss_type.sorts() { Grain::Part } else { Grain::Rows(2) }
    }

    /// Sequences are summed and compared in float64: margins are small differences of large sums.
    fn loss(&self, logprobs: &Tensor, rows: &[LossRow]) -> candle_core::Result<Tensor> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.completion.len()).collect();
        let weights: Vec<f64> = rows.chunks(2).flat_map(|pair| weights_of(pair, self.settings())).flatten().collect();
        let weights = Tensor::new(weights, &Device::Cpu)?;
        let pairs = |tokens: &Tensor| {
            let both = sequence_logps(tokens, &weights, &lengths)?.reshape((rows.len() / 2, 2))?;
            let side = |i| both.narrow(1, i, 1)?.contiguous()?.squeeze(1);
            candle_core::Result::Ok(PairLogps { chosen: side(0)?, rejected: side(1)? })
        };
        let policy = pairs(&logprobs.to_dtype(DType::F64)?)?;
        let reference = rows.iter().all(|row| !row.ref_logprobs.is_empty()).then(|| {
            let tokens = rows.iter().flat_map(|row| &row.ref_logprobs).map(|&logprob| f64::from(logprob));
            pairs(&Tensor::from_iter(tokens, &Device::Cpu)?)
        });
        let losses = dpo(&policy, reference.transpose()?.as_ref(), self.settings())?;
        let weights = Tensor::from_iter(rows.chunks(2).map(|pair| pair[0].token_weight), &Device::Cpu)?;
        (losses * weights)?.sum_all()?.to_dtype(logprobs.dtype())
    }

    fn count(&self, stats: &mut TokenStats, rows: &[LossRow], leaves: &Leaves) {
        stats.add_entropies(&leaves.entropies);
        let mut rest = leaves.logprobs.as_slice();
        for pair in rows.chunks(2) {
            let (mut policy, mut reference) = ([0.0; 2], [0.0; 2]);
            for (i, (row, weights)) in pair.iter().zip(weights_of(pair, self.settings())).enumerate() {
                let (own, after) = rest.split_at(row.completion.len());
                rest = after;
                let sum = |logprobs: &[f32]| logprobs.iter().zip(&weights).map(|(&l, w)| f64::from(l) * w).sum::<f64>();
                (policy[i], reference[i]) = (sum(own), sum(&row.ref_logprobs));
            }
            stats.pairs.add(self.settings().beta, policy, reference);
        }
    }

    fn report(&self, stats: &TokenStats, metrics: &mut MetricSet) {
        metrics.set("entropy", stats.entropy / stats.tokens);
        stats.pairs.means().into_iter().for_each(|(name, mean)| metrics.set(name, mean));
    }
}

/// Weights of a pair's tokens in their sequences.
fn weights_of(pair: &[LossRow], settings: &Settings) -> [Vec<f64>; 2] {
    sequence_weights(pair[0].completion.len(), pair[1].completion.len(), settings)
}
