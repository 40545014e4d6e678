//! The backward pass: the forward pass's operations in reverse, each with its gradient.

use plumb_kernels::cpu::attention::{AttentionSaved, attention_backward};
use plumb_kernels::cpu::elementwise::add_bias_backward;
use plumb_kernels::cpu::embedding::scatter_add_rows;
use plumb_kernels::cpu::head_norm::{HeadNormSaved, head_norm_backward};
use plumb_kernels::cpu::logprob::{LogprobGrads, Logprobs, logprob_backward};
use plumb_kernels::cpu::matmul::{Matrix, MatrixMut, Precision, Store, matmul};
use plumb_kernels::cpu::rms_norm::{rms_norm_again, rms_norm_backward};
use plumb_kernels::cpu::rope::Turn;
use plumb_kernels::cpu::swiglu::{swiglu, swiglu_backward};

use super::Model;
use super::activations::{Activations, Scratch};
use super::forward::head;
use super::plan::Plan;
use super::weights::LayerWeights;
use crate::params::Params;

/// Gradients of `y[n, out] = x[n, in] · w[out, in]ᵀ`: `dw += dyᵀ·x`, and `dx = dy·w`.
fn linear_backward(precision: Precision, dy: &[f32], x: &[f32], w: &[f32], dx: &mut [f32], dw: &mut [f32], n: usize) {
    let (inputs, outputs) = (x.len() / n, dy.len() / n);
    let dy = Matrix::new(dy, n, outputs);
    matmul(precision, Store::Add, MatrixMut::new(dw, outputs, inputs), dy.t(), Matrix::new(x, n, inputs));
    matmul(precision, Store::Set, MatrixMut::new(dx, n, inputs), dy, Matrix::new(w, outputs, inputs));
}

/// Adds to `grads` the gradient by all weights.
#[expect(clippy::too_many_arguments, reason = "the forward pass, its inputs and outputs, and the gradients")]
pub(super) fn backward(
    model: &Model,
    params: &Params,
    plan: &Plan,
    answer: &Logprobs,
    incoming: LogprobGrads,
    incoming_hidden: &[f32],
    activations: &Activations,
    scratch: &mut Scratch,
    grads: &mut [f32],
) {
    let (n, rows, d) = (plan.tokens.len(), plan.hidden_rows.len(), model.config.hidden_size);
    let (weights, of_targets) = (&model.weights, plan.rows.len() * d);
    assert_eq!(incoming_hidden.len() + of_targets, rows * d, "a gradient for each hidden state");
    if rows == 0 {
        return;
    }
    let hidden = activations.hidden.read(rows * d);
    let dhidden = scratch.dhidden.writable(rows * d);
    let output = &mut grads[weights.output.clone()];
    dhidden[of_targets..].copy_from_slice(incoming_hidden);
    if of_targets > 0 {
        let head = head(model, params, plan, &hidden[..of_targets]);
        logprob_backward(head, answer, incoming, scratch.logits.vec(), &mut dhidden[..of_targets], output);
    }

    let dtarget_rows = scratch.dtarget_rows.writable(rows * d);
    dtarget_rows.fill(0.0);
    let (norm, x) = (&params.data[weights.final_norm.clone()], activations.target_rows.read(rows * d));
    let final_r = activations.final_r.read(rows);
    rms_norm_backward(dhidden, x, norm, final_r, dtarget_rows, &mut grads[weights.final_norm.clone()]);
    let dstream = scratch.dstream.writable(n * d);
    dstream.fill(0.0);
    scatter_add_rows(dtarget_rows, &plan.hidden_rows, d, dstream);

    for (layer, layer_weights) in weights.layers.iter().enumerate().rev() {
        feed_forward(model, &params.data, n, layer, layer_weights, activations, scratch, grads);
        attend(model, &params.data, plan, layer, layer_weights, activations, scratch, grads);
    }
    scatter_add_rows(scratch.dstream.read(n * d), &plan.tokens, d, &mut grads[weights.embedding.clone()]);
}

