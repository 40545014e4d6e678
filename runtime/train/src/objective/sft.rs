//! Supervised fine-tuning.

use std::sync::Arc;

use candle_core::Tensor;
use plumb_core::recipe::Stage;
use plumb_methods::loss;
use plumb_methods::loss::grpo::TokenStats;
use plumb_model::engine::Leaves;

use super::registry::{Columns, Flaw, Length, Method, Needs, Start};
use super::{Lesson, Objective, completions_lesson, token_weights};
use crate::error::Result;
use crate::models::Served;
use crate::pack::LossRow;
use crate::plugins::StagePlugins;
use crate::run::MetricSet;

/// Supervised fine-tuning, as the registry has it.
pub struct SftMethod;

impl Method for SftMethod {
    fn check(&self, _stage: &Stage) -> Result<(), Flaw> {
        Ok(())
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let length = Length { settings: "sft", max: stage.sft.max_length, truncate: true };
        Needs { rows: stage.sft.batch_size, columns: Columns::Completions(length), reference: false, score_head: false }
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Sft { start })
    }
}

/// Negative log-likelihood of the data's completions: the mean over the step's completion tokens.
pub struct Sft<'a> {
    start: Start<'a>,
}

impl Objective for Sft<'_> {
    fn prepare(&mut self, _models: &mut Served<'_>, _plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson> {
        let Start { stage, data, .. } = self.start;
        let chosen = self.start.sampler.batch(batch);
        let total: usize = chosen.iter().map(|&i| data.completions[i].len()).sum();
        let row = |&i: &usize| {
            let prompt: Arc<[u32]> = data.examples[i].prompt.tokens.as_slice().into();
            LossRow::new(prompt, data.completions[i].clone(), 1.0 / total as f64)
        };
        let rows: Vec<LossRow> = chosen.iter().map(row).collect();
        Ok(completions_lesson(stage, data, &chosen, rows, step))
    }

    fn loss(&self, logprobs: &Tensor, rows: &[LossRow]) -> candle_core::Result<Tensor> {
        loss::sft::sft(logprobs, &token_weights(rows)?)
    }

    fn count(&self, stats: &mut TokenStats, _rows: &[LossRow], leaves: &Leaves) {
        stats.add_entropies(&leaves.entropies);
    }

    fn report(&self, stats: &TokenStats, metrics: &mut MetricSet) {
        metrics.set("entropy", stats.entropy / stats.tokens);
    }
}
