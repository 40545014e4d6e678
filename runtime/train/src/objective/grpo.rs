//! Group-relative policy optimization on sampled completions.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use plumb_core::Outcome;
use plumb_core::recipe::Stage;
use plumb_core::rollout::{FinishReason, Group, SamplingParams};
use plumb_core::seed::Stream;
use plumb_model::params::Params;

use super::{Lesson, Objective, length_metrics, per_token, token_weights};
use crate::advantage::{TRL_DDOF, mean, std_dev};
use crate::data::Sampler;
use crate::error::Result;
use crate::loss::grpo::{Clip, Terms, TokenStats, Totals, grpo, token_weight};
use crate::pack::{LossRow, parts};
use crate::pipeline::record::{reasons, record, table};
use crate::pipeline::rows::{Example, RowRef, StepRows, batch, row_id};
use crate::pipeline::{Judged, Scoring, fault_counts, finite_mean, in_order, judge};
use crate::plugins::StagePlugins;
use crate::policy::Policy;
use crate::run::MetricSet;
use crate::stage::StageData;

/// GRPO over a stage's prompts, with the stage's plugins.
pub struct Grpo<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// The stage in the recipe.
    pub stage: &'a Stage,
    /// Its prompts.
    pub data: &'a StageData,
    /// Which prompts a batch takes.
    pub sampler: Sampler,
    /// The policy as it was when the stage began; there when beta is not 0.
    pub reference: Option<Params>,
}

impl<'a> Grpo<'a> {
    fn sampling(&self) -> SamplingParams {
        let r = &self.stage.rollout;
        SamplingParams {
            temperature: r.temperature,
            top_k: r.top_k,
            top_p: r.top_p,
            min_p: r.min_p,
            max_completion_length: r.max_completion_length,
            stop: r.stop.clone(),
        }
    }

    /// Samples the groups of a step; each is submitted to the rewards as soon as it is finished, and all are collected at the end.
    fn roll_out(
        &self,
        policy: &mut Policy,
        plugins: &StagePlugins,
        batch_index: u64,
        step: u64,
        metrics: &mut Vec<(String, f64)>,
    ) -> Result<StepRows<'a>> {
        let (data, rollout) = (self.data, &self.stage.rollout);
        let examples: Vec<&Example> = self.sampler.batch(batch_index).into_iter().map(|i| &data.examples[i]).collect();
        let prompts: Vec<_> = examples.iter().map(|example| example.prompt.clone()).collect();
        let busy_before = plugins.reward_busy_s();
        let mut scoring = Scoring::new(&plugins.rewards, prompts.len());
        let mut groups: Vec<Option<Group>> = vec![None; prompts.len()];
        let mut on_group = |place: usize, group: Group| {
            let completions = group.completions.iter().enumerate();
            let rows = completions.map(|(i, completion)| RowRef {
                id: row_id(step, place, i, false),
                place,
                example: examples[place],
                completion,
            });
            scoring.submit(place, &batch(step, &self.stage.name, &data.columns, &rows.collect::<Vec<_>>()));
            groups[place] = Some(group);
        };
        let stream = |prompt, completion| Stream::new(self.seed, "rollout", &[step, prompt, completion]);
        let start = Instant::now();
        let stats =
            policy.generate(&prompts, rollout.num_generations, &self.sampling(), rollout.max_batch, &stream, &mut on_group)?;
        let rollout_s = start.elapsed().as_secs_f64();
        let (scores, waited_s) = scoring.collect(step)?;
        metrics.push(("time/rollout_s".into(), rollout_s));
        metrics.push(("time/reward_s".into(), waited_s));
        if let (Some(before), Some(after)) = (busy_before, plugins.reward_busy_s()) {
            metrics.push(("time/reward_busy_s".into(), after - before));
        }
        metrics.push(("time/prefill_tokens_per_s".into(), stats.prefill_tokens as f64 / stats.prefill_s));
        metrics.push(("time/decode_tokens_per_s".into(), stats.decode_tokens as f64 / stats.decode_s));
        let mut rows = StepRows::new(step, &self.stage.name, &data.columns, examples, in_order(groups));
        rows.scores = scores;
        Ok(rows)
    }

    /// The completions that the loss sees, with their weights and advantages.
    fn loss_rows(&self, rows: &StepRows) -> (Vec<LossRow>, Vec<std::ops::Range<usize>>) {
        let grpo = &self.stage.grpo;
        let refs = rows.rows();
        let prompts: Vec<Arc<[u32]>> = rows.groups.iter().map(|group| group.prompt.tokens.as_slice().into()).collect();
        let (live, reasons) = (rows.live(), reasons(rows, grpo.mask_truncated_completions));
        let length = |&row: &usize| refs[row].completion.tokens.len();
        let seen: Vec<usize> = live.iter().copied().filter(|&row| reasons[row].is_none()).collect();
        let parts = parts(seen.len(), self.stage.optimizer.gradient_accumulation_steps);
        let mut all = Vec::with_capacity(seen.len());
        for part in &parts {
            let part = &seen[part.clone()];
            let totals = Totals {
                sequences: live.len(),
                tokens: live.iter().map(length).sum(),
                part_tokens: part.iter().map(length).sum(),
                parts: parts.len(),
            };
            all.extend(part.iter().map(|&row| {
                let completion = refs[row].completion.tokens.clone();
                let weight = token_weight(grpo.loss_type, completion.len(), self.stage.rollout.max_completion_length, totals);
                let mut loss_row = LossRow::new(prompts[refs[row].place].clone(), completion, rows.weights[row] * weight);
                loss_row.advantages = match &rows.token_advantages {
                    Some(tokens) => tokens[row].clone(),
                    None => vec![rows.advantages[row].expect("a live row has an advantage") as f32],
                };
                loss_row
            }));
        }
        (all, parts)
    }
}

