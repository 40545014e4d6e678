//! Tests of the whole engine on tiny random models: against the reference engine, and against itself.

use super::NativeEngine;
use crate::Error;
use crate::config::{Architecture, Llama3Rope, ModelConfig};
use crate::engine::candle::CandleEngine;
use crate::engine::{Engine, LeafGrads, Leaves, Packed, Precision, Target};
use crate::params::Params;

/// Two blocks, four query heads on two key heads, every width different.
pub(super) fn tiny_config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 61,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        rope_scaling: None,
        max_position_embeddings: 256,
        tie_word_embeddings: true,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        pad_token_id: None,
    }
}

/// A model of each kind the engine distinguishes.
fn configs() -> Vec<(&'static str, ModelConfig)> {
    let llama = tiny_config();
    let scaling = Llama3Rope { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 16 };
    vec![
        ("llama, tied", llama.clone()),
        (
            "llama 3, untied, biases",
            ModelConfig {
                rope_scaling: Some(scaling),
                tie_word_embeddings: false,
                qkv_bias: true,
                output_bias: true,
                ..llama.clone()
            },
        ),
        ("mistral", ModelConfig { architecture: Architecture::Mistral, tie_word_embeddings: false, ..llama.clone() }),
        ("qwen2", ModelConfig { architecture: Architecture::Qwen2, qkv_bias: true, num_key_value_heads: 1, ..llama.clone() }),
        (
            "qwen3",
            ModelConfig { architecture: Architecture::Qwen3, qk_norm: true, head_dim: 16, num_key_value_heads: 4, ..llama },
        ),
    ]
}

/// Numbers between -1 and 1 from a linear congruence (Knuth's MMIX constants).
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}

/// Weights large enough that probabilities are far from uniform.
fn random_params(config: &ModelConfig) -> Params {
    let mut params = Params::zeros(config.clone());
    let mut next = noise(7);
    for tensor in params.layout.clone().tensors() {
        let is_norm = tensor.name.ends_with("norm.weight");
        for weight in &mut params.data[tensor.range.clone()] {
            *weight = if is_norm { 1.0 + 0.3 * next() } else { 0.4 * next() };
        }
    }
    params
}

fn tokens(len: usize, seed: u64) -> Vec<u32> {
    let mut next = noise(seed);
    (0..len).map(|_| ((next() + 1.0) * 30.0) as u32).collect()
}

/// Two prompts; three completions of the first, one of the second between them; a sequence on its own.
fn sequences() -> Vec<(Vec<u32>, Vec<Vec<u32>>)> {
    vec![
        (tokens(5, 1), vec![tokens(4, 2), tokens(1, 3), tokens(7, 4)]),
        (tokens(70, 5), vec![tokens(66, 6), tokens(3, 7)]),
        (tokens(1, 8), vec![tokens(9, 9)]),
    ]
}

/// Each completion's tokens as targets, with shared prompts or each prompt repeated. Targets are in the same order in both.
fn pack(shared: bool) -> (Packed, Vec<Target>) {
    let (mut packed, mut targets) = (Packed::default(), Vec::new());
    for (prompt, completions) in sequences() {
        let prefix = shared.then(|| packed.push(&prompt, None));
        for completion in &completions {
            let first = prefix.unwrap_or_else(|| packed.push(&prompt, None));
            // In the repeated form the completion still is a segment; its prompt just belongs to it alone.
            let segment = packed.push(completion, Some(first));
            let last_of_prompt = packed.segments[first].start + packed.segments[first].len - 1;
            let start = packed.segments[segment].start;
            for (i, &token) in completion.iter().enumerate() {
                let row = if i == 0 { last_of_prompt } else { start + i - 1 };
                targets.push(Target { row: row as u32, token });
            }
        }
    }
    (packed, targets)
}

/// The repeated form with each sequence as one plain segment.
fn pack_plain() -> (Packed, Vec<Target>) {
    let (mut packed, mut targets) = (Packed::default(), Vec::new());
    for (prompt, completions) in sequences() {
        for completion in &completions {
            let start = packed.tokens.len() + prompt.len() - 1;
            packed.push(&[&prompt[..], completion].concat(), None);
            targets.extend(completion.iter().enumerate().map(|(i, &token)| Target { row: (start + i) as u32, token }));
        }
    }
    (packed, targets)
}

fn leaf_grads(m: usize, with_entropies: bool) -> LeafGrads {
    let mut next = noise(11);
    let mut numbers = || (0..m).map(|_| next()).collect::<Vec<_>>();
    LeafGrads { logprobs: numbers(), entropies: with_entropies.then(&mut numbers), hidden: Vec::new() }
}

/// Leaves and gradients of one forward and backward.
fn run(
    engine: &mut dyn Engine,
    params: &Params,
    (packed, targets): &(Packed, Vec<Target>),
    with_entropies: bool,
) -> (Leaves, Vec<f32>) {
    let leaves = engine.forward(params, packed, targets, 0.8).expect("forward");
    let mut grads = vec![0.0; params.data.len()];
    engine.backward(params, &leaf_grads(targets.len(), with_entropies), &mut grads).expect("backward");
    (leaves, grads)
}

