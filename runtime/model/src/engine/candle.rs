//! The reference engine: candle's autograd over basic tensor operations.
//!
//! It is written for plainness. Every operation has a backward in candle, or is composed from those that do, as `candle_nn`'s
//! layers and `softmax` are; its fused `rms_norm`, `rope` and `softmax_last_dim` have none and would cut the gradient without a
//! word. The fast engine is held to this one by tests.

use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops::{log_softmax, silu, softmax};
use candle_nn::{Embedding, Linear, Module};

use super::{Engine, LeafGrads, Leaves, Packed, Target};
use crate::config::ModelConfig;
use crate::params::Params;
use crate::{Error, Result};

/// Targets whose logits `[TARGETS_PER_CHUNK, V]` exist at once.
const TARGETS_PER_CHUNK: usize = 256;

/// Evaluates the transformer with candle on the CPU, in float32.
///
/// The gradient is taken in two parts that meet at the last hidden states: first leaves to hidden states, a chunk of targets at
/// a time with logits computed again, then hidden states to weights through all blocks.
#[derive(Debug)]
pub struct CandleEngine {
    config: ModelConfig,
    frequencies: Vec<f64>,
    pending: Option<Pending>,
}

/// What backward needs of a forward.
#[derive(Debug)]
struct Pending {
    weights: Weights,
    /// Last hidden states after the final norm, `[N, d]`, with their graph.
    hidden: Tensor,
    targets: Vec<Target>,
    /// Rows whose hidden states are leaves too.
    rows: Vec<u32>,
    temperature: f64,
}

/// All tensors of the model as leaves of candle's graph, in the order of the layout.
#[derive(Debug)]
struct Weights {
    vars: Vec<Var>,
    layout: std::sync::Arc<crate::params::Layout>,
}

impl Weights {
    fn new(params: &Params) -> Result<Self> {
        let var = |spec: &crate::params::TensorSpec| {
            Var::from_slice(&params.data[spec.range.clone()], spec.shape.as_slice(), &Device::Cpu)
        };
        let vars = params.layout.tensors().iter().map(var).collect::<candle_core::Result<_>>()?;
        Ok(Weights { vars, layout: params.layout.clone() })
    }

    fn find(&self, name: &str) -> Option<&Tensor> {
        let index = self.layout.tensors().iter().position(|spec| spec.name == name)?;
        Some(self.vars[index].as_tensor())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.find(name).unwrap_or_else(|| panic!("the model has no tensor `{name}`"))
    }

    /// From hidden states to logits, by a matrix `[V, d]` that may be the embedding's.
    fn output(&self) -> Linear {
        let matrix = self.find("lm_head.weight").unwrap_or_else(|| self.get("model.embed_tokens.weight"));
        Linear::new(matrix.clone(), None)
    }

    /// The layer `x W^T + b`; the bias where there is one.
    fn linear(&self, name: &str) -> Linear {
        Linear::new(self.get(&format!("{name}.weight")).clone(), self.find(&format!("{name}.bias")).cloned())
    }

    /// Adds the gradients that candle found to the flat buffer.
    fn add_grads(&self, store: &candle_core::backprop::GradStore, grads: &mut [f32]) -> candle_core::Result<()> {
        for (var, spec) in self.vars.iter().zip(self.layout.tensors()) {
            if let Some(grad) = store.get(var) {
                let grad = grad.flatten_all()?.to_vec1::<f32>()?;
                grads[spec.range.clone()].iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
            }
        }
        Ok(())
    }
}

impl CandleEngine {
    /// An engine for models of that configuration.
    pub fn new(config: &ModelConfig) -> Self {
        CandleEngine { config: config.clone(), frequencies: config.rope_frequencies(), pending: None }
    }

