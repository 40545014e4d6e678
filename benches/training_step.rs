//! Tokens per second of a training step (forward, backward, global norm, AdamW) on 8 sequences of 192 tokens, all of them targets,
//! in a model of SmolLM2-135M's shape with random weights.
//!
//! `cargo bench --bench training_step` times the native engine in every precision of its products, in turns; `-- highest`, `high` or `medium` only those, `reference`
//! the candle engine too. Not a criterion bench: a step
//! takes seconds, and criterion wants ten at least. Set `RAYON_NUM_THREADS` to choose the number of threads.
#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::time::Instant;

use plumb_kernels::cpu::adamw::{AdamW, adamw};
use plumb_kernels::cpu::global_norm::global_norm;
use plumb_model::config::{Architecture, ModelConfig};
use plumb_model::engine::candle::CandleEngine;
use plumb_model::engine::native::NativeEngine;
use plumb_model::engine::{Engine, LeafGrads, Packed, Precision, Target};
use plumb_model::params::Params;

const SEQUENCES: usize = 8;
const TOKENS: usize = 192;
const ROUNDS: usize = 4;

fn smollm2_135m() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 49_152,
        hidden_size: 576,
        intermediate_size: 1536,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        head_dim: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 1e5,
        rope_scaling: None,
        max_position_embeddings: 8192,
        tie_word_embeddings: true,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        pad_token_id: None,
    }
}

/// Uniform weights of a trained model's magnitude, so that no number is denormal or huge.
fn random_params() -> Params {
    let mut params = Params::zeros(smollm2_135m());
    let mut state = 1_u64;
    for weight in &mut params.data {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *weight = ((state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0) * 0.04;
    }
    for tensor in params.layout.clone().tensors().iter().filter(|tensor| tensor.name.ends_with("norm.weight")) {
        params.data[tensor.range.clone()].fill(1.0);
    }
    params
}

fn main() {
    let asked = |name: &str| std::env::args().any(|argument| argument == name);
    let mut params = random_params();
    let (mut packed, mut targets) = (Packed::default(), Vec::new());
    for sequence in 0..SEQUENCES {
        let tokens: Vec<u32> = (0..=TOKENS).map(|i| ((sequence * 7919 + i * 104_729) % 49_152) as u32).collect();
        let start = packed.tokens.len();
        packed.push(&tokens[..TOKENS], None);
        targets.extend((0..TOKENS).map(|i| Target { row: (start + i) as u32, token: tokens[i + 1] }));
    }
    let count = targets.len();
    let leaf_grads = LeafGrads { logprobs: vec![-1.0 / count as f32; count], ..LeafGrads::default() };
    let [mut grads, mut first, mut second] = [(); 3].map(|()| vec![0.0; params.data.len()]);
    let mut engines: Vec<(&str, Box<dyn Engine>)> = Vec::new();
    let precisions = [("highest", Precision::Highest), ("high", Precision::High), ("medium", Precision::Medium)];
    let some = precisions.iter().any(|(name, _)| asked(name));
    for (name, precision) in precisions.into_iter().filter(|(name, _)| !some || asked(name)) {
        engines.push((name, Box::new(NativeEngine::with_precision(&params.config, precision))));
    }
    if asked("reference") {
        engines.push(("candle", Box::new(CandleEngine::new(&params.config))));
    }
    // The first round allocates and is not representative.
    for round in 0..=ROUNDS {
        for (name, engine) in &mut engines {
            let start = Instant::now();
            let leaves = engine.forward(&params, &packed, &targets, 1.0).expect("forward");
            let forward = start.elapsed().as_secs_f64();
            grads.fill(0.0);
            engine.backward(&params, &leaf_grads, &mut grads).expect("backward");
            let backward = start.elapsed().as_secs_f64() - forward;
            let grad_scale = (1.0 / global_norm(&grads)).min(1.0);
            let step = round as u64 + 1;
            let constants =
                AdamW { learning_rate: 1e-6, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step, grad_scale };
            adamw(&constants, &mut params.data, &grads, &mut first, &mut second);
            let total = start.elapsed().as_secs_f64();
            let loss = -leaves.logprobs.iter().sum::<f32>() / count as f32;
            println!(
                "training_step/{name}/n{SEQUENCES}_t{TOKENS} round {round}: {:.0} tokens/s, {total:.2} s \
                 (forward {forward:.2}, backward {backward:.2}, optimizer {:.2}), loss {loss:.4}",
                count as f64 / total,
                total - forward - backward,
            );
        }
    }
}
