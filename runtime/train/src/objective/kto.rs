//! Kahneman-Tversky optimization on labelled answers.

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use plumb_core::recipe::{Kto as Settings, KtoLoss, Stage};
use plumb_methods::loss::dpo::sequence_logps;
use plumb_methods::loss::grpo::TokenStats;
use plumb_methods::loss::kto::{Unpaired, UnpairedLoss, kl_baseline, mismatched, unpaired};
use plumb_model::engine::Leaves;

use super::registry::{Columns, Flaw, Length, Method, Needs, Start, non_negative, positive, require};
use super::{Lesson, Objective, completions_lesson};
use crate::error::Result;
use crate::models::Served;
use crate::pack::LossRow;
use crate::plugins::StagePlugins;
use crate::run::MetricSet;

/// Kahneman-Tversky optimization, as the registry has it.
pub struct KtoMethod;

impl Method for KtoMethod {
    fn check(&self, stage: &Stage) -> Result<(), Flaw> {
        let Settings { batch_size, beta, desirable_weight, undesirable_weight, loss_type, .. } = stage.kto;
        let rule = "must be at least 2: the KL is estimated from answers to other prompts of the step";
        require(batch_size >= 2 || loss_type != KtoLoss::Kto, "kto.batch_size", rule)?;
        require(positive(beta), "kto.beta", "must be a finite number above 0")?;
        let weights = [("kto.desirable_weight", desirable_weight), ("kto.undesirable_weight", undesirable_weight)];
        weights
            .into_iter()
            .try_for_each(|(key, weight)| require(non_negative(weight), key, "must be a finite number, 0 or more"))?;
        let rule = "is 0, and so is `kto.undesirable_weight`: nothing would be learned";
        require(desirable_weight + undesirable_weight > 0.0, "kto.desirable_weight", rule)
    }

    fn needs(&self, stage: &Stage) -> Needs {
        let length = Length { settings: "kto", max: stage.kto.max_length, truncate: stage.kto.truncate };
        Needs { rows: stage.kto.batch_size, columns: Columns::Labels(length), reference: true, score_head: false }
    }

    fn objective<'a>(&self, start: Start<'a>) -> Box<dyn Objective + 'a> {
        Box::new(Kto { start, kl: 0.0 })
    }
}

/// A loss over single answers, [`KtoLoss`]: the mean over the step's answers.
struct Kto<'a> {
    start: Start<'a>,
    /// Of policy and reference, as the step's other answers show it; nats.
    kl: f64,
}

impl Kto<'_> {
    fn settings(&self) -> &Settings {
        &self.start.stage.kto
    }

    /// The KL from each prompt with the answer of another row, cut to the longest of the step, so that it fits where the rows do.
    fn estimate_kl(&self, models: &mut Served<'_>, rows: &[LossRow]) -> Result<f64> {
        let longest = rows.iter().map(|row| row.prompt.len() + row.completion.len()).max().unwrap_or(0);
        let row = |(row, other): (&LossRow, usize)| {
            let mut completion = rows[other].completion.clone();
            completion.truncate(longest - row.prompt.len());
            LossRow::new(row.prompt.clone(), completion, 0.0)
        };
        let apart: Vec<LossRow> = rows.iter().zip(mismatched(rows.len())).map(row).collect();
        let sums = |logprobs: Vec<Vec<f32>>| logprobs.iter().map(|row| sum(row)).collect::<Vec<f64>>();
        let policy = sums(models.policy.logprobs(&apart, 1, self.temperature())?);
        let reference = models.store.reference().expect("the stage has a reference");
        Ok(kl_baseline(&policy, &sums(reference.logprobs(&apart, 1, self.temperature())?)))
    }
}

fn sum(logprobs: &[f32]) -> f64 {
    logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
}

impl Objective for Kto<'_> {
    fn prepare(&mut self, models: &mut Served<'_>, _plugins: &StagePlugins, batch: u64, step: u64) -> Result<Lesson> {
        let Start { stage, data, .. } = self.start;
        let chosen = self.start.sampler.batch(batch);
        let weight = 1.0 / chosen.len() as f64;
        let row = |&i: &usize| {
            let prompt: Arc<[u32]> = data.examples[i].prompt.tokens.as_slice().into();
            LossRow { label: data.labels[i], ..LossRow::new(prompt, data.completions[i].clone(), weight) }
        };
        let mut lesson = completions_lesson(stage, data, &chosen, chosen.iter().map(row).collect(), step);
        super::pairs::add_reference(models, &mut lesson, 1, self.temperature())?;
        if self.settings().loss_type == KtoLoss::Kto {
            let start = Instant::now();
            self.kl = self.estimate_kl(models, &lesson.rows)?;
            lesson.metrics.push(("kl".into(), self.kl));
            lesson.metrics.push(("time/kl_s".into(), start.elapsed().as_secs_f64()));
        }
        Ok(lesson)
    }

    fn loss(&self, logprobs: &Tensor, rows: &[LossRow]) -> candle_core::Result<Tensor> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.completion.len()).collect();
        let tokens = logprobs.to_dtype(DType::F64)?;
        let policy = sequence_logps(&tokens, &tokens.ones_like()?, &lengths)?;
        let reference = Tensor::from_iter(rows.iter().map(|row| sum(&row.ref_logprobs)), &Device::Cpu)?;
        let labels: Vec<bool> = rows.iter().map(|row| row.label).collect();
        let Settings { loss_type, beta, desirable_weight, undesirable_weight, .. } = *self.settings();
        let loss = match loss_type {
            KtoLoss::Kto => UnpairedLoss::Kto { kl: self.kl },
            KtoLoss::ApoZeroUnpaired => UnpairedLoss::ApoZero,
        };
        let losses = unpaired(&(policy - reference)?, &labels, Unpaired { loss, beta, desirable_weight, undesirable_weight })?;
        let weights = Tensor::from_iter(rows.iter().map(|row| row.token_weight), &Device::Cpu)?;
        (losses * weights)?.sum_all()?.to_dtype(logprobs.dtype())
    }

    fn count(&self, stats: &mut TokenStats, rows: &[LossRow], leaves: &Leaves) {
        stats.add_entropies(&leaves.entropies);
        let mut rest = leaves.logprobs.as_slice();
        for row in rows {
            let (own, after) = rest.split_at(row.completion.len());
            rest = after;
            let (policy, reference) = (sum(own), sum(&row.ref_logprobs));
            let [reward, logps] =
                if row.label { ["rewards/chosen", "logps/chosen"] } else { ["rewards/rejected", "logps/rejected"] };
            stats.means.add(reward, self.settings().beta * (policy - reference));
            stats.means.add(logps, policy);
        }
    }

    fn report(&self, stats: &TokenStats, metrics: &mut MetricSet) {
        metrics.set("entropy", stats.entropy / stats.tokens);
        stats.means.iter().for_each(|(name, mean)| metrics.set(name, mean));
        let margin = stats.means.get("rewards/chosen").zip(stats.means.get("rewards/rejected"));
        metrics.set_some("rewards/margins", margin.map(|(chosen, rejected)| chosen - rejected));
    }
}
