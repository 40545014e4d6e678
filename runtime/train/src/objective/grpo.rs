//! Group-relative policy optimization on sampled completions.

use std::time::Instant;

use candle_core::Tensor;
use plumb_core::recipe::{Grpo as Settings, ImportanceSamplingLevel, LossType, RolloutWeights, Stage};
use plumb_methods::loss::grpo::{Clip, Terms, TokenStats, Totals, grpo, token_weight};
use plumb_model::engine::Leaves;

use super::registry::{Columns, Flaw, Method, Needs, Start, non_negative, positive, require};
use super::rollouts::{lesson, loss_rows};
use super::{Lesson, Objective, for_each_token, per_token, token_weights};
use crate::error::Result;
use crate::models::Served;
use crate::pack::{LossRow, parts};
use crate::pipeline::filtering::Pair;
use crate::pipeline::record::reasons;
use crate::pipeline::rows::StepRows;
use crate::plugins::StagePlugins;
use crate::run::MetricSet;

/// Group-relative policy optimization, as the registry has it.
pub struct GrpoMethod;

impl GrpoMethod {
    /// Whether `kl` is measured: when beta is not 0, or `log_kl` asks for it.
    fn with_reference(stage: &Stage) -> bool {
        stage.grpo.beta != 0.0 || stage.grpo.log_kl
    }
}

impl GrpoMethod {
    /// What is wrong with the loss.
    pub(super) fn check_loss(stage: &Stage) -> Result<(), Flaw> {
        let Settings { beta, num_iterations, epsilon, epsilon_high, importance_sampling_clip_max: cap, .. } = stage.grpo;
        require(non_negative(beta), "grpo.beta", "must be a finite number, 0 or more")?;
        require(num_iterations > 0, "grpo.num_iterations", "must be at least 1")?;
        require((0.0..1.0).contains(&epsilon), "grpo.epsilon", "must be at least 0 and below 1")?;
        require(epsilon_high.is_none_or(non_negative), "grpo.epsilon_high", "must be a finite number, 0 or more")?;
        let bounded = stage.grpo.loss_type != LossType::Cispo || epsilon_high.is_some_and(|high| high >= 1.0);
        let rule = "must be at least 1 with `loss_type = \"cispo\"`, where it is the greatest weight of a token; 5 is usual";
        require(bounded, "grpo.epsilon_high", rule)?;
        require(positive(cap), "grpo.importance_sampling_clip_max", "must be a finite number above 0")
    }
}

impl Method for GrpoMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        let rule = "must be at least 2: a completion's advantage is over the others of its group";
        require(stage.rollout.num_generations >= 2, "rollout.num_generations", rule)?;
        GrpoMethod::check_loss(stage)
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let reference = GrpoMethod::with_reference(stage);
        Needs { rows: stage.rollout.prompts_per_step, columns: Columns::Prompts, reference, score_head: false }
    }

    fn reasons(&self, stage: &Stage, rows: &StepRows, _pairs: &[Pair]) -> Vec<Option<String>> {
        reasons(rows, stage.grpo.mask_truncated_completions)
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Grpo { with_reference: GrpoMethod::with_reference(start.stage), start })
    }
}

/// GRPO over a stage's prompts, with the stage's plugins.
pub struct Grpo<'a> {
    start: Start<'a>,
    /// Whether `kl` against the reference is measured: when beta is not 0, or `log_kl` asks for it.
    with_reference: bool,
}

impl Grpo<'_> {
    /// Whether completions come from other weights than those that are trained.
    fn sampler_is_rounded(&self) -> bool {
        self.start.stage.rollout.weights != RolloutWeights::F32
    }

    /// The completions that the loss sees, with their weights and advantages.
    fn loss_rows(&self, rows: &StepRows) -> (Vec<LossRow>, Vec<std::ops::Range<usize>>) {
        let grpo = &self.start.stage.grpo;
        let refs = rows.rows();
        let (live, reasons) = (rows.live(), reasons(rows, grpo.mask_truncated_completions));
        let length = |&row: &usize| refs[row].completion.tokens.len();
        let seen: Vec<usize> = live.iter().copied().filter(|&row| reasons[row].is_none()).collect();
        let parts = parts(seen.len(), self.start.stage.optimizer.gradient_accumulation_steps);
        let mut all = Vec::with_capacity(seen.len());
        for part in &parts {
            let part = &seen[part.clone()];
            let totals = Totals {
                sequences: live.len(),
                tokens: live.iter().map(length).sum(),
                part_tokens: part.iter().map(length).sum(),
                parts: parts.len(),
            };
            all.extend(loss_rows(rows, part).into_iter().zip(part).map(|(mut loss_row, &row)| {
                let tokens = loss_row.completion.len();
                loss_row.token_weight *=
                    token_weight(grpo.loss_type, tokens, self.start.stage.rollout.max_completion_length, totals);
                loss_row.advantages = match &rows.token_advantages {
                    Some(tokens) => tokens[row].clone(),
                    None => vec![rows.advantages[row].expect("a live row has an advantage") as f32],
                };
                if self.sampler_is_rounded() {
                    loss_row.rollout_logprobs.clone_from(&refs[row].completion.logprobs);
                }
                loss_row
            }));
        }
        (all, parts)
    }
}

