//! A reward model from the pairs of the data.

use candle_core::{Device, Tensor};
use plumb_core::recipe::Stage;
use plumb_methods::loss::grpo::TokenStats;
use plumb_methods::loss::reward::bradley_terry;
use plumb_model::engine::Leaves;

use super::pairs::pair_lesson;
use super::registry::{Columns, Flaw, Length, Method, Needs, Start, non_negative, require};
use super::{Grain, LeafKind, Lesson, Objective};
use crate::error::Result;
use crate::models::Served;
use crate::pack::LossRow;
use crate::plugins::StagePlugins;
use crate::run::MetricSet;

/// A reward model, as the registry has it.
pub struct RewardModelMethod;

impl Method for RewardModelMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        let coefficient = stage.reward_model.center_rewards_coefficient;
        let key = "reward_model.center_rewards_coefficient";
        require(non_negative(coefficient), key, "must be a finite number, 0 or more")
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let settings = &stage.reward_model;
        let length = Length { settings: "reward_model", max: settings.max_length, truncate: settings.truncate };
        Needs { rows: settings.batch_size, columns: Columns::Pairs(length), reference: false, score_head: true }
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(RewardModel { start })
    }
}

/// The Bradley-Terry loss over the scores of the policy's head: the mean over the step's pairs.
///
/// Rows come in twos, the chosen answer before the rejected one. Their `token_weight` is the pair's weight in the loss.
pub struct RewardModel<'a> {
    start: Start<'a>,
}

impl Objective for RewardModel<'_> {
    fn prepare(&mut self, _models: &mut Served<'_>, _plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson> {
        Ok(pair_lesson(&self.start, &self.start.sampler.batch(batch), step))
    }

    fn grain(&self) -> Grain {
        Grain::Rows(2)
    }

    fn leaf(&self) -> LeafKind {
        LeafKind::Scores
    }

    fn loss(&self, scores: &Tensor, rows: &[LossRow]) -> candle_core::Result<Tensor> {
        let both = scores.reshape((rows.len() / 2, 2))?;
        let side = |i| both.narrow(1, i, 1)?.contiguous()?.squeeze(1);
        let of_pairs = |value: fn(&LossRow) -> f64| Tensor::from_iter(rows.chunks(2).map(|pair| value(&pair[0])), &Device::Cpu);
        let centre = self.start.stage.reward_model.center_rewards_coefficient;
        let losses = bradley_terry(&side(0)?, &side(1)?, &of_pairs(|row| row.margin)?, centre)?;
        (losses * of_pairs(|row| row.token_weight)?)?.sum_all()
    }

    /// There are scores instead.
    fn count(&self, _stats: &mut TokenStats, _rows: &[LossRow], _leaves: &Leaves) {}

    fn count_scores(&self, stats: &mut TokenStats, scores: &[f64]) {
        scores.chunks(2).for_each(|pair| stats.rewards.add(pair[0], pair[1]));
    }

    fn report(&self, stats: &TokenStats, metrics: &mut MetricSet) {
        stats.rewards.metrics().into_iter().for_each(|(name, value)| metrics.set(name, value));
    }
}