    /// Last hidden states after the final norm, `[N, d]`.
    fn last_hidden(&self, weights: &Weights, packed: &Packed) -> Result<Tensor> {
        let config = &self.config;
        for (segment, run) in packed.segments.iter().enumerate() {
            let length = packed.offset(segment) + run.len;
            if length > config.max_position_embeddings {
                return Err(Error::TooLong { length, limit: config.max_position_embeddings });
            }
        }
        let ids = Tensor::from_slice(&packed.tokens, packed.tokens.len(), &Device::Cpu)?;
        let mut x = Embedding::new(weights.get("model.embed_tokens.weight").clone(), config.hidden_size).forward(&ids)?;
        let rotary = self.rotary(packed)?;
        for layer in 0..config.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let normed = rms_norm(&x, weights.get(&name("input_layernorm.weight")), config.rms_norm_eps)?;
            x = (x + self.attention(weights, &name("self_attn"), &normed, packed, &rotary)?)?;
            let normed = rms_norm(&x, weights.get(&name("post_attention_layernorm.weight")), config.rms_norm_eps)?;
            let gate = weights.linear(&name("mlp.gate_proj")).forward(&normed)?;
            let up = weights.linear(&name("mlp.up_proj")).forward(&normed)?;
            x = (x + weights.linear(&name("mlp.down_proj")).forward(&(silu(&gate)? * up)?)?)?;
        }
        Ok(rms_norm(&x, weights.get("model.norm.weight"), config.rms_norm_eps)?)
    }

    /// Cosines and sines of each token's rotations, `[1, N, head_dim / 2]` each.
    fn rotary(&self, packed: &Packed) -> Result<(Tensor, Tensor)> {
        let angles: Vec<f64> = (packed.segments.iter().enumerate())
            .flat_map(|(segment, run)| (0..run.len).map(move |i| packed.offset(segment) + i))
            .flat_map(|position| self.frequencies.iter().map(move |frequency| position as f64 * frequency))
            .collect();
        let shape = (1, packed.tokens.len(), self.frequencies.len());
        let table =
            |f: fn(f64) -> f64| Tensor::from_vec(angles.iter().map(|&angle| f(angle) as f32).collect(), shape, &Device::Cpu);
        Ok((table(f64::cos)?, table(f64::sin)?))
    }

    /// Self-attention of all segments, `[N, d]` to `[N, d]`.
    fn attention(&self, weights: &Weights, name: &str, x: &Tensor, packed: &Packed, rotary: &(Tensor, Tensor)) -> Result<Tensor> {
        let config = &self.config;
        let (n, head_dim) = (packed.tokens.len(), config.head_dim);
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let split = |projection: &str, heads: usize| -> candle_core::Result<Tensor> {
            let projected = weights.linear(&format!("{name}.{projection}_proj")).forward(x)?.reshape((n, heads, head_dim))?;
            let normed = match weights.find(&format!("{name}.{projection}_norm.weight")) {
                Some(weight) => rms_norm(&projected, weight, config.rms_norm_eps)?,
                None => projected,
            };
            normed.transpose(0, 1)?.contiguous()
        };
        let q = rotate(&split("q", heads)?, rotary)?;
        let k = rotate(&split("k", kv_heads)?, rotary)?;
        let v = split("v", kv_heads)?;
        let mut outputs = Vec::with_capacity(packed.segments.len());
        for (segment, run) in packed.segments.iter().enumerate() {
            let context = |all: &Tensor| -> candle_core::Result<Tensor> {
                let own = all.narrow(1, run.start, run.len)?;
                let Some(prefix) = run.prefix.map(|prefix| &packed.segments[prefix]) else { return own.contiguous() };
                Tensor::cat(&[all.narrow(1, prefix.start, prefix.len)?, own], 1)
            };
            let (k, v) = (context(&k)?, context(&v)?);
            let seen = packed.offset(segment);
            let keys = seen + run.len;
            // Query heads of one key head are adjacent: as rows of one matrix they share its keys without copies.
            let rows = heads / kv_heads * run.len;
            let q = q.narrow(1, run.start, run.len)?.contiguous()?.reshape((kv_heads, rows, head_dim))?;
            let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? / (head_dim as f64).sqrt())?;
            let scores = scores.reshape((heads, run.len, keys))?.broadcast_add(&causal_mask(run.len, seen)?)?;
            let weights = softmax(&scores, D::Minus1)?.reshape((kv_heads, rows, keys))?;
            outputs.push(weights.matmul(&v)?.reshape((heads, run.len, head_dim))?);
        }
        let joined = Tensor::cat(&outputs, 1)?.transpose(0, 1)?.contiguous()?.reshape((n, heads * head_dim))?;
        Ok(weights.linear(&format!("{name}.o_proj")).forward(&joined)?)
    }
}

/// `x / sqrt(mean(x²) + eps) * weight` over the last axis (Zhang and Sennrich 2019).
fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> candle_core::Result<Tensor> {
    let root = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    x.broadcast_div(&root)?.broadcast_mul(weight)
}

/// Turns each pair (x[i], x[i + head_dim/2]) of `[heads, N, head_dim]` by its token's angle (Su et al. 2021).
fn rotate(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> candle_core::Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let turned_a = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let turned_b = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    Tensor::cat(&[turned_a, turned_b], D::Minus1)
}

