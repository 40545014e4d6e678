//! A model: its weights, the engine that reads and trains them and the engine that samples from them.

use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
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
use crate::objective::{Grain, LeafKind, Objective};
use crate::optimizer::AdamW;
use crate::pack::{self, LossRow};

/// Most logits that a loss over them holds at once, 16 MiB: the graph over them needs several times that.
const LOGITS_MAX: usize = 4 << 20;

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

    /// Last hidden states before each token of the rows' completions, one list `[tokens, d]` per row.
    pub fn target_hidden(&mut self, rows: &[LossRow]) -> Result<Vec<Vec<f32>>> {
        let (mut all, width) = (Vec::with_capacity(rows.len()), self.params.config.hidden_size);
        for range in pack::micro_batches(rows, 1) {
            let rows = &rows[range];
            let (packed, targets) = pack::pack(rows);
            let hidden = self.engine.hidden(&self.params, &packed)?;
            let mut targets = targets.iter();
            all.extend(rows.iter().map(|row| {
                let of_row = targets.by_ref().take(row.completion.len());
                of_row.flat_map(|target| &hidden[target.row as usize * width..][..width]).copied().collect::<Vec<f32>>()
            }));
        }
        Ok(all)
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
                match objective.leaf() {
                    LeafKind::Logprobs => {}
                    LeafKind::Scores => {
                        loss += self.add_gradients_of_scores(objective, rows, grads, &mut stats)?;
                        continue;
                    }
                    LeafKind::Logits => {
                        loss += self.add_gradients_of_logits(objective, rows, LOGITS_MAX, grads, &mut stats)?;
                        continue;
                    }
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

    /// As [`Policy::add_gradients`] for one micro-batch of a loss over logits, of which at most `logits_max` are held, and those of
    /// one token at least.
    fn add_gradients_of_logits(
        &mut self,
        objective: &dyn Objective,
        rows: &[LossRow],
        logits_max: usize,
        grads: &mut [f32],
        stats: &mut TokenStats,
    ) -> Result<f64> {
        let start = Instant::now();
        let (packed, targets) = pack::pack(rows);
        let asked: Vec<u32> = targets.iter().map(|target| target.row).collect();
        let leaves = self.engine.forward_with(&self.params, &packed, &[], &asked, 1.0)?;
        let (width, vocab) = (self.params.config.hidden_size, self.params.config.vocab_size);
        let matrix = Tensor::from_slice(self.params.output_matrix(), (vocab, width), &Device::Cpu)?;
        let of_matrix = &mut grads[self.params.output_range()];
        let (mut loss, mut by_hidden) = (0.0, Vec::with_capacity(leaves.hidden.len()));
        let tokens_at_once = (logits_max / vocab).max(1);
        for (i, hidden) in leaves.hidden.chunks(tokens_at_once * width).enumerate() {
            let tokens = hidden.len() / width;
            let first = i * tokens_at_once;
            let hidden = Tensor::from_slice(hidden, (tokens, width), &Device::Cpu)?;
            let logits = Var::from_tensor(&hidden.matmul(&matrix.t()?)?)?;
            let value = objective.loss_of_logits(logits.as_tensor(), rows, first..first + tokens, stats)?;
            let by_logits = value.backward()?.remove(logits.as_tensor()).map_or_else(|| logits.zeros_like(), Ok)?;
            loss += f64::from(value.to_scalar::<f32>()?);
            by_hidden.extend(by_logits.matmul(&matrix)?.flatten_all()?.to_vec1::<f32>()?);
            let by_matrix = by_logits.t()?.matmul(&hidden)?.flatten_all()?.to_vec1::<f32>()?;
            of_matrix.iter_mut().zip(by_matrix).for_each(|(sum, by)| *sum += by);
        }
        let forward = start.elapsed();
        self.engine.backward(&self.params, &LeafGrads { hidden: by_hidden, ..LeafGrads::default() }, grads)?;
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

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use plumb_core::recipe::RandomModel;

    use super::*;
    use crate::models::Served;
    use crate::objective::Lesson;
    use crate::plugins::StagePlugins;
    use crate::run::MetricSet;

    /// Σ (place + 1) · Σ_v v · logit_v²: each token and each logit counts differently.
    struct Squares;

    impl Objective for Squares {
        fn prepare(&mut self, _: &mut Served<'_>, _: &StagePlugins, _: u64, _: u64) -> Result<Lesson> {
            Ok(Lesson::default())
        }

        fn leaf(&self) -> LeafKind {
            LeafKind::Logits
        }

        fn loss(&self, logprobs: &Tensor, _: &[LossRow]) -> candle_core::Result<Tensor> {
            logprobs.sum_all()
        }

        fn loss_of_logits(
            &self,
            logits: &Tensor,
            _: &[LossRow],
            tokens: Range<usize>,
            stats: &mut TokenStats,
        ) -> candle_core::Result<Tensor> {
            stats.tokens += tokens.len() as f64;
            let places = Tensor::from_iter(tokens.map(|token| token as f32 + 1.0), &Device::Cpu)?.unsqueeze(1)?;
            let words = Tensor::arange(0.0, logits.dim(1)? as f32, &Device::Cpu)?.unsqueeze(0)?;
            (logits.sqr()?.broadcast_mul(&words)?.broadcast_mul(&places)?).sum_all()
        }

        fn count(&self, _: &mut TokenStats, _: &[LossRow], _: &Leaves) {}

        fn report(&self, _: &TokenStats, _: &mut MetricSet) {}
    }

    #[test]
    fn losses_over_logits_are_the_same_however_many_are_held_and_with_either_engine() {
        let spec = RandomModel {
            alphabet: "abcd".into(),
            hidden_size: 8,
            intermediate_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: None,
            max_position_embeddings: 16,
            initializer_range: 0.3,
        };
        let prompt: std::sync::Arc<[u32]> = [0, 1].into();
        let rows = [[2, 3, 1].as_slice(), &[1], &[3, 3]].map(|tokens| LossRow::new(prompt.clone(), tokens.into(), 1.0));
        let gradients = |engine, logits_max| {
            let mut policy = Policy::new(plumb_model::random(&spec, 5).unwrap(), engine, Precision::Highest);
            let (mut grads, mut stats) = (vec![0.0; policy.weights_len()], TokenStats::default());
            let loss = policy.add_gradients_of_logits(&Squares, &rows, logits_max, &mut grads, &mut stats).unwrap();
            assert_eq!(stats.tokens, 6.0);
            (loss, grads)
        };
        let (loss, whole) = gradients(EngineKind::Candle, 1000);
        assert!(loss > 0.1 && whole.iter().any(|g| g.abs() > 0.01), "{loss}");
        for (engine, logits_max) in [(EngineKind::Native, 1000), (EngineKind::Native, 10), (EngineKind::Candle, 0)] {
            let (other, grads) = gradients(engine, logits_max);
            assert!((loss / other - 1.0).abs() < 1e-5, "{engine:?}, {logits_max}: {loss} and {other}");
            let far = whole.iter().zip(&grads).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-4, "{engine:?}, {logits_max}: {far}");
        }

        // The gradient by one weight of the output matrix, by differences.
        let mut policy = Policy::new(plumb_model::random(&spec, 5).unwrap(), EngineKind::Native, Precision::Highest);
        let at = policy.params.output_range().start + 11;
        let mut loss_at = |step: f32| {
            policy.params.data[at] += step;
            let mut grads = vec![0.0; policy.weights_len()];
            let value = policy.add_gradients_of_logits(&Squares, &rows, 1000, &mut grads, &mut TokenStats::default()).unwrap();
            policy.params.data[at] -= step;
            value
        };
        let numeric = (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2;
        assert!((numeric - f64::from(whole[at])).abs() < 0.02 * numeric.abs() + 1e-3, "{numeric} and {}", whole[at]);
    }
}