/// Second half of a block: `dstream` goes from the gradient by its output to that by its input.
#[expect(clippy::too_many_arguments, reason = "as above, for one block")]
fn feed_forward(
    model: &Model,
    params: &[f32],
    n: usize,
    layer: usize,
    weights: &LayerWeights,
    activations: &Activations,
    scratch: &mut Scratch,
    grads: &mut [f32],
) {
    let (d, f) = (model.config.hidden_size, model.config.intermediate_size);
    let a = &activations.layers[layer];
    let x = activations.streams[2 * layer + 1].read(n * d);
    let (gate_up, post_r) = (a.gate_up.read(n * 2 * f), a.post_r.read(n));
    let dstream = scratch.dstream.read_mut(n * d);

    let gated = scratch.gated.writable(n * f);
    swiglu(gate_up, gated, f);
    let dgated = scratch.dgated.writable(n * f);
    linear_backward(model.precision, dstream, gated, &params[weights.down.clone()], dgated, &mut grads[weights.down.clone()], n);
    let dgate_up = scratch.dgate_up.writable(n * 2 * f);
    swiglu_backward(dgated, gate_up, dgate_up, f);

    let (normed, dnormed) = (scratch.normed.writable(n * d), scratch.dnormed.writable(n * d));
    let norm = &params[weights.post_norm.clone()];
    rms_norm_again(x, norm, post_r, normed);
    linear_backward(
        model.precision,
        dgate_up,
        normed,
        &params[weights.gate_up.clone()],
        dnormed,
        &mut grads[weights.gate_up.clone()],
        n,
    );
    rms_norm_backward(dnormed, x, norm, post_r, dstream, &mut grads[weights.post_norm.clone()]);
}

/// First half of a block, as [`feed_forward`].
#[expect(clippy::too_many_arguments, reason = "as above, for one block")]
fn attend(
    model: &Model,
    params: &[f32],
    plan: &Plan,
    layer: usize,
    weights: &LayerWeights,
    activations: &Activations,
    scratch: &mut Scratch,
    grads: &mut [f32],
) {
    let (n, d, heads) = (plan.tokens.len(), model.config.hidden_size, model.heads());
    let a = &activations.layers[layer];
    let x = activations.streams[2 * layer].read(n * d);
    let dstream = scratch.dstream.read_mut(n * d);

    if let Some(bias) = &weights.attention_output_bias {
        add_bias_backward(dstream, &mut grads[bias.clone()]);
    }
    let saved = AttentionSaved {
        qkv: a.qkv.read(n * heads.qkv_stride()),
        out: a.mixed.read(n * heads.out_stride()),
        lse: a.lse.read(heads.query * n),
    };
    let dmixed = scratch.dmixed.writable(saved.out.len());
    let output = weights.attention_output.clone();
    linear_backward(model.precision, dstream, saved.out, &params[output.clone()], dmixed, &mut grads[output], n);
    let dqkv = scratch.dqkv.writable(saved.qkv.len());
    attention_backward(heads, saved, &plan.spans, dmixed, dqkv);
    model.rope.apply(Turn::Backward, dqkv, heads.qkv_stride(), heads.query + heads.key, &plan.positions);
    if let Some([query, key]) = &weights.head_norms {
        let saved = HeadNormSaved {
            qkv: a.qkv_before_norms.read(dqkv.len()),
            query_weight: &params[query.clone()],
            key_weight: &params[key.clone()],
            r: a.head_r.read(n * (heads.query + heads.key)),
        };
        let [dquery, dkey] = grads.get_disjoint_mut([query.clone(), key.clone()]).expect("two tensors");
        head_norm_backward(model.normed_heads(), saved, dqkv, dquery, dkey);
    }
    if let Some(bias) = &weights.qkv_bias {
        add_bias_backward(dqkv, &mut grads[bias.clone()]);
    }

    let (normed, dnormed) = (scratch.normed.writable(n * d), scratch.dnormed.writable(n * d));
    let (norm, input_r) = (&params[weights.input_norm.clone()], a.input_r.read(n));
    rms_norm_again(x, norm, input_r, normed);
    linear_backward(model.precision, dqkv, normed, &params[weights.qkv.clone()], dnormed, &mut grads[weights.qkv.clone()], n);
    rms_norm_backward(dnormed, x, norm, input_r, dstream, &mut grads[weights.input_norm.clone()]);
}