/// 0 where query i may see key j (j <= seen + i), minus infinity elsewhere: `[1, len, seen + len]`.
fn causal_mask(len: usize, seen: usize) -> candle_core::Result<Tensor> {
    let allowed = |i: usize, j: usize| if j <= seen + i { 0.0 } else { f32::NEG_INFINITY };
    let mask = (0..len).flat_map(|i| (0..seen + len).map(move |j| allowed(i, j))).collect();
    Tensor::from_vec(mask, (1, len, seen + len), &Device::Cpu)
}

/// Log-probabilities and entropies, `[m]` each, of targets whose rows are gathered in `hidden`, `[m, d]`.
fn leaves_of(hidden: &Tensor, output: &Linear, targets: &[Target], temperature: f64) -> candle_core::Result<(Tensor, Tensor)> {
    let logits = (output.forward(hidden)? / temperature)?;
    let logprobs = log_softmax(&logits, D::Minus1)?;
    let entropies = (logprobs.exp()? * &logprobs)?.sum(D::Minus1)?.neg()?;
    let ids: Vec<u32> = targets.iter().map(|target| target.token).collect();
    let chosen = logprobs.gather(&Tensor::from_vec(ids, (targets.len(), 1), &Device::Cpu)?, 1)?.squeeze(1)?;
    Ok((chosen, entropies))
}

/// Rows of the hidden states that targets ask about.
fn rows_of(hidden: &Tensor, targets: &[Target]) -> candle_core::Result<Tensor> {
    let rows: Vec<u32> = targets.iter().map(|target| target.row).collect();
    hidden.index_select(&Tensor::from_vec(rows, targets.len(), &Device::Cpu)?, 0)
}

fn all_leaves(hidden: &Tensor, weights: &Weights, targets: &[Target], temperature: f64) -> Result<Leaves> {
    let (hidden, output) = (hidden.detach(), Linear::new(weights.output().weight().detach(), None));
    let mut leaves = Leaves::default();
    for chunk in targets.chunks(TARGETS_PER_CHUNK) {
        let (logprobs, entropies) = leaves_of(&rows_of(&hidden, chunk)?, &output, chunk, temperature)?;
        leaves.logprobs.extend(logprobs.to_vec1::<f32>()?);
        leaves.entropies.extend(entropies.to_vec1::<f32>()?);
    }
    for (what, values) in [("log-probability", &leaves.logprobs), ("entropy", &leaves.entropies)] {
        if let Some(target) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::NonFinite { what: format!("the {what} of target {target}") });
        }
    }
    Ok(leaves)
}

impl Engine for CandleEngine {
    fn evaluate(&mut self, params: &Params, packed: &Packed, targets: &[Target], temperature: f32) -> Result<Leaves> {
        let weights = Weights::new(params)?;
        let hidden = self.last_hidden(&weights, packed)?;
        all_leaves(&hidden, &weights, targets, f64::from(temperature))
    }

    fn hidden(&mut self, params: &Params, packed: &Packed) -> Result<Vec<f32>> {
        let hidden = self.last_hidden(&Weights::new(params)?, packed)?;
        Ok(hidden.detach().flatten_all()?.to_vec1::<f32>()?)
    }

    fn forward_with(
        &mut self,
        params: &Params,
        packed: &Packed,
        targets: &[Target],
        rows: &[u32],
        temperature: f32,
    ) -> Result<Leaves> {
        self.pending = None;
        let weights = Weights::new(params)?;
        let hidden = self.last_hidden(&weights, packed)?;
        let temperature = f64::from(temperature);
        let mut leaves = all_leaves(&hidden, &weights, targets, temperature)?;
        if !rows.is_empty() {
            leaves.hidden = hidden.detach().index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?.flatten_all()?.to_vec1()?;
        }
        if leaves.hidden.iter().any(|value| !value.is_finite()) {
            return Err(Error::NonFinite { what: "a hidden state".into() });
        }
        self.pending = Some(Pending { weights, hidden, targets: targets.to_vec(), rows: rows.to_vec(), temperature });
        Ok(leaves)
    }