fn assert_close(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * (1.0 + scale), "{what}, element {i}: {g}, expected {e}");
    }
}

/// How far from float32 products of a precision may bring log-probabilities and hidden states; gradients twice as far.
const TOLERANCES: [(Precision, f32); 2] = [(Precision::Highest, 1e-5), (Precision::High, 1e-4)];

fn assert_same(params: &Params, got: &(Leaves, Vec<f32>), expected: &(Leaves, Vec<f32>), tolerance: f32, what: &str) {
    assert_close(&got.0.logprobs, &expected.0.logprobs, tolerance, &format!("{what}: logprobs"));
    assert_close(&got.0.entropies, &expected.0.entropies, tolerance, &format!("{what}: entropies"));
    for tensor in params.layout.tensors() {
        let range = tensor.range.clone();
        assert_close(&got.1[range.clone()], &expected.1[range], 2.0 * tolerance, &format!("{what}: gradient of {}", tensor.name));
    }
}

#[test]
fn native_engine_equals_reference_engine_on_every_architecture() {
    for (name, config) in configs() {
        let params = random_params(&config);
        for with_entropies in [false, true] {
            let expected = run(&mut CandleEngine::new(&config), &params, &pack(true), with_entropies);
            assert!(expected.1.iter().any(|g| g.abs() > 0.1), "gradients are not trivial");
            for (precision, tolerance) in TOLERANCES {
                let mut engine = NativeEngine::with_precision(&config, precision);
                let got = run(&mut engine, &params, &pack(true), with_entropies);
                assert_same(&params, &got, &expected, tolerance, &format!("{name}, {precision:?}"));
            }
        }
    }
}

#[test]
fn native_hidden_states_equal_those_of_the_reference_engine() {
    for (name, config) in configs() {
        let params = random_params(&config);
        let (packed, _) = pack(true);
        let expected = CandleEngine::new(&config).hidden(&params, &packed).expect("hidden states");
        for (precision, tolerance) in TOLERANCES {
            let got = NativeEngine::with_precision(&config, precision).hidden(&params, &packed).expect("hidden states");
            assert_eq!(got.len(), packed.tokens.len() * config.hidden_size);
            assert_close(&got, &expected, tolerance, name);
        }
    }
}

#[test]
fn hidden_states_are_leaves_beside_log_probabilities_in_both_engines() {
    for (name, config) in configs() {
        let params = random_params(&config);
        let (packed, targets) = pack(true);
        // One row twice, one that a target asks for too, and the last.
        let rows = [2, targets[0].row, packed.tokens.len() as u32 - 1, 2];
        let mut next = noise(12);
        let hidden: Vec<f32> = (0..rows.len() * config.hidden_size).map(|_| next()).collect();
        for some in [&targets[..], &[]] {
            let grads = LeafGrads { hidden: hidden.clone(), ..leaf_grads(some.len(), false) };
            let run = |engine: &mut dyn Engine| {
                let leaves = engine.forward_with(&params, &packed, some, &rows, 0.8).expect("forward");
                let mut sums = vec![0.0; params.data.len()];
                engine.backward(&params, &grads, &mut sums).expect("backward");
                (leaves, sums)
            };
            let expected = run(&mut CandleEngine::new(&config));
            for (precision, tolerance) in TOLERANCES {
                let got = run(&mut NativeEngine::with_precision(&config, precision));
                assert_same(&params, &got, &expected, tolerance, name);
                assert_close(&got.0.hidden, &expected.0.hidden, tolerance, name);
            }
            let got = run(&mut NativeEngine::new(&config));
            let all = NativeEngine::new(&config).hidden(&params, &packed).expect("hidden states");
            let d = config.hidden_size;
            let asked: Vec<f32> = rows.iter().flat_map(|&row| all[row as usize * d..][..d].to_vec()).collect();
            assert_close(&got.0.hidden, &asked, 1e-6, name);
            assert!(expected.1.iter().any(|g| g.abs() > 0.1), "gradients are not trivial");
        }
    }
}

