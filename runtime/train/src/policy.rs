//! The policy: its weights, the engine that trains them and the engine that samples from them.

use plumb_core::recipe::EngineKind;
use plumb_core::rollout::{Group, Prompt, SamplingParams};
use plumb_core::seed::Stream;
use plumb_model::engine::candle::CandleEngine;
use plumb_model::engine::native::NativeEngine;
use plumb_model::engine::{Engine, LeafGrads, Leaves};
use plumb_model::params::Params;
use plumb_model::rollout::{RolloutEngine, RolloutStats};
use plumb_model::{LoadedModel, Tokenizer};

use crate::error::Result;
use crate::loss;
use crate::loss::grpo::TokenStats;
use crate::objective::Objective;
use crate::pack::{self, LossRow};

/// A model that is trained.
pub struct Policy {
    /// Its weights. Whoever changes them calls [`Policy::weights_changed`].
    pub params: Params,
    /// Texts to ids and back.
    pub tokenizer: Tokenizer,
    engine: Box<dyn Engine>,
    /// The sampling engine and its batch size; made when first needed.
    sampler: Option<(usize, RolloutEngine)>,
    sampler_is_stale: bool,
}

impl Policy {
    /// A policy evaluated by the engine of that kind.
    pub fn new(model: LoadedModel, engine: EngineKind) -> Self {
        let LoadedModel { params, tokenizer } = model;
        let engine: Box<dyn Engine> = match engine {
            EngineKind::Native => Box::new(NativeEngine::new(&params.config)),
            EngineKind::Candle => Box::new(CandleEngine::new(&params.config)),
        };
        Policy { params, tokenizer, engine, sampler: None, sampler_is_stale: false }
    }

    /// Tells that the weights are others now, so that the sampling engine repacks them before it is used again.
    pub fn weights_changed(&mut self) {
        self.sampler_is_stale = true;
    }

    /// Samples `num_generations` completions of each prompt, at most `max_batch` sequences at once; groups are handed over as
    /// they finish, with the index of their prompt.
    pub fn generate(
        &mut self,
        prompts: &[Prompt],
        num_generations: usize,
        sampling: &SamplingParams,
        max_batch: usize,
        stream: &dyn Fn(u64, u64) -> Stream,
        on_group: &mut dyn FnMut(usize, Group),
    ) -> Result<RolloutStats> {
        if self.sampler.as_ref().is_none_or(|(size, _)| *size != max_batch) {
            // The old one goes first: each holds a packed copy of the weights.
            self.sampler = None;
            self.sampler = Some((max_batch, RolloutEngine::new(&self.params, max_batch)?));
            self.sampler_is_stale = false;
        }
        let (_, sampler) = self.sampler.as_mut().expect("the sampler was just made");
        if self.sampler_is_stale {
            sampler.update(&self.params)?;
            self.sampler_is_stale = false;
        }
        Ok(sampler.generate(&self.tokenizer, prompts, num_generations, sampling, stream, on_group)?)
    }

    /// Log-probabilities of the rows' completions, one list per row, under the policy or under `other` weights.
    pub fn logprobs(&mut self, other: Option<&Params>, rows: &[LossRow], temperature: f32) -> Result<Vec<Vec<f32>>> {
        let params = other.unwrap_or(&self.params);
        let mut all = Vec::with_capacity(rows.len());
        for range in pack::micro_batches(rows) {
            let (packed, targets) = pack::pack(&rows[range.clone()]);
            let leaves = self.engine.evaluate(params, &packed, &targets, temperature)?;
            let mut rest = leaves.logprobs.as_slice();
            for row in &rows[range] {
                let (of_row, after) = rest.split_at(row.completion.len());
                all.push(of_row.to_vec());
                rest = after;
            }
        }
        Ok(all)
    }

    /// Loss over `rows`, whose gradient by the weights is added to `grads`. Micro-batches never cross the ends of `parts`.
    pub fn add_gradients(
        &mut self,
        objective: &dyn Objective,
        rows: &[LossRow],
        parts: &[std::ops::Range<usize>],
        grads: &mut [f32],
    ) -> Result<(f64, TokenStats)> {
        let (mut loss, mut stats) = (0.0, TokenStats::default());
        for part in parts {
            let part = &rows[part.clone()];
            for range in pack::micro_batches(part) {
                let rows = &part[range];
                let (packed, targets) = pack::pack(rows);
                let leaves = self.engine.forward(&self.params, &packed, &targets, objective.temperature())?;
                let (value, logprobs) = loss::differentiate(&leaves.logprobs, |logprobs| objective.loss(logprobs, rows))?;
                loss += value;
                add_stats(&mut stats, objective, &leaves, rows);
                self.engine.backward(&self.params, &LeafGrads { logprobs, entropies: None }, grads)?;
            }
        }
        Ok((loss, stats))
    }
}

fn add_stats(stats: &mut TokenStats, objective: &dyn Objective, leaves: &Leaves, rows: &[LossRow]) {
    let mut at = 0;
    for row in rows {
        for t in 0..row.completion.len() {
            objective.count_token(stats, row, t, leaves.logprobs[at], leaves.entropies[at]);
            at += 1;
        }
    }
}