impl Objective for Grpo<'_> {
    fn prepare(&mut self, policy: &mut Policy, plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson> {
        let mut metrics = Vec::new();
        let mut rows = self.roll_out(policy, plugins, batch, step, &mut metrics)?;
        let judged = judge(&mut rows, plugins, self.stage.grpo.scale_rewards)?;
        let (mut loss_rows, parts) = self.loss_rows(&rows);
        if self.steps_per_batch() > 1 {
            let old = policy.logprobs(None, &loss_rows, self.temperature())?;
            loss_rows.iter_mut().zip(old).for_each(|(row, old)| row.old_logprobs = old);
        }
        if let Some(reference) = &self.reference {
            let of_reference = policy.logprobs(Some(reference), &loss_rows, self.temperature())?;
            loss_rows.iter_mut().zip(of_reference).for_each(|(row, reference)| row.ref_logprobs = reference);
        }
        step_metrics(&rows, &judged, &mut metrics);
        let reasons = reasons(&rows, self.stage.grpo.mask_truncated_completions);
        Ok(Lesson {
            rows: loss_rows,
            parts,
            tokens: rows.rows().iter().map(|row| (row.example.prompt.tokens.len() + row.completion.tokens.len()) as u64).sum(),
            metrics,
            record: record(&rows, &reasons),
            table: Some(table(&rows, reasons)),
            messages: judged.unused,
        })
    }

    fn steps_per_batch(&self) -> u64 {
        self.stage.grpo.num_iterations.max(1)
    }

    /// As in TRL: the policy is the tempered distribution that the completions came from. Greedy sampling counts as 1.
    fn temperature(&self) -> f32 {
        let temperature = self.stage.rollout.temperature;
        if temperature > 0.0 { temperature } else { 1.0 }
    }

    fn loss(&self, logprobs: &Tensor, rows: &[LossRow]) -> candle_core::Result<Tensor> {
        let optional =
            |values: fn(&LossRow) -> &[f32]| rows.iter().all(|row| !values(row).is_empty()).then(|| per_token(rows, values));
        let terms = Terms {
            old_logprobs: optional(|row| &row.old_logprobs).transpose()?,
            ref_logprobs: optional(|row| &row.ref_logprobs).transpose()?,
            advantages: per_token(rows, |row| &row.advantages)?,
            weights: token_weights(rows)?,
        };
        grpo(logprobs, &terms, &Clip::from(&self.stage.grpo))
    }

    fn count_token(&self, stats: &mut TokenStats, row: &LossRow, t: usize, logprob: f32, entropy: f32) {
        let advantage = if row.advantages.len() == 1 { row.advantages[0] } else { row.advantages[t] };
        let (old, reference) = (row.old_logprobs.get(t).copied(), row.ref_logprobs.get(t).copied());
        stats.add(&Clip::from(&self.stage.grpo), logprob, old, reference, advantage, entropy);
    }

    fn report(&self, stats: &TokenStats, metrics: &mut MetricSet) {
        let mean = |sum: f64| sum / stats.tokens;
        metrics.set_some("kl", self.reference.is_some().then(|| mean(stats.kl)));
        metrics.set("entropy", mean(stats.entropy));
        metrics.set("clip_ratio/low_mean", mean(stats.clipped_low));
        metrics.set("clip_ratio/high_mean", mean(stats.clipped_high));
        metrics.set("clip_ratio/region_mean", mean(stats.clipped_low + stats.clipped_high));
    }

    fn vectors(&self) -> Vec<(&str, &[f32])> {
        self.reference.iter().map(|reference| ("reference", reference.data.as_slice())).collect()
    }
}