#[test]
fn native_gradients_equal_finite_differences() {
    for (name, config) in configs() {
        let mut params = random_params(&config);
        let (packed, targets) = pack(true);
        let grads = leaf_grads(targets.len(), true);
        let mut engine = NativeEngine::new(&config);
        let mut loss = |params: &Params| {
            let leaves = engine.evaluate(params, &packed, &targets, 0.8).expect("evaluate");
            let weighted = |x: &[f32], g: &[f32]| x.iter().zip(g).map(|(x, g)| f64::from(*x) * f64::from(*g)).sum::<f64>();
            weighted(&leaves.logprobs, &grads.logprobs)
                + weighted(&leaves.entropies, grads.entropies.as_ref().expect("with entropies"))
        };
        let (_, got) = run(&mut NativeEngine::new(&config), &params, &pack(true), true);
        // Along the gradient of each tensor by itself, where the slope is its squared norm: single weights drown in f32.
        for tensor in params.layout.clone().tensors() {
            let gradient = &got[tensor.range.clone()];
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let step = 2e-3;
            let before = params.data.clone();
            let mut moved = |sign: f64| {
                for (weight, g) in params.data[tensor.range.clone()].iter_mut().zip(gradient) {
                    *weight += (sign * step * f64::from(*g) / norm) as f32;
                }
                let loss = loss(&params);
                params.data.copy_from_slice(&before);
                loss
            };
            let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
            assert!((slope - norm).abs() < 0.02 * (1.0 + norm), "{name}, {}: slope {slope}, norm {norm}", tensor.name);
        }
    }
}

#[test]
fn shared_prompts_equal_repeated_prompts() {
    for (name, config) in configs() {
        let params = random_params(&config);
        for (precision, tolerance) in TOLERANCES {
            let [shared, repeated, plain] = [pack(true), pack(false), pack_plain()]
                .map(|packed| run(&mut NativeEngine::with_precision(&config, precision), &params, &packed, true));
            assert_same(&params, &shared, &plain, tolerance, name);
            assert_same(&params, &repeated, &plain, tolerance, name);
        }
    }
}

#[test]
fn native_engine_has_the_same_bits_for_any_number_of_threads() {
    for (name, config) in configs() {
        let params = random_params(&config);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| run(&mut NativeEngine::new(&config), &params, &pack(true), true))
        };
        let one = with(1);
        assert!(one == with(2) && one == with(5), "{name}");
    }
}

#[test]
fn evaluate_equals_forward_and_spares_what_backward_needs() {
    let config = ModelConfig { num_hidden_layers: 3, ..tiny_config() };
    let params = random_params(&config);
    let (packed, targets) = pack(true);
    let expected = run(&mut NativeEngine::new(&config), &params, &(packed.clone(), targets.clone()), true);

    let mut engine = NativeEngine::new(&config);
    let leaves = engine.forward(&params, &packed, &targets, 0.8).expect("forward");
    let mut other = params.clone();
    other.data.iter_mut().for_each(|weight| *weight *= 1.1);
    let others = engine.evaluate(&other, &packed, &targets, 0.8).expect("evaluate");
    assert_ne!(others, leaves);
    assert_eq!(engine.evaluate(&params, &packed, &targets, 0.8).expect("evaluate"), leaves);
    let mut grads = vec![0.0; params.data.len()];
    engine.backward(&params, &leaf_grads(targets.len(), true), &mut grads).expect("backward");
    assert!((leaves, grads) == expected);
}

#[test]
fn backward_adds_to_gradients_and_an_engine_serves_batches_of_changing_size() {
    let config = tiny_config();
    let params = random_params(&config);
    let mut engine = NativeEngine::new(&config);
    let (small, targets) = {
        let mut packed = Packed::default();
        packed.push(&[1, 2, 3], None);
        (packed, vec![Target { row: 1, token: 3 }])
    };
    let large = run(&mut engine, &params, &pack(true), true);
    let first = run(&mut engine, &params, &(small.clone(), targets.clone()), false);
    assert!(run(&mut engine, &params, &pack(true), true) == large);

    engine.forward(&params, &small, &targets, 0.8).expect("forward");
    let mut grads = first.1.clone();
    engine.backward(&params, &leaf_grads(1, false), &mut grads).expect("backward");
    let doubled: Vec<f32> = first.1.iter().map(|g| 2.0 * g).collect();
    assert_close(&grads, &doubled, 1e-6, "added twice");
}

#[test]
fn no_targets_have_no_leaves_and_no_gradient() {
    let config = tiny_config();
    let (params, mut engine) = (random_params(&config), NativeEngine::new(&config));
    for packed in [Packed::default(), pack(true).0] {
        let (leaves, grads) = run(&mut engine, &params, &(packed, Vec::new()), false);
        assert_eq!(leaves, Leaves::default());
        assert!(grads.iter().all(|&g| g == 0.0));
    }
}

#[test]
fn numbers_that_are_not_finite_are_errors() {
    let config = tiny_config();
    let (mut params, mut engine) = (random_params(&config), NativeEngine::new(&config));
    let (packed, targets) = pack(true);
    engine.forward(&params, &packed, &targets, 1.0).expect("forward");
    let mut grads = vec![0.0; params.data.len()];
    let mut incoming = leaf_grads(targets.len(), false);
    incoming.logprobs[3] = f32::INFINITY;
    assert!(matches!(engine.backward(&params, &incoming, &mut grads), Err(Error::NonFinite { .. })));
    params.data[5] = f32::NAN;
    assert!(matches!(engine.evaluate(&params, &packed, &targets, 1.0), Err(Error::NonFinite { .. })));
}
