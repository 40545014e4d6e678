//! Rollouts of the real model: the reference's greedy tokens, and the log-probabilities that training will compute.

mod support;

use std::collections::BTreeMap;

use plumb_core::rollout::{Group, Prompt, SamplingParams};
use plumb_core::seed::Stream;
use plumb_model::engine::native::NativeEngine;
use plumb_model::engine::{Engine, Packed, Precision, Target};
use plumb_model::params::Params;
use plumb_model::rollout::{RolloutEngine, RolloutOptions};
use plumb_model::{LoadedModel, Tokenizer};
use serde::Deserialize;
use support::{SkipOr, reference, smollm2};

#[derive(Deserialize)]
struct GreedyCase {
    id: String,
    prompt: String,
    tokens: Vec<u32>,
}

fn generate(
    engine: &mut RolloutEngine,
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
    n: usize,
    sampling: &SamplingParams,
) -> Vec<Group> {
    let mut groups = BTreeMap::new();
    let stream = |prompt, completion| Stream::new(11, "rollout", &[prompt, completion]);
    engine
        .generate(tokenizer, prompts, n, sampling, &stream, &mut |i, group| assert!(groups.insert(i, group).is_none()))
        .unwrap();
    groups.into_values().collect()
}

fn encode(model: &LoadedModel, texts: &[&str]) -> Vec<Prompt> {
    let prompt = |(id, text): (usize, &&str)| Prompt { id: id as u64, tokens: model.tokenizer.encode(text).unwrap() };
    texts.iter().enumerate().map(prompt).collect()
}

#[test]
fn golden_greedy_tokens_are_those_of_the_reference() {
    let SkipOr::Model(model) = smollm2() else { return };
    let cases: Vec<GreedyCase> = reference("greedy.jsonl");
    // The reference does not stop at the end of a text.
    let mut config = model.params.config.clone();
    config.eos_token_ids.clear();
    let params = Params { config, ..model.params.clone() };
    let texts: Vec<&str> = cases.iter().map(|case| case.prompt.as_str()).collect();
    let mut engine = RolloutEngine::new(&params, 3).unwrap();
    let groups = generate(&mut engine, &model.tokenizer, &encode(model, &texts), 1, &SamplingParams::greedy(24));
    for (case, group) in cases.iter().zip(groups) {
        assert_eq!(group.completions[0].tokens, case.tokens, "{}", case.id);
        assert_eq!(group.completions[0].text, model.tokenizer.decode(&case.tokens), "{}", case.id);
    }
}

#[test]
fn sampled_logprobs_are_those_that_training_computes() {
    const TEMPERATURE: f32 = 0.7;
    let SkipOr::Model(model) = smollm2() else { return };
    let prompts = encode(model, &["The three primary colours are", "Q: What is 17 + 25?\nA:"]);
    let sampling = SamplingParams { temperature: TEMPERATURE, ..SamplingParams::neutral(20) };
    for (precision, tolerance) in [(Precision::Highest, 1e-4), (Precision::High, 5e-4)] {
        let options = RolloutOptions { precision, ..4.into() };
        let groups = generate(&mut RolloutEngine::new(&model.params, options).unwrap(), &model.tokenizer, &prompts, 3, &sampling);

        let (mut packed, mut targets, mut expected) = (Packed::default(), Vec::new(), Vec::new());
        for group in &groups {
            let prefix = packed.push(&group.prompt.tokens, None);
            let last = packed.tokens.len() - 1;
            for completion in &group.completions {
                let first = packed.tokens.len();
                packed.push(&completion.tokens, Some(prefix));
                let rows = std::iter::once(last).chain(first..);
                targets.extend(completion.tokens.iter().zip(rows).map(|(&token, row)| Target { row: row as u32, token }));
                expected.extend_from_slice(&completion.logprobs);
            }
        }
        let leaves = NativeEngine::with_precision(&model.params.config, precision)
            .evaluate(&model.params, &packed, &targets, TEMPERATURE)
            .unwrap();
        let worst = leaves.logprobs.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        eprintln!("{precision:?}: {} tokens, largest difference {worst:.1e} nats", expected.len());
        assert!(worst < tolerance, "{precision:?}: {worst}");
    }
}

#[test]
fn real_completions_have_the_same_bits_for_any_batch_and_any_number_of_threads() {
    let SkipOr::Model(model) = smollm2() else { return };
    let prompts = encode(model, &["Once upon a time", "The capital of France is"]);
    let sampling = SamplingParams { top_p: 0.9, ..SamplingParams::neutral(10) };
    let mut engines = [1, 64].map(|max_batch| RolloutEngine::new(&model.params, max_batch).unwrap());
    let expected = generate(&mut engines[0], &model.tokenizer, &prompts, 3, &sampling);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let groups = pool.install(|| generate(&mut engines[1], &model.tokenizer, &prompts, 3, &sampling));
        assert_eq!(groups, expected, "{threads} threads");
    }
}
