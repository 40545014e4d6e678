//! Distillation: a teacher's whole distribution at each token, on completions of the data or on the policy's own.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{Device, Tensor};
use plumb_core::recipe::{Distill as Settings, DistillSource, Stage, TokenDivergence as Kind};
use plumb_methods::loss::distillation::{TokenDivergence, token_divergence};
use plumb_methods::loss::grpo::TokenStats;
use plumb_model::engine::Leaves;

use super::registry::{Columns, Flaw, Length, Method, Needs, Start, require};
use super::rollouts::{lesson, loss_rows};
use super::{LeafKind, Lesson, Objective, completions_lesson};
use crate::error::Result;
use crate::models::Served;
use crate::pack::{LossRow, parts};
use crate::plugins::StagePlugins;
use crate::run::MetricSet;

/// Distillation, as the registry has it.
pub struct DistillMethod;

impl Method for DistillMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        let Settings { ref teacher, js_weight, temperature, .. } = stage.distill;
        require(!teacher.is_empty(), "distill.teacher", "must name a model of `[models]` that has a `path`")?;
        require(js_weight > 0.0 && js_weight < 1.0, "distill.js_weight", "must be above 0 and below 1")?;
        require(temperature > 0.0 && temperature.is_finite(), "distill.temperature", "must be a finite number above 0")
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let (rows, columns) = match stage.distill.source {
            DistillSource::Data => {
                let length = Length { settings: "distill", max: stage.distill.max_length, truncate: true };
                (stage.distill.batch_size, Columns::Completions(length))
            }
            DistillSource::Policy => (stage.rollout.prompts_per_step, Columns::Prompts),
        };
        Needs { rows, columns, reference: false, score_head: false }
    }

    fn judged(&self) -> bool {
        false
    }

    fn teacher<'s>(&self, stage: &'s Stage) -> Option<&'s str> {
        Some(&stage.distill.teacher)
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Distill { start, teacher: None })
    }
}

/// Divergence from the teacher: the mean over the step's completion tokens.
struct Distill<'a> {
    start: Start<'a>,
    /// The teacher's output matrix, transposed: `[d, V]`. Read when first needed.
    teacher: Option<Tensor>,
}

impl Distill<'_> {
    fn settings(&self) -> &Settings {
        &self.start.stage.distill
    }
}

impl Objective for Distill<'_> {
    fn prepare(&mut self, models: &mut Served<'_>, plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson> {
        let Start { stage, data, .. } = self.start;
        let mut lesson = match self.settings().source {
            DistillSource::Data => {
                let chosen = self.start.sampler.batch(batch);
                let row = |&i: &usize| {
                    let prompt: Arc<[u32]> = data.examples[i].prompt.tokens.as_slice().into();
                    LossRow::new(prompt, data.completions[i].clone(), 1.0)
                };
                completions_lesson(stage, data, &chosen, chosen.iter().map(row).collect(), step)
            }
            DistillSource::Policy => {
                let mut metrics = Vec::new();
                let (rows, assessed) = self.start.completions(models, plugins, batch, step, &mut metrics)?;
                let learned = loss_rows(&rows, &rows.live());
                let parts = parts(learned.len(), stage.optimizer.gradient_accumulation_steps);
                lesson(stage, &rows, assessed, (learned, parts), metrics)
            }
        };
        let tokens: usize = lesson.rows.iter().map(|row| row.completion.len()).sum();
        let start = Instant::now();
        let teacher = models.store.loaded_model(&self.settings().teacher).expect("teachers are loaded with the recipe's models");
        let hidden = teacher.target_hidden(&lesson.rows)?;
        for (row, hidden) in lesson.rows.iter_mut().zip(hidden) {
            row.token_weight /= tokens as f64;
            row.teacher_hidden = hidden;
        }
        if self.teacher.is_none() {
            let width = teacher.params.config.hidden_size;
            let matrix =
                Tensor::from_slice(teacher.params.output_matrix(), (teacher.params.config.vocab_size, width), &Device::Cpu)?;
            self.teacher = Some(matrix.t()?.contiguous()?);
        }
        lesson.metrics.push(("time/teacher_s".into(), start.elapsed().as_secs_f64()));
        Ok(lesson)
    }

    fn leaf(&self) -> LeafKind {
        LeafKind::Logits
    }

    /// There are logits instead.
    fn loss(&self, _logprobs: &Tensor, _rows: &[LossRow]) -> candle_core::Result<Tensor> {
        candle_core::bail!("distillation is a loss over logits")
    }

    fn loss_of_logits(
        &self,
        logits: &Tensor,
        rows: &[LossRow],
        tokens: Range<usize>,
        stats: &mut TokenStats,
    ) -> candle_core::Result<Tensor> {
        let matrix = self.teacher.as_ref().expect("a prepared lesson has a teacher");
        let width = matrix.dim(0)?;
        let places = rows.iter().flat_map(|row| row.teacher_hidden.chunks(width).map(move |hidden| (row, hidden)));
        let places: Vec<(&LossRow, &[f32])> = places.skip(tokens.start).take(tokens.len()).collect();
        let hidden: Vec<f32> = places.iter().flat_map(|(_, hidden)| hidden.iter().copied()).collect();
        let teacher = Tensor::from_vec(hidden, (places.len(), width), &Device::Cpu)?.matmul(matrix)?;
        let kind = match self.settings().divergence {
            Kind::ForwardKl => TokenDivergence::ForwardKl,
            Kind::ReverseKl => TokenDivergence::ReverseKl,
            Kind::GeneralizedJs => TokenDivergence::GeneralizedJs(self.settings().js_weight),
        };
        let by = 1.0 / f64::from(self.settings().temperature);
        let divergences = token_divergence(&(teacher * by)?, &(logits * by)?, kind)?;
        for divergence in divergences.to_vec1::<f32>()? {
            stats.means.add("divergence", f64::from(divergence));
        }
        let weights = Tensor::from_iter(places.iter().map(|(row, _)| row.token_weight as f32), &Device::Cpu)?;
        (divergences * weights)?.sum_all()
    }

    /// Counted with the loss.
    fn count(&self, _stats: &mut TokenStats, _rows: &[LossRow], _leaves: &Leaves) {}

    fn report(&self, stats: &TokenStats, metrics: &mut MetricSet) {
        stats.means.iter().for_each(|(name, mean)| metrics.set(name, mean));
    }
}
