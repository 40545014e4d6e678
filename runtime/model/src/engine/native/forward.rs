//! The forward pass.

use plumb_kernels::cpu::attention::{Heads, attention};
use plumb_kernels::cpu::elementwise::add_bias;
use plumb_kernels::cpu::embedding::gather_rows;
use plumb_kernels::cpu::head_norm::{NormedHeads, head_norm};
use plumb_kernels::cpu::logprob::{Head, Logprobs, logprob};
use plumb_kernels::cpu::matmul::{Matrix, MatrixMut, Precision, Store, matmul};
use plumb_kernels::cpu::rms_norm::rms_norm;
use plumb_kernels::cpu::rope::Turn;
use plumb_kernels::cpu::swiglu::swiglu;

use super::Model;
use super::activations::{Activations, Scratch};
use super::plan::Plan;
use super::weights::LayerWeights;
use crate::config::ModelConfig;
use crate::params::Params;

impl Model {
    pub(super) fn heads(&self) -> Heads {
        let c = &self.config;
        Heads { query: c.num_attention_heads, key: c.num_key_value_heads, dim: c.head_dim }
    }

    pub(super) fn normed_heads(&self) -> NormedHeads {
        let heads = self.heads();
        NormedHeads { stride: heads.qkv_stride(), query_heads: heads.query, key_heads: heads.key }
    }

    pub(super) fn eps(&self) -> f32 {
        self.config.rms_norm_eps as f32
    }
}

/// `y[n, out] (+)= x[n, in] · w[out, in]ᵀ`.
fn linear(precision: Precision, store: Store, x: &[f32], w: &[f32], y: &mut [f32], n: usize) {
    let (inputs, outputs) = (x.len() / n, y.len() / n);
    matmul(precision, store, MatrixMut::new(y, n, outputs), Matrix::new(x, n, inputs), Matrix::new(w, outputs, inputs).t());
}

/// Log-probabilities of the plan's targets; leaves the hidden states of its rows and in `activations` as many layers as it has room for.
pub(super) fn forward(
    model: &Model,
    params: &Params,
    plan: &Plan,
    activations: &mut Activations,
    scratch: &mut Scratch,
) -> Logprobs {
    let (n, d) = (plan.tokens.len(), model.config.hidden_size);
    let weights = &model.weights;
    let last = blocks(model, params, plan, activations, scratch);
    let rows = plan.hidden_rows.len();
    let Activations { streams, target_rows, final_r, hidden, .. } = activations;
    let target_rows = target_rows.writable(rows * d);
    gather_rows(streams[last].read(n * d), &plan.hidden_rows, d, target_rows);
    let hidden = hidden.writable(rows * d);
    rms_norm(target_rows, &params.data[weights.final_norm.clone()], model.eps(), hidden, final_r.writable(rows));
    logprob(head(model, params, plan, &hidden[..plan.rows.len() * d]), scratch.logits.vec())
}

/// All tokens' last hidden states after the final norm, `[n, d]`.
pub(super) fn hidden(
    model: &Model,
    params: &Params,
    plan: &Plan,
    activations: &mut Activations,
    scratch: &mut Scratch,
) -> Vec<f32> {
    let (n, d) = (plan.tokens.len(), model.config.hidden_size);
    let last = blocks(model, params, plan, activations, scratch);
    let Activations { streams, final_r, .. } = activations;
    let mut hidden = vec![0.0; n * d];
    let norm = &params.data[model.weights.final_norm.clone()];
    rms_norm(streams[last].read(n * d), norm, model.eps(), &mut hidden, final_r.writable(n));
    hidden
}

/// Embedding and all blocks; the index of the stream that holds what the last one leaves.
fn blocks(model: &Model, params: &Params, plan: &Plan, activations: &mut Activations, scratch: &mut Scratch) -> usize {
    let (n, d) = (plan.tokens.len(), model.config.hidden_size);
    let weights = &model.weights;
    if n > 0 {
        let embedding = &params.data[weights.embedding.clone()];
        gather_rows(embedding, &plan.tokens, d, activations.streams[0].writable(n * d));
        for (layer, layer_weights) in weights.layers.iter().enumerate() {
            block(model, &params.data, plan, layer, layer_weights, activations, scratch);
        }
    }
    activations.streams_of(weights.layers.len() - 1, true)[2]
}

/// The output layer over these hidden states.
pub(super) fn head<'a>(model: &Model, params: &'a Params, plan: &'a Plan, hidden: &'a [f32]) -> Head<'a> {
    Head {
        matrix: &params.data[model.weights.output.clone()],
        hidden,
        width: model.config.hidden_size,
        temperature: plan.temperature,
        row_ends: &plan.row_ends,
        tokens: &plan.target_tokens,
        precision: model.precision,
    }
}

/// One block: `x += attention(norm(x))`, `x += feed_forward(norm(x))`.
fn block(
    model: &Model,
    params: &[f32],
    plan: &Plan,
    layer: usize,
    weights: &LayerWeights,
    activations: &mut Activations,
    scratch: &mut Scratch,
) {
    let ModelConfig { hidden_size: d, intermediate_size: f, num_hidden_layers, .. } = model.config;
    let (n, heads, eps) = (plan.tokens.len(), model.heads(), model.eps());
    let streams = activations.streams_of(layer, layer + 1 == num_hidden_layers);
    let slot = activations.slot(layer);
    let a = &mut activations.layers[slot];
    // Taken out while others are written, and put back.
    let [before, mut between] = [streams[0], streams[1]].map(|i| std::mem::take(&mut activations.streams[i]));

    let normed = scratch.normed.writable(n * d);
    rms_norm(before.read(n * d), &params[weights.input_norm.clone()], eps, normed, a.input_r.writable(n));
    let qkv = a.qkv.writable(n * heads.qkv_stride());
    linear(model.precision, Store::Set, normed, &params[weights.qkv.clone()], qkv, n);
    if let Some(bias) = &weights.qkv_bias {
        add_bias(qkv, &params[bias.clone()]);
    }
    if let Some([query, key]) = &weights.head_norms {
        a.qkv_before_norms.writable(qkv.len()).copy_from_slice(qkv);
        let r = a.head_r.writable(n * (heads.query + heads.key));
        head_norm(model.normed_heads(), qkv, &params[query.clone()], &params[key.clone()], eps, r);
    }
    model.rope.apply(Turn::Forward, qkv, heads.qkv_stride(), heads.query + heads.key, &plan.positions);
    let mixed = a.mixed.writable(n * heads.out_stride());
    attention(heads, qkv, &plan.spans, mixed, a.lse.writable(heads.query * n));
    let x = between.writable(n * d);
    x.copy_from_slice(before.read(n * d));
    linear(model.precision, Store::Add, mixed, &params[weights.attention_output.clone()], x, n);
    if let Some(bias) = &weights.attention_output_bias {
        add_bias(x, &params[bias.clone()]);
    }
    activations.streams[streams[0]] = before;

    rms_norm(x, &params[weights.post_norm.clone()], eps, normed, a.post_r.writable(n));
    let gate_up = a.gate_up.writable(n * 2 * f);
    linear(model.precision, Store::Set, normed, &params[weights.gate_up.clone()], gate_up, n);
    let gated = scratch.gated.writable(n * f);
    swiglu(gate_up, gated, f);
    let after = activations.streams[streams[2]].writable(n * d);
    after.copy_from_slice(x);
    linear(model.precision, Store::Add, gated, &params[weights.down.clone()], after, n);
    activations.streams[streams[1]] = between;
}
