//! A model: its weights, the engine that reads and trains them and the engine that samples from them.

use std::path::Path;
use std::time::Instant;

use plumb_core::recipe::{EngineKind, Optimizer};
use plumb_core::rollout::{Group, Prompt, SamplingParams};
use plumb_core::seed::Stream;
use plumb_methods::loss;
use plumb_methods::loss::grpo::TokenStats;
use plumb_model::engine::candle::CandleEngine;
use plumb_model::engine::native::NativeEngine;
use plumb_model::engine::{Engine, LeafGrads, Leaves, Packed, Precision};
use plumb_model::params::Params;
use plumb_model::rollout::{RolloutEngine, RolloutOptions, RolloutStats};
use plumb_model::{LoadedModel, ScoreHead, Tokenizer};

use crate::error::Result;
use crate::objective::{Grain, Objective};
use crate::optimizer::AdamW;
use crate::pack::{self, LossRow};

/// Seconds that [`Policy::add_gradients`] spent since [`Policy::take_times`] was last called.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GradientTimes {
    /// Forward passes, and losses over their log-probabilities.
    pub forward_s: f64,
    /// Backward passes.
    pub backward_s: f64,
}

/// A model with its engines: the one that is trained, its reference, and every other that may be asked.
pub struct Policy {
    /// Its weights. Whoever changes them calls [`Policy::weights_changed`].
    pub params: Params,
    /// Texts to ids and back.
    pub tokenizer: Tokenizer,
    /// The head of a reward model: one score of a row, from the last token's hidden state.
    pub head: Option<ScoreHead>,
    kind: EngineKind,
    precision: Precision,
    engine: Box<dyn Engine>,
    /// Counts changes of the weights.
    generation: u64,
    /// The sampling engine; made when first needed.
    sampler: Option<RolloutEngine>,
    sampler_is_stale: bool,
    times: GradientTimes,
}

impl Policy {
    /// A policy evaluated by the engine of that kind. The precision is that of the native engine and of rollouts.
    pub fn new(model: LoadedModel, engine: EngineKind, precision: Precision) -> Self {
        let LoadedModel { params, tokenizer, .. } = model;
        let kind = engine;
        let engine = self::engine(kind, precision, &params);
        let times = GradientTimes::default();
        Policy {
            params,
            tokenizer,
            kind,
            precision,
            engine,
            head: None,
            generation: 0,
            sampler: None,
            sampler_is_stale: false,
            times,
        }
    }

    /// Becomes a reward model. A language head of its own is given up.
    ///
    /// # Panics
    /// When the head has another width than the model, or more than one label.
    pub fn add_head(&mut self, head: ScoreHead) {
        assert_eq!((head.labels.len(), head.weights.len()), (1, self.params.config.hidden_size), "one score of a hidden state");
        self.params = self.params.clone().without_language_head();
        self.engine = engine(self.kind, self.precision, &self.params);
        self.head = Some(head);
        self.sampler = None;
        self.weights_changed();
    }

    /// Weights of model and head: the length of their gradient.
    pub fn weights_len(&self) -> usize {
        self.params.data.len() + self.head.as_ref().map_or(0, |head| head.weights.len())
    }

    /// An optimizer of model and head that has done nothing yet.
    pub fn optimizer(&self) -> AdamW {
        AdamW::with_head(&self.params.layout, self.weights_len() - self.params.data.len())
    }

    /// One optimizer step of model and head.
    pub fn step(&mut self, optimizer: &mut AdamW, grads: &[f32], grad_scale: f64, learning_rate: f64, settings: &Optimizer) {
        let head = self.head.as_mut().map_or(&mut [][..], |head| &mut head.weights);
        optimizer.step_with_head(&mut self.params, head, grads, grad_scale, learning_rate, settings);
        self.weights_changed();
    }

