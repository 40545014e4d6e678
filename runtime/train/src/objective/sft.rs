//! Supervised fine-tuning.

use std::sync::Arc;

use candle_core::Tensor;
use plumb_core::recipe::Stage;
use plumb_methods::loss;
use plumb_methods::loss::grpo::TokenStats;
use plumb_model::engine::Leaves;

use super::registry::{Columns, Flaw, Length, Method, Needs, Start};
use super::{Lesson, Objective, length_metrics, token_weights};
use crate::data::Sampler;
use crate::error::Result;
use crate::models::Served;
use crate::pack::{LossRow, parts};
use crate::plugins::StagePlugins;
use crate::run::{MetricSet, StepRecord};
use crate::stage::StageData;

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

    fn objective<'a>(&self, Start { stage, data, sampler, .. }: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Sft { stage: &stage.name, data, sampler, parts: stage.optimizer.gradient_accumulation_steps })
    }
}

/// Negative log-likelihood of the data's completions: the mean over the step's completion tokens.
pub struct Sft<'a> {
    /// Name of the stage.
    pub stage: &'a str,
    /// Its rows; each has a completion.
    pub data: &'a StageData,
    /// Which rows a step takes.
    pub sampler: Sampler,
    /// Parts a step is divided into.
    pub parts: usize,
}

impl Objective for Sft<'_> {
    fn prepare(&mut self, _models: &mut Served<'_>, _plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson> {
        let chosen = self.sampler.batch(batch);
        let lengths: Vec<usize> = chosen.iter().map(|&i| self.data.completions[i].len()).collect();
        let total: usize = lengths.iter().sum();
        let row = |&i: &usize| {
            let prompt: Arc<[u32]> = self.data.examples[i].prompt.tokens.as_slice().into();
            LossRow::new(prompt, self.data.completions[i].clone(), 1.0 / total as f64)
        };
        let rows: Vec<LossRow> = chosen.iter().map(row).collect();
        let mut metrics = Vec::new();
        length_metrics(&lengths, &mut metrics);
        let prompt_ids = chosen.iter().map(|&i| self.data.examples[i].prompt.id).collect();
        Ok(Lesson {
            parts: parts(rows.len(), self.parts),
            tokens: rows.iter().map(|row| (row.prompt.len() + row.completion.len()) as u64).sum(),
            rows,
            metrics,
            record: StepRecord { stage: self.stage.into(), step, prompt_ids, ..StepRecord::default() },
            ..Lesson::default()
        })
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
