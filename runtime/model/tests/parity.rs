//! The real model against numbers from an independent implementation (`tests/reference/README.md` says which).

mod support;
#[path = "support/tiny.rs"]
mod tiny;

use plumb_model::Message;
use plumb_model::config::ModelConfig;
use plumb_model::engine::candle::CandleEngine;
use plumb_model::engine::native::NativeEngine;
use plumb_model::engine::{Engine, Packed, Precision, Target};
use serde::Deserialize;
use support::{SkipOr, reference, smollm2};

/// Differences of float32 sums in another order; larger ones are differences of the model.
const TOLERANCE_NATS: f32 = 2e-3;

#[derive(Deserialize)]
struct LogprobCase {
    id: String,
    prompt: String,
    completion: String,
    prompt_tokens: Vec<u32>,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

#[derive(Deserialize)]
struct ChatCase {
    id: String,
    messages: Vec<Message>,
    add_generation_prompt: bool,
    text: String,
    tokens: Vec<u32>,
}

/// Engines, with how far log-probabilities of a tiny random model may lie from the reference, nats.
fn engines(config: &ModelConfig) -> Vec<(&'static str, Box<dyn Engine>, f32)> {
    let native = |precision| Box::new(NativeEngine::with_precision(config, precision));
    vec![
        ("candle", Box::new(CandleEngine::new(config)), 2e-4),
        ("native", native(Precision::Highest), 2e-4),
        ("native of high precision", native(Precision::High), 1e-3),
    ]
}

#[test]
fn golden_tokens_are_those_of_the_reference() {
    let SkipOr::Model(model) = smollm2() else { return };
    for case in reference::<LogprobCase>("logprobs.jsonl") {
        let tokens = model.tokenizer.encode(&format!("{}{}", case.prompt, case.completion)).unwrap();
        assert_eq!(tokens, [case.prompt_tokens, case.tokens].concat(), "{}", case.id);
        assert_eq!(model.tokenizer.decode_raw(&tokens), format!("{}{}", case.prompt, case.completion), "{}", case.id);
    }
}

#[test]
fn golden_chat_texts_and_tokens_are_those_of_the_reference() {
    let SkipOr::Model(model) = smollm2() else { return };
    for case in reference::<ChatCase>("chat.jsonl") {
        let text = model.tokenizer.render_chat(&case.messages, case.add_generation_prompt).unwrap();
        assert_eq!(text, case.text, "{}", case.id);
        assert_eq!(model.tokenizer.encode(&text).unwrap(), case.tokens, "{}", case.id);
    }
}

#[test]
fn golden_logprobs_are_those_of_the_reference() {
    let SkipOr::Model(model) = smollm2() else { return };
    let cases = reference::<LogprobCase>("logprobs.jsonl");
    // All sequences in one pack: they must not see each other.
    let (mut packed, mut targets) = (Packed::default(), Vec::new());
    for case in &cases {
        let first = packed.tokens.len() + case.prompt_tokens.len();
        packed.push(&[case.prompt_tokens.as_slice(), &case.tokens].concat(), None);
        targets.extend(case.tokens.iter().enumerate().map(|(i, &token)| Target { row: (first + i - 1) as u32, token }));
    }
    for (name, mut engine, _) in engines(&model.params.config) {
        let leaves = engine.evaluate(&model.params, &packed, &targets, 1.0).unwrap();
        let mut answers = leaves.logprobs.iter();
        let mut worst = 0f32;
        for case in &cases {
            for (i, (expected, got)) in case.logprobs.iter().zip(&mut answers).enumerate() {
                let difference = (got - expected).abs();
                assert!(difference <= TOLERANCE_NATS, "{name}, {} token {i}: {got} and {expected}", case.id);
                worst = worst.max(difference);
            }
        }
        eprintln!("{name}: {} tokens, largest difference {worst:.1e} nats", targets.len());
    }
}

#[derive(Deserialize)]
struct ArchitectureCase {
    id: String,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

#[test]
fn golden_logprobs_of_every_architecture_are_those_of_transformers() {
    let models = tiny::models();
    let mut lines = include_str!("golden/architectures.jsonl").lines();
    for (name, params) in &models {
        let case: ArchitectureCase = serde_json::from_str(lines.next().expect("one line per model")).unwrap();
        assert_eq!(case.id, *name);
        let mut packed = Packed::default();
        packed.push(&case.tokens, None);
        let targets: Vec<Target> =
            case.tokens[1..].iter().enumerate().map(|(row, &token)| Target { row: row as u32, token }).collect();
        for (engine_name, mut engine, tolerance) in engines(&params.config) {
            let leaves = engine.evaluate(params, &packed, &targets, 1.0).unwrap();
            for (i, (got, expected)) in leaves.logprobs.iter().zip(&case.logprobs).enumerate() {
                assert!((got - expected).abs() < tolerance, "{engine_name}, {name} token {i}: {got} and {expected}");
            }
        }
    }
    assert!(lines.next().is_none());
}