    /// Writes a Hugging Face folder; with a head that of a sequence-classification model.
    pub fn save(&self, folder: &Path) -> plumb_model::Result<()> {
        match &self.head {
            Some(head) => plumb_model::save_classifier(folder, &self.params, &self.tokenizer, head),
            None => plumb_model::save(folder, &self.params, &self.tokenizer),
        }
    }

    /// A model of its own with the same weights and tokenizer.
    #[must_use]
    pub fn copy(&self) -> Self {
        let model = LoadedModel { params: self.params.clone(), tokenizer: self.tokenizer.clone(), score: None };
        Policy::new(model, self.kind, self.precision)
    }

    /// Tells that the weights are others now, so that the sampling engine repacks them before it is used again.
    pub fn weights_changed(&mut self) {
        self.sampler_is_stale = true;
        self.generation += 1;
    }

    /// Another number after each [`Policy::weights_changed`].
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What gradients took since the last call.
    pub fn take_times(&mut self) -> GradientTimes {
        std::mem::take(&mut self.times)
    }

    /// Samples `num_generations` completions of each prompt; groups are handed over as they finish, with the index of their
    /// prompt. Weights that are to be stored otherwise than in the last call are packed again.
    pub fn generate(
        &mut self,
        prompts: &[Prompt],
        num_generations: usize,
        sampling: &SamplingParams,
        options: RolloutOptions,
        stream: &dyn Fn(u64, u64) -> Stream,
        on_group: &mut dyn FnMut(usize, Group),
    ) -> Result<RolloutStats> {
        let options = RolloutOptions { precision: self.precision, ..options };
        if self.sampler.as_ref().is_none_or(|sampler| {
            let made_for = sampler.options();
            (made_for.weights, made_for.precision) != (options.weights, options.precision)
        }) {
            // The old one goes first: each holds a packed copy of the weights.
            self.sampler = None;
            self.sampler = Some(RolloutEngine::new(&self.params, options)?);
            self.sampler_is_stale = false;
        }
        let sampler = self.sampler.as_mut().expect("the sampler was just made");
        sampler.set_options(options)?;
        if self.sampler_is_stale {
            sampler.update(&self.params)?;
            self.sampler_is_stale = false;
        }
        Ok(sampler.generate(&self.tokenizer, prompts, num_generations, sampling, stream, on_group)?)
    }

    /// Log-probabilities of the rows' completions, one list per row. Each `unit` rows in a row are evaluated together, as
    /// [`Policy::add_gradients`] does.
    pub fn logprobs(&mut self, rows: &[LossRow], unit: usize, temperature: f32) -> Result<Vec<Vec<f32>>> {
        let mut all = Vec::with_capacity(rows.len());
        for range in pack::micro_batches(rows, unit) {
            let leaves = self.leaves(&rows[range.clone()], temperature)?;
            let mut rest = leaves.logprobs.as_slice();
            for row in &rows[range] {
                let (of_row, after) = rest.split_at(row.completion.len());
                all.push(of_row.to_vec());
                rest = after;
            }
        }
        Ok(all)
    }

    /// The engine's answers about rows as one batch.
    fn leaves(&mut self, rows: &[LossRow], temperature: f32) -> Result<Leaves> {
        let (packed, targets) = pack::pack(rows);
        Ok(self.engine.evaluate(&self.params, &packed, &targets, temperature)?)
    }

