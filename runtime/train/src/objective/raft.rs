//! Reward-ranked fine-tuning, best-of-n distillation, rejection sampling: the best of the policy's own completions are learned as in SFT.

use candle_core::Tensor;
use plumb_core::recipe::{Raft as Settings, RaftStrategy, Stage};
use plumb_methods::loss;
use plumb_methods::loss::grpo::TokenStats;
use plumb_methods::selection::ranked::{best, share_count};
use plumb_model::engine::Leaves;

use super::registry::{Columns, Flaw, Method, Needs, Start, require};
use super::rollouts::{lesson, loss_rows};
use super::{Lesson, Objective, token_weights};
use crate::error::Result;
use crate::models::Served;
use crate::pack::{LossRow, parts};
use crate::pipeline::filtering::Pair;
use crate::pipeline::finite_mean;
use crate::pipeline::rows::StepRows;
use crate::plugins::StagePlugins;
use crate::run::MetricSet;

/// Reward-ranked fine-tuning, as the registry has it.
pub struct RaftMethod;

impl Method for RaftMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        let Settings { per_prompt, top_fraction, min_reward, num_iterations, .. } = stage.raft;
        let rule = "must be at least 1, and at most `rollout.num_generations`";
        require((1..=stage.rollout.num_generations).contains(&per_prompt), "raft.per_prompt", rule)?;
        require(top_fraction > 0.0 && top_fraction <= 1.0, "raft.top_fraction", "must be above 0 and at most 1")?;
        let step = stage.rollout.num_generations * stage.rollout.prompts_per_step;
        let rule = format!("is less than one of the {step} completions of a step");
        require(share_count(step, top_fraction) > 0 || stage.raft.strategy == RaftStrategy::Local, "raft.top_fraction", &rule)?;
        require(min_reward.is_none_or(f64::is_finite), "raft.min_reward", "must be a finite number")?;
        require(num_iterations > 0, "raft.num_iterations", "must be at least 1")
    }

    fn needs(&self, stage: &Stage) -> Needs {
        Needs { rows: stage.rollout.prompts_per_step, columns: Columns::Prompts, reference: false, score_head: false }
    }

    fn reasons(&self, stage: &Stage, rows: &StepRows, _pairs: &[Pair]) -> Vec<Option<String>> {
        let chosen = chosen(rows, &stage.raft);
        let others = |row: usize| (!chosen.contains(&row)).then(|| "not among the best".to_owned());
        rows.dropped.iter().enumerate().map(|(row, dropped)| dropped.clone().or_else(|| others(row))).collect()
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Raft { start })
    }
}

/// Negative log-likelihood of the best completions, each weighed by what filters said: the mean over their tokens.
struct Raft<'a> {
    start: Start<'a>,
}

/// Rows that are learned, in order. A completion that its group has already does not count again.
fn chosen(rows: &StepRows, settings: &Settings) -> Vec<usize> {
    let refs = rows.rows();
    let repeats = |row: usize| {
        let before = (0..row).rev().take_while(|&other| refs[other].place == refs[row].place);
        before
            .into_iter()
            .any(|other| rows.dropped[other].is_none() && refs[other].completion.tokens == refs[row].completion.tokens)
    };
    let reward = |row: usize| {
        let reward = rows.shaped[row].filter(|&reward| settings.min_reward.is_none_or(|least| reward >= least));
        reward.filter(|_| rows.dropped[row].is_none() && !repeats(row)).unwrap_or(f64::NAN)
    };
    let rewards: Vec<f64> = (0..rows.len()).map(reward).collect();
    let mut chosen: Vec<usize> = match settings.strategy {
        RaftStrategy::Local => refs
            .chunk_by(|a, b| a.place == b.place)
            .scan(0, |start, group| Some(std::mem::replace(start, *start + group.len())..*start))
            .flat_map(|group| best(&rewards[group.clone()], settings.per_prompt).into_iter().map(move |i| group.start + i))
            .collect(),
        RaftStrategy::Global => best(&rewards, share_count(rows.len(), settings.top_fraction)),
    };
    chosen.sort_unstable();
    chosen
}

impl Objective for Raft<'_> {
    fn prepare(&mut self, models: &mut Served<'_>, plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson> {
        let (stage, mut metrics) = (self.start.stage, Vec::new());
        let (rows, assessed) = self.start.completions(models, plugins, batch, step, &mut metrics)?;
        let chosen = chosen(&rows, &stage.raft);
        let reward = finite_mean(chosen.iter().filter_map(|&row| rows.shaped[row]));
        metrics.push(("raft/chosen".into(), chosen.len() as f64));
        metrics.extend(reward.map(|reward| ("raft/chosen_reward".to_owned(), reward)));
        let mut learned = loss_rows(&rows, &chosen);
        let tokens: usize = learned.iter().map(|row| row.completion.len()).sum();
        learned.iter_mut().for_each(|row| row.token_weight /= tokens as f64);
        let parts = parts(learned.len(), stage.optimizer.gradient_accumulation_steps);
        Ok(lesson(stage, &rows, assessed, (learned, parts), metrics))
    }

    fn steps_per_batch(&self) -> u64 {
        self.start.stage.raft.num_iterations
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