    /// # Panics
    /// When there was no forward before it, or the gradients are not as many as its targets.
    fn backward(&mut self, _params: &Params, leaf_grads: &LeafGrads, grads: &mut [f32]) -> Result<()> {
        let Pending { weights, hidden, targets, rows, temperature } = self.pending.take().expect("backward follows a forward");
        assert_eq!(leaf_grads.logprobs.len(), targets.len(), "one gradient per target");
        let constant = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        // Leaves to hidden states: each chunk is a graph of its own.
        let mut hidden_grad = hidden.zeros_like()?.detach();
        for (i, chunk) in targets.chunks(TARGETS_PER_CHUNK).enumerate() {
            let range = i * TARGETS_PER_CHUNK..i * TARGETS_PER_CHUNK + chunk.len();
            let rows = Var::from_tensor(&rows_of(&hidden.detach(), chunk)?)?;
            let (logprobs, entropies) = leaves_of(rows.as_tensor(), &weights.output(), chunk, temperature)?;
            let mut loss = (logprobs * constant(&leaf_grads.logprobs[range.clone()])?)?.sum_all()?;
            if let Some(entropy_grads) = &leaf_grads.entropies {
                loss = (loss + (entropies * constant(&entropy_grads[range])?)?.sum_all()?)?;
            }
            let store = loss.backward()?;
            weights.add_grads(&store, grads)?;
            if let Some(rows_grad) = store.get(&rows) {
                let index: Vec<u32> = chunk.iter().map(|target| target.row).collect();
                let index = Tensor::from_vec(index, chunk.len(), &Device::Cpu)?;
                // Gradients of leaves come with the graph that made them; the product below would go on through it.
                hidden_grad = hidden_grad.index_add(&index, &rows_grad.detach(), 0)?;
            }
        }
        if !rows.is_empty() {
            let grad = Tensor::from_slice(&leaf_grads.hidden, (rows.len(), hidden.dim(1)?), &Device::Cpu)?;
            hidden_grad = hidden_grad.index_add(&Tensor::new(rows, &Device::Cpu)?, &grad, 0)?;
        }
        // Hidden states to weights: the gradient of this product is `hidden_grad` at the hidden states.
        let store = (hidden * hidden_grad)?.sum_all()?.backward()?;
        weights.add_grads(&store, grads)?;
        if grads.iter().any(|grad| !grad.is_finite()) {
            return Err(Error::NonFinite { what: "the gradient".into() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Architecture, Llama3Rope};
    use crate::random::{random_params, tests::tiny};
    use plumb_core::seed::Stream;

    const ARCHITECTURES: [Architecture; 4] =
        [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3];

    /// Random weights in all tensors, biases and norms too, so that none of them is at a special point.
    fn params(config: ModelConfig) -> Params {
        let mut params = random_params(config, 0.3, 5);
        let stream = Stream::new(5, "nudge", &[]);
        params.data.iter_mut().enumerate().for_each(|(i, x)| *x += 0.1 * stream.normal_at(i as u64) as f32);
        params
    }

    /// A prompt with two completions, and a sequence of its own; first tokens of completions ask the prompt's last row.
    fn shared() -> (Packed, Vec<Target>) {
        let mut packed = Packed::default();
        let prompt = packed.push(&[3, 1, 4, 1, 5], None);
        packed.push(&[9, 2, 6], Some(prompt));
        packed.push(&[7, 8], None);
        packed.push(&[5, 3, 5, 8], Some(prompt));
        let targets = [(4, 9), (5, 2), (6, 6), (7, 0), (8, 8), (4, 5), (10, 3), (11, 5), (12, 8)];
        (packed, targets.map(|(row, token)| Target { row, token }).to_vec())
    }

    /// Σ logprob · a + Σ entropy · b with fixed coefficients.
    fn coefficients(count: usize) -> LeafGrads {
        let stream = Stream::new(9, "coefficients", &[]);
        let draw = |from: usize| (from..from + count).map(|i| stream.normal_at(i as u64) as f32).collect::<Vec<_>>();
        LeafGrads { logprobs: draw(0), entropies: Some(draw(count)), hidden: Vec::new() }
    }

    fn loss(leaves: &Leaves, by: &LeafGrads) -> f64 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        dot(&leaves.logprobs, &by.logprobs) + dot(&leaves.entropies, by.entropies.as_ref().unwrap())
    }

    #[test]
    fn gradient_of_every_tensor_agrees_with_finite_differences() {
        for architecture in ARCHITECTURES {
            let params = params(tiny(architecture));
            let (packed, targets) = shared();
            let by = coefficients(targets.len());
            let mut engine = CandleEngine::new(&params.config);
            let mut grads = vec![0.0; params.layout.len()];
            engine.forward(&params, &packed, &targets, 0.7).unwrap();
            engine.backward(&params, &by, &mut grads).unwrap();
            for (t, spec) in params.layout.tensors().iter().enumerate() {
                let stream = Stream::new(1, "direction", &[t as u64]);
                let direction: Vec<f64> = (0..spec.range.len()).map(|i| stream.normal_at(i as u64)).collect();
                let analytic: f64 = grads[spec.range.clone()].iter().zip(&direction).map(|(g, u)| f64::from(*g) * u).sum();
                let norm = direction.iter().map(|u| u * u).sum::<f64>().sqrt();
                // The numeric derivative's error is rounding / step + step²: 1e-2 altogether balances them in float32.
                let step = 1e-2 / norm;
                let mut at = |step: f64| {
                    let mut moved = params.clone();
                    moved.data[spec.range.clone()]
                        .iter_mut()
                        .zip(&direction)
                        .for_each(|(x, u)| *x = (f64::from(*x) + step * u) as f32);
                    loss(&engine.evaluate(&moved, &packed, &targets, 0.7).unwrap(), &by)
                };
                let numeric = (at(step) - at(-step)) / (2.0 * step);
                let tolerance = 2e-3 * analytic.abs() + 2e-3 * norm;
                assert!((analytic - numeric).abs() < tolerance, "{architecture:?} {}: {analytic} and {numeric}", spec.name);
            }
        }
    }

    #[test]
    fn shared_prefix_gives_what_separate_sequences_give() {
        for architecture in ARCHITECTURES {
            let mut config = tiny(architecture);
            config.rope_scaling =
                Some(Llama3Rope { factor: 4.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 32 });
            let params = params(config);
            let (packed, targets) = shared();
            let mut engine = CandleEngine::new(&params.config);
            let together = engine.evaluate(&params, &packed, &targets, 1.0).unwrap();
            let mut separate = Packed::default();
            separate.push(&[3, 1, 4, 1, 5, 9, 2, 6], None);
            separate.push(&[7, 8], None);
            separate.push(&[3, 1, 4, 1, 5, 5, 3, 5, 8], None);
            // The same questions where the tokens lie now.
            let rows = [4, 5, 6, 7, 8, 14, 15, 16, 17];
            let moved: Vec<Target> = targets.iter().zip(rows).map(|(target, row)| Target { row, ..*target }).collect();
            let apart = engine.evaluate(&params, &separate, &moved, 1.0).unwrap();
            for (a, b) in together.logprobs.iter().zip(&apart.logprobs).chain(together.entropies.iter().zip(&apart.entropies)) {
                assert!((a - b).abs() < 1e-5, "{architecture:?}: {a} and {b}");
            }
        }
    }

    #[test]
    fn chunks_of_targets_do_not_change_answers_or_gradients() {
        let params = params(tiny(Architecture::Llama));
        let (packed, few) = shared();
        let many: Vec<Target> = few.iter().copied().cycle().take(TARGETS_PER_CHUNK + few.len()).collect();
        let mut engine = CandleEngine::new(&params.config);
        let leaves = engine.forward(&params, &packed, &many, 1.0).unwrap();
        for (i, logprob) in leaves.logprobs.iter().enumerate() {
            assert!((logprob - leaves.logprobs[i % few.len()]).abs() < 1e-5);
        }
        let by = coefficients(many.len());
        let mut grads = vec![0.0; params.layout.len()];
        engine.backward(&params, &by, &mut grads).unwrap();
        // Equal targets' coefficients add up.
        let mut summed = LeafGrads { logprobs: vec![0.0; few.len()], entropies: Some(vec![0.0; few.len()]), hidden: Vec::new() };
        for i in 0..many.len() {
            summed.logprobs[i % few.len()] += by.logprobs[i];
            summed.entropies.as_mut().unwrap()[i % few.len()] += by.entropies.as_ref().unwrap()[i];
        }
        engine.forward(&params, &packed, &few, 1.0).unwrap();
        let mut expected = vec![0.0; params.layout.len()];
        engine.backward(&params, &summed, &mut expected).unwrap();
        let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
        assert!(scale > 0.1 && grads.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4 * scale));
    }

    #[test]
    fn sequence_beyond_the_context_is_refused() {
        let params = params(tiny(Architecture::Llama));
        let mut packed = Packed::default();
        let prompt = packed.push(&[1; 60], None);
        packed.push(&[2; 5], Some(prompt));
        let error = CandleEngine::new(&params.config).evaluate(&params, &packed, &[], 1.0).unwrap_err();
        assert!(matches!(error, Error::TooLong { length: 65, limit: 64 }));
    }

    #[test]
    fn weights_that_are_not_numbers_are_reported() {
        let mut params = params(tiny(Architecture::Llama));
        params.data[0] = f32::NAN;
        let mut packed = Packed::default();
        packed.push(&[0, 1], None);
        let error = CandleEngine::new(&params.config).evaluate(&params, &packed, &[Target { row: 1, token: 2 }], 1.0);
        assert!(matches!(error, Err(Error::NonFinite { .. })));
    }
}