    /// Last hidden states of a sequence after the final norm, `[tokens, d]`.
    pub fn hidden(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut packed = Packed::default();
        packed.push(tokens, None);
        Ok(self.engine.hidden(&self.params, &packed)?)
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
        let temperature = objective.temperature();
        for part in parts {
            let part = &rows[part.clone()];
            let batches = pack::micro_batches(part, objective.grain().rows());
            // A loss over all rows of several micro-batches is differentiated first; its gradients are then taken back one by one.
            let whole = (objective.grain() == Grain::Part && batches.len() > 1)
                .then(|| self.differentiate_whole(objective, part, &batches, &mut stats))
                .transpose()?;
            let (of_whole, mut rest) = whole.as_ref().map_or((0.0, None), |(value, grads)| (*value, Some(grads.as_slice())));
            loss += of_whole;
            for range in batches {
                let rows = &part[range];
                if objective.scores() {
                    loss += self.add_gradients_of_scores(objective, rows, grads, &mut stats)?;
                    continue;
                }
                let start = Instant::now();
                let (packed, targets) = pack::pack(rows);
                let leaves = self.engine.forward(&self.params, &packed, &targets, temperature)?;
                let logprobs = if let Some(grads) = &mut rest {
                    let (own, after) = grads.split_at(targets.len());
                    *grads = after;
                    own.to_vec()
                } else {
                    let (value, own) = loss::differentiate(&leaves.logprobs, |logprobs| objective.loss(logprobs, rows))?;
                    loss += value;
                    objective.count(&mut stats, rows, &leaves);
                    own
                };
                self.times.forward_s += start.elapsed().as_secs_f64();
                let start = Instant::now();
                self.engine.backward(&self.params, &LeafGrads { logprobs, ..LeafGrads::default() }, grads)?;
                self.times.backward_s += start.elapsed().as_secs_f64();
            }
        }
        Ok((loss, stats))
    }

    /// As [`Policy::add_gradients`] for one micro-batch of a loss over scores; the head's gradient lies behind the model's.
    fn add_gradients_of_scores(
        &mut self,
        objective: &dyn Objective,
        rows: &[LossRow],
        grads: &mut [f32],
        stats: &mut TokenStats,
    ) -> Result<f64> {
        let start = Instant::now();
        let head = self.head.as_ref().expect("a loss over scores has a head");
        let width = self.params.config.hidden_size;
        let (packed, last) = pack::pack_whole(rows);
        let leaves = self.engine.forward_with(&self.params, &packed, &[], &last, 1.0)?;
        let scores: Vec<f64> = leaves.hidden.chunks(width).flat_map(|hidden| head.scores(hidden)).collect();
        let (loss, by_score) = loss::differentiate(&scores, |scores| objective.loss(scores, rows))?;
        objective.count_scores(stats, &scores);
        let forward = start.elapsed();
        let (of_model, of_head) = grads.split_at_mut(self.params.data.len());
        let mut hidden = Vec::with_capacity(leaves.hidden.len());
        for (state, by_score) in leaves.hidden.chunks(width).zip(by_score) {
            hidden.extend(head.weights.iter().map(|&weight| (by_score * f64::from(weight)) as f32));
            of_head.iter_mut().zip(state).for_each(|(sum, &x)| *sum += (by_score * f64::from(x)) as f32);
        }
        self.engine.backward(&self.params, &LeafGrads { hidden, ..LeafGrads::default() }, of_model)?;
        self.times.forward_s += forward.as_secs_f64();
        self.times.backward_s += start.elapsed().as_secs_f64() - forward.as_secs_f64();
        Ok(loss)
    }

    /// Loss over all of `part`, and its gradient by the log-probabilities of all micro-batches.
    fn differentiate_whole(
        &mut self,
        objective: &dyn Objective,
        part: &[LossRow],
        batches: &[std::ops::Range<usize>],
        stats: &mut TokenStats,
    ) -> Result<(f64, Vec<f32>)> {
        let mut all = Leaves::default();
        for range in batches {
            let leaves = self.leaves(&part[range.clone()], objective.temperature())?;
            all.logprobs.extend(leaves.logprobs);
            all.entropies.extend(leaves.entropies);
        }
        objective.count(stats, part, &all);
        Ok(loss::differentiate(&all.logprobs, |logprobs| objective.loss(logprobs, part))?)
    }
}

fn engine(kind: EngineKind, precision: Precision, params: &Params) -> Box<dyn Engine> {
    match kind {
        EngineKind::Native => Box::new(NativeEngine::with_precision(&params.config, precision)),
        EngineKind::Candle => Box::new(CandleEngine::new(&params.config)),
    }
}