impl Objective for Grpo<'_> {
    fn prepare(&mut self, models: &mut Served<'_>, plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson> {
        let mut metrics = Vec::new();
        let (rows, assessed) = self.start.completions(models, plugins, batch, step, &mut metrics)?;
        let (mut loss_rows, parts) = self.loss_rows(&rows);
        if self.steps_per_batch() > 1 {
            let start = Instant::now();
            let old = models.policy.logprobs(&loss_rows, 1, self.temperature())?;
            loss_rows.iter_mut().zip(old).for_each(|(row, old)| row.old_logprobs = old);
            metrics.push(("time/old_logprobs_s".into(), start.elapsed().as_secs_f64()));
        }
        if let Some(reference) = models.store.reference().filter(|_| self.with_reference) {
            let start = Instant::now();
            let of_reference = reference.logprobs(&loss_rows, 1, self.temperature())?;
            loss_rows.iter_mut().zip(of_reference).for_each(|(row, reference)| row.ref_logprobs = reference);
            metrics.push(("time/reference_s".into(), start.elapsed().as_secs_f64()));
        }
        Ok(lesson(self.start.stage, &rows, assessed, (loss_rows, parts), metrics))
    }

    fn steps_per_batch(&self) -> u64 {
        self.start.stage.grpo.num_iterations.max(1)
    }

    /// As in TRL: the policy is the tempered distribution that the completions came from. Greedy sampling counts as 1.
    fn temperature(&self) -> f32 {
        let temperature = self.start.stage.rollout.temperature;
        if temperature > 0.0 { temperature } else { 1.0 }
    }

    fn loss(&self, logprobs: &Tensor, rows: &[LossRow]) -> candle_core::Result<Tensor> {
        let optional =
            |values: fn(&LossRow) -> &[f32]| rows.iter().all(|row| !values(row).is_empty()).then(|| per_token(rows, values));
        let terms = Terms {
            old_logprobs: optional(|row| &row.old_logprobs).transpose()?,
            ref_logprobs: optional(|row| &row.ref_logprobs).transpose()?,
            rollout_logprobs: optional(|row| &row.rollout_logprobs).transpose()?,
            advantages: per_token(rows, |row| &row.advantages)?,
            weights: token_weights(rows)?,
            lengths: rows.iter().map(|row| row.completion.len()).collect(),
        };
        grpo(logprobs, &terms, &Clip::from(&self.start.stage.grpo))
    }

    fn count(&self, stats: &mut TokenStats, rows: &[LossRow], leaves: &Leaves) {
        let clip = Clip::from(&self.start.stage.grpo);
        let mut log_ratios = log_ratios(rows, leaves, clip.level).into_iter();
        for_each_token(rows, leaves, |row, t, logprob, entropy| {
            let advantage = if row.advantages.len() == 1 { row.advantages[0] } else { row.advantages[t] };
            let (old, reference) = (row.old_logprobs.get(t).copied(), row.ref_logprobs.get(t).copied());
            let log_ratio = log_ratios.next().expect("one for each token");
            stats.add(&clip, logprob, old.map(|_| logprob - log_ratio), reference, advantage, entropy);
            if let Some(&rollout) = row.rollout_logprobs.get(t) {
                stats.sampler.add(old.unwrap_or(logprob), rollout, clip.importance_max);
            }
        });
    }

    fn report(&self, stats: &TokenStats, metrics: &mut MetricSet) {
        let mean = |sum: f64| sum / stats.tokens;
        metrics.set_some("kl", self.with_reference.then(|| mean(stats.kl)));
        metrics.set("entropy", mean(stats.entropy));
        metrics.set("clip_ratio/low_mean", mean(stats.clipped_low));
        metrics.set("clip_ratio/high_mean", mean(stats.clipped_high));
        metrics.set("clip_ratio/region_mean", mean(stats.clipped_low + stats.clipped_high));
        stats.sampler.metrics().into_iter().for_each(|(name, value)| metrics.set(name, value));
    }
}

/// What the loss takes as ln ratio of each token; 0 without log-probabilities of an old policy.
fn log_ratios(rows: &[LossRow], leaves: &Leaves, level: ImportanceSamplingLevel) -> Vec<f32> {
    let mut rest = leaves.logprobs.as_slice();
    let of_row = |row: &LossRow| {
        let (own, after) = rest.split_at(row.completion.len());
        rest = after;
        let mut ratios: Vec<f32> = own.iter().zip(&row.old_logprobs).map(|(logprob, old)| logprob - old).collect();
        ratios.resize(own.len(), 0.0);
        if level == ImportanceSamplingLevel::Sequence {
            let mean = ratios.iter().sum::<f32>() / ratios.len() as f32;
            ratios.fill(mean);
        }
        ratios
    };
    rows.iter().flat_map(of_row).collect()
}
