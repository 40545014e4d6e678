//! Ten steps of supervised fine-tuning of the real model against PyTorch's (`tests/reference/README.md`): forward, backward, global
//! norm and AdamW together. A wrong gradient anywhere bends the curve within two steps.

mod support;

use plumb_kernels::cpu::adamw::{AdamW, adamw};
use plumb_kernels::cpu::global_norm::global_norm;
use plumb_model::engine::native::NativeEngine;
use plumb_model::engine::{Engine, LeafGrads, Packed, Target};
use serde::Deserialize;
use support::{SkipOr, reference, smollm2};

#[derive(Deserialize)]
struct Curve {
    optimizer: Optimizer,
    batch: Vec<Example>,
    loss: Vec<f64>,
    grad_norm: Vec<f64>,
}

#[derive(Deserialize)]
struct Optimizer {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    steps: u64,
}

#[derive(Deserialize)]
struct Example {
    prompt: Vec<u32>,
    completion: Vec<u32>,
}

fn assert_within(got: f64, expected: f64, what: &str) {
    assert!((got - expected).abs() <= 0.01 * expected.abs() + 2e-3, "{what}: {got}, expected {expected}");
}

#[test]
fn golden_fine_tuning_follows_the_reference_curve() {
    let SkipOr::Model(model) = smollm2() else { return };
    let curve = reference::<Curve>("curve-sft.json").remove(0);
    assert_eq!(curve.loss.len() as u64, curve.optimizer.steps);

    let (mut packed, mut targets) = (Packed::default(), Vec::new());
    for example in &curve.batch {
        let first = packed.tokens.len() + example.prompt.len();
        packed.push(&[&example.prompt[..], &example.completion].concat(), None);
        targets.extend(example.completion.iter().enumerate().map(|(i, &token)| Target { row: (first + i - 1) as u32, token }));
    }
    let m = targets.len();
    let mean = LeafGrads { logprobs: vec![-1.0 / m as f32; m], entropies: None, hidden: Vec::new() };

    let mut params = model.params.clone();
    let mut engine = NativeEngine::new(&params.config);
    let n = params.data.len();
    let [mut grads, mut first, mut second] = [(); 3].map(|()| vec![0.0; n]);
    for step in 1..=curve.optimizer.steps {
        let leaves = engine.forward(&params, &packed, &targets, 1.0).expect("forward");
        let loss = -leaves.logprobs.iter().map(|&logprob| f64::from(logprob)).sum::<f64>() / m as f64;
        grads.fill(0.0);
        engine.backward(&params, &mean, &mut grads).expect("backward");
        let norm = global_norm(&grads);
        let index = step as usize - 1;
        eprintln!("step {step}: loss {loss:.6} ({:.6}), norm {norm:.5} ({:.5})", curve.loss[index], curve.grad_norm[index]);
        assert_within(loss, curve.loss[index], &format!("loss of step {step}"));
        assert_within(norm, curve.grad_norm[index], &format!("gradient norm of step {step}"));
        let Optimizer { learning_rate, beta1, beta2, eps, weight_decay, max_grad_norm, .. } = curve.optimizer;
        let grad_scale = (max_grad_norm / (norm + 1e-6)).min(1.0);
        let constants = AdamW { learning_rate, beta1, beta2, eps, weight_decay, step, grad_scale };
        adamw(&constants, &mut params.data, &grads, &mut first, &mut second);
    }
}