/// TRL's names where it has them. `reward` is raw; shaped rewards and advantages stand beside it under their own names.
fn step_metrics(rows: &StepRows, judged: &Judged, metrics: &mut Vec<(String, f64)>) {
    let mut add = |name: &str, value: Option<f64>| metrics.extend(value.map(|value| (name.to_owned(), value)));
    let some_mean = |values: &[Option<f64>]| finite_mean(values.iter().copied().flatten());
    let ends = rows.group_ends();
    let raw_stds = ends.iter().scan(0, |start, &end| {
        let group: Vec<f64> = rows.raw[std::mem::replace(start, end as usize)..end as usize].iter().copied().flatten().collect();
        Some((!group.is_empty()).then(|| std_dev(&group, TRL_DDOF)))
    });
    add("reward", some_mean(&rows.raw));
    add("reward_std", some_mean(&raw_stds.collect::<Vec<_>>()));
    let stds: Vec<f64> = judged.group_std.iter().copied().flatten().collect();
    let zero = stds.iter().filter(|&&std| std < 1e-8).count() as f64;
    add("frac_reward_zero_std", (!stds.is_empty()).then(|| zero / stds.len() as f64));
    add("shaped_reward", some_mean(&rows.shaped));
    add("advantage", some_mean(&rows.advantages));
    for scores in &rows.scores {
        let values: Vec<f64> = scores.outcomes.iter().filter_map(Outcome::value).collect();
        let name = &scores.name;
        add(&format!("rewards/{name}/mean"), (!values.is_empty()).then(|| mean(&values)));
        add(&format!("rewards/{name}/std"), (!values.is_empty()).then(|| std_dev(&values, TRL_DDOF)));
        for (part, values) in &scores.parts {
            add(&format!("rewards/{name}/{part}/mean"), finite_mean(values.iter().copied()));
        }
        let count = |is: fn(&Outcome) -> bool| Some(scores.outcomes.iter().filter(|outcome| is(outcome)).count() as f64);
        add(&format!("plugin/{name}/abstained"), count(|outcome| matches!(outcome, Outcome::Abstained(_))));
        add(&format!("plugin/{name}/failed"), count(|outcome| matches!(outcome, Outcome::Failed(_))));
        let codes = scores.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Scored(_) => None,
            Outcome::Abstained(fault) | Outcome::Failed(fault) => Some(fault.code.as_str()),
        });
        for (name, rows) in fault_counts(name, codes) {
            add(&name, Some(rows));
        }
    }
    let refs = rows.rows();
    let clipped = refs.iter().filter(|row| row.completion.finish == FinishReason::Length).count();
    add("completions/clipped_ratio", Some(clipped as f64 / refs.len() as f64));
    add("completions/kept_ratio", Some(rows.live().len() as f64 / refs.len() as f64));
    length_metrics(&refs.iter().map(|row| row.completion.tokens.len()).collect::<Vec<_>>(), metrics);
    metrics.extend(judged.metrics.iter().cloned());
}
