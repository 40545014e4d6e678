//! What rollouts promise, on small random models: no bit depends on the batch, the threads or the other prompts.

use std::collections::BTreeMap;

use plumb_core::rollout::{Completion, FinishReason};

use super::*;
use crate::config::{Architecture, Llama3Rope, ModelConfig};
use crate::random_params;

/// A small model with grouped queries, odd sizes and an untied output.
pub(super) fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 131,
        hidden_size: 40,
        intermediate_size: 100,
        num_hidden_layers: 3,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 12,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        max_position_embeddings: 400,
        tie_word_embeddings: false,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        bos_token_id: None,
        eos_token_ids: vec![7, 90],
        pad_token_id: None,
    }
}

/// Random weights, large enough that distributions are far from uniform; biases and norms are random too.
pub(super) fn params(config: ModelConfig) -> Params {
    let mut params = random_params(config, 0.25, 5);
    for spec in params.layout.clone().tensors().iter().filter(|spec| spec.shape.len() == 1) {
        let stream = Stream::new(9, &spec.name, &[]);
        for (i, value) in params.data[spec.range.clone()].iter_mut().enumerate() {
            *value += 0.3 * stream.normal_at(i as u64) as f32;
        }
    }
    params
}

pub(super) fn prompts(lengths: &[usize]) -> Vec<Prompt> {
    let stream = Stream::new(1, "prompts", &[]);
    let token = |i: usize, t: usize| stream.below_at((i * 1000 + t) as u64, 131) as u32;
    (0..lengths.len()).map(|i| Prompt { id: 10 + i as u64, tokens: (0..lengths[i]).map(|t| token(i, t)).collect() }).collect()
}

pub(super) fn decode(ids: &[u32]) -> String {
    ids.iter().map(|id| format!("{id} ")).collect::<Vec<_>>().concat()
}

pub(super) fn generate(params: &Params, max_batch: usize, prompts: &[Prompt], n: usize, sampling: &SamplingParams) -> Vec<Group> {
    let mut engine = RolloutEngine::new(params, max_batch).expect("a sound model");
    collect(&mut engine, prompts, n, sampling)
}

fn collect(engine: &mut RolloutEngine, prompts: &[Prompt], n: usize, sampling: &SamplingParams) -> Vec<Group> {
    let mut groups = BTreeMap::new();
    let stream = |prompt, completion| Stream::new(4, "rollout", &[prompt, completion]);
    let request = Request { decode: &decode, prompts, num_generations: n, sampling, stream: &stream };
    let stats = engine.run(&request, &mut |i, group| assert!(groups.insert(i, group).is_none(), "a group twice")).expect("runs");
    let of_prompts: usize = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
    assert_eq!(stats.prefill_tokens + stats.reused_tokens, of_prompts as u64);
    let tokens: usize = groups.values().flat_map(|group: &Group| &group.completions).map(|c| c.tokens.len() - 1).sum();
    assert_eq!(stats.decode_tokens, tokens as u64);
    assert_eq!(groups.len(), prompts.len());
    groups.into_values().collect()
}

pub(super) fn sampling() -> SamplingParams {
    SamplingParams { temperature: 0.8, top_k: 60, top_p: 0.95, min_p: 0.01, ..SamplingParams::neutral(45) }
}

#[test]
fn completions_have_the_same_bits_for_any_batch_and_any_number_of_threads() {
    let (params, prompts) = (params(config()), prompts(&[5, 1, 16, 130, 33, 17, 2]));
    let expected = generate(&params, 1, &prompts, 4, &sampling());
    let lengths: std::collections::BTreeSet<usize> =
        expected.iter().flat_map(|group| &group.completions).map(|completion| completion.tokens.len()).collect();
    assert!(lengths.len() > 4, "completions should end at different places: {lengths:?}");
    for (max_batch, threads) in [(1, 2), (3, 1), (3, 2), (64, 1), (64, 2), (64, 5)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        let groups = pool.install(|| generate(&params, max_batch, &prompts, 4, &sampling()));
        assert_eq!(groups, expected, "max_batch {max_batch}, {threads} threads");
    }
}

#[test]
fn a_group_equals_its_prompt_asked_alone_and_an_engine_used_again() {
    let (params, prompts) = (params(config()), prompts(&[20, 3, 35]));
    let together = generate(&params, 8, &prompts, 3, &sampling());
    let mut engine = RolloutEngine::new(&params, 8).expect("a sound model");
    for (prompt, group) in prompts.iter().zip(&together).rev() {
        assert_eq!(collect(&mut engine, std::slice::from_ref(prompt), 3, &sampling()), std::slice::from_ref(group));
    }
}

/// Log-probabilities by a transformer in plain loops and f64: the formulas of the family and nothing else.
fn plain_logprobs(params: &Params, tokens: &[u32], temperature: f64) -> Vec<Vec<f64>> {
    let config = &params.config;
    let (d, hd, q, kv) = (config.hidden_size, config.head_dim, config.query_size(), config.key_value_size());
    let tensor = |name: &str| -> Vec<f64> { params.tensor(name).iter().map(|&x| f64::from(x)).collect() };
    let multiply =
        |w: &[f64], x: &[f64]| -> Vec<f64> { w.chunks(x.len()).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect() };
    let norm = |x: &[f64], w: &[f64]| -> Vec<f64> {
        let scale = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + config.rms_norm_eps).sqrt();
        x.iter().zip(w).map(|(x, w)| x / scale * w).collect()
    };
    let plus = |x: &mut [f64], y: &[f64]| x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    let turn = |head: &mut [f64], position: usize| {
        for (i, frequency) in config.rope_frequencies().into_iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (a, b) = (head[i], head[i + hd / 2]);
            (head[i], head[i + hd / 2]) = (a * cos - b * sin, b * cos + a * sin);
        }
    };
    let embedding = tensor("model.embed_tokens.weight");
    let mut x: Vec<Vec<f64>> = tokens.iter().map(|&t| embedding[t as usize * d..][..d].to_vec()).collect();
    for layer in 0..config.num_hidden_layers {
        let get = |name: &str| tensor(&format!("model.layers.{layer}.{name}"));
        let project = |name: &str, x: &[f64], biased: bool| {
            let mut y = multiply(&get(&format!("self_attn.{name}_proj.weight")), x);
            if biased {
                plus(&mut y, &get(&format!("self_attn.{name}_proj.bias")));
            }
            y
        };
        let rows: Vec<[Vec<f64>; 3]> = x
            .iter()
            .enumerate()
            .map(|(position, x)| {
                let x = norm(x, &get("input_layernorm.weight"));
                let mut rows = ["q", "k", "v"].map(|name| project(name, &x, config.qkv_bias));
                for (row, name) in rows.iter_mut().zip(["q", "k"]) {
                    for head in row.chunks_mut(hd) {
                        if config.qk_norm {
                            head.copy_from_slice(&norm(head, &get(&format!("self_attn.{name}_norm.weight"))));
                        }
                        turn(head, position);
                    }
                }
                rows
            })
            .collect();
        for (position, x) in x.iter_mut().enumerate() {
            let mut attended = vec![0.0; q];
            for (head, out) in attended.chunks_mut(hd).enumerate() {
                let at = head / (q / kv) * hd;
                let query = &rows[position][0][head * hd..][..hd];
                let weights: Vec<f64> = (0..=position)
                    .map(|t| query.iter().zip(&rows[t][1][at..]).map(|(q, k)| q * k).sum::<f64>() / (hd as f64).sqrt())
                    .map(f64::exp)
                    .collect();
                let total: f64 = weights.iter().sum();
                for (t, weight) in weights.iter().enumerate() {
                    out.iter_mut().zip(&rows[t][2][at..]).for_each(|(out, v)| *out += weight / total * v);
                }
            }
            plus(x, &project("o", &attended, config.output_bias));
            let normed = norm(x, &get("post_attention_layernorm.weight"));
            let up = multiply(&get("mlp.up_proj.weight"), &normed);
            let gate = multiply(&get("mlp.gate_proj.weight"), &normed);
            let fed: Vec<f64> = gate.iter().zip(&up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
            plus(x, &multiply(&get("mlp.down_proj.weight"), &fed));
        }
    }
    let output: Vec<f64> = params.output_matrix().iter().map(|&x| f64::from(x)).collect();
    x.iter()
        .map(|x| {
            let logits: Vec<f64> =
                multiply(&output, &norm(x, &tensor("model.norm.weight"))).iter().map(|x| x / temperature).collect();
            let total = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            logits.iter().map(|x| x - total).collect()
        })
        .collect()
}

#[test]
fn logprobs_match_a_plain_transformer_for_every_variant_of_the_family() {
    let scaling = Llama3Rope { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64 };
    let variants = [
        config(),
        ModelConfig { tie_word_embeddings: true, rope_scaling: Some(scaling), ..config() },
        ModelConfig { architecture: Architecture::Qwen2, qkv_bias: true, output_bias: true, ..config() },
        ModelConfig { architecture: Architecture::Qwen3, qk_norm: true, num_key_value_heads: 6, ..config() },
    ];
    for config in variants {
        let params = params(config);
        for (precision, tolerance) in [(Precision::Highest, 1e-4), (Precision::High, 1e-3)] {
            let mut engine = RolloutEngine::new(&params, RolloutOptions { precision, ..3.into() }).expect("a sound model");
            for group in collect(&mut engine, &prompts(&[19, 4]), 2, &sampling()) {
                for completion in &group.completions {
                    let tokens = [group.prompt.tokens.as_slice(), &completion.tokens].concat();
                    let expected = plain_logprobs(&params, &tokens, 0.8);
                    for (t, (&token, &logprob)) in completion.tokens.iter().zip(&completion.logprobs).enumerate() {
                        let exact = expected[group.prompt.tokens.len() + t - 1][token as usize];
                        let config = &params.config;
                        assert!((f64::from(logprob) - exact).abs() < tolerance, "{logprob} {exact} at {t} of {config:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn greedy_takes_the_likeliest_token_of_the_plain_transformer() {
    let params = params(config());
    let group = generate(&params, 2, &prompts(&[9]), 1, &SamplingParams::greedy(20)).remove(0);
    let tokens = [group.prompt.tokens.as_slice(), &group.completions[0].tokens].concat();
    for (t, row) in plain_logprobs(&params, &tokens, 1.0).iter().enumerate().skip(8).take(group.completions[0].tokens.len()) {
        let likeliest = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("a vocabulary");
        assert_eq!(tokens[t + 1] as usize, likeliest);
    }
}

/// A model whose weights are as wide spread as trained ones, so that rounding them moves what it says by what it would there.
fn ordinary(tie_word_embeddings: bool) -> Params {
    random_params(ModelConfig { tie_word_embeddings, hidden_size: 96, intermediate_size: 256, head_dim: 16, ..config() }, 0.1, 6)
}

/// The weights that decoding in a format stands for, as a float32 model.
fn rounded(params: &Params, format: WeightFormat) -> Params {
    use plumb_kernels::cpu::packed_matmul::stored_reference;
    let mut rounded = params.clone();
    for spec in params.layout.tensors().iter().filter(|spec| spec.shape.len() == 2) {
        let untied = !params.config.tie_word_embeddings;
        if spec.name == "model.embed_tokens.weight" && untied {
            continue;
        }
        for row in rounded.data[spec.range.clone()].chunks_mut(spec.shape[1]) {
            let (values, scale) = stored_reference(format, row);
            row.iter_mut().zip(values).for_each(|(w, value)| *w = value * scale);
        }
    }
    rounded
}

fn engine(params: &Params, max_batch: usize, weights: WeightFormat) -> RolloutEngine {
    RolloutEngine::new(params, RolloutOptions { weights, ..max_batch.into() }).expect("a sound model")
}

#[test]
fn narrow_weights_give_the_same_bits_for_any_batch_and_any_number_of_threads() {
    let (params, prompts) = (ordinary(true), prompts(&[5, 1, 40]));
    for format in [WeightFormat::Bf16, WeightFormat::Int8] {
        let expected = collect(&mut engine(&params, 1, format), &prompts, 4, &sampling());
        for (max_batch, threads) in [(3, 2), (64, 1), (64, 5)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            let groups = pool.install(|| collect(&mut engine(&params, max_batch, format), &prompts, 4, &sampling()));
            assert_eq!(groups, expected, "{format:?}, max_batch {max_batch}, {threads} threads");
        }
    }
}

#[test]
fn logprobs_of_narrow_weights_are_those_of_the_rounded_model_and_near_those_of_the_model() {
    for (tied, format, mean_bound) in [
        (true, WeightFormat::Bf16, 0.01),
        (false, WeightFormat::Bf16, 0.01),
        (true, WeightFormat::Int8, 0.05),
        (false, WeightFormat::Int8, 0.05),
    ] {
        let params = ordinary(tied);
        let rounded = rounded(&params, format);
        let (mut differences, mut spread) = (Vec::new(), Vec::new());
        for group in collect(&mut engine(&params, 4, format), &prompts(&[19, 4]), 2, &sampling()) {
            for completion in &group.completions {
                let tokens = [group.prompt.tokens.as_slice(), &completion.tokens].concat();
                let (exact, of_rounded) = (plain_logprobs(&params, &tokens, 0.8), plain_logprobs(&rounded, &tokens, 0.8));
                for (t, (&token, &logprob)) in completion.tokens.iter().zip(&completion.logprobs).enumerate() {
                    let (at, token, logprob) = (group.prompt.tokens.len() + t - 1, token as usize, f64::from(logprob));
                    assert!((logprob - of_rounded[at][token]).abs() < 1e-4, "{format:?} at {t}: {logprob}");
                    differences.push((logprob - exact[at][token]).abs());
                    spread.push((exact[at][token] + (131_f64).ln()).abs());
                }
            }
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!(mean(&spread) > 0.3, "the model is nearly uniform, so that nothing could go wrong: {}", mean(&spread));
        let found = mean(&differences);
        assert!(found > 1e-4 && found < mean_bound, "{format:?}, tied {tied}: mean difference {found}");
    }
}

#[test]
fn greedy_with_narrow_weights_takes_a_token_that_the_model_itself_ranks_first_or_nearly() {
    let params = ordinary(true);
    for format in [WeightFormat::Bf16, WeightFormat::Int8] {
        let group = collect(&mut engine(&params, 2, format), &prompts(&[9]), 1, &SamplingParams::greedy(40)).remove(0);
        let tokens = [group.prompt.tokens.as_slice(), &group.completions[0].tokens].concat();
        for (t, row) in plain_logprobs(&params, &tokens, 1.0).iter().enumerate().skip(8).take(group.completions[0].tokens.len()) {
            let best = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let behind = best - row[tokens[t + 1] as usize];
            assert!(behind < 0.1, "{format:?}: token {t} is {behind} nats behind the likeliest");
        }
    }
}

#[test]
fn completions_end_with_an_end_token_a_stop_string_or_the_limit() {
    let (params, prompts) = (params(config()), prompts(&[6, 8, 11]));
    let plain: Vec<_> = generate(&params, 4, &prompts, 6, &sampling()).into_iter().flat_map(|group| group.completions).collect();
    for completion in &plain {
        let ends = completion.tokens.iter().position(|token| [7, 90].contains(token));
        match completion.finish {
            FinishReason::Stop => assert_eq!(ends, Some(completion.tokens.len() - 1)),
            FinishReason::Length => assert_eq!((ends, completion.tokens.len()), (None, 45)),
        }
        let ended = usize::from(completion.finish == FinishReason::Stop);
        let shown = &completion.tokens[..completion.tokens.len() - ended];
        assert_eq!(completion.text, decode(shown), "an end token is no text, though this tokenizer writes it out");
        assert_eq!(completion.tokens.len(), completion.logprobs.len());
    }
    assert!(plain.iter().any(|completion| completion.finish == FinishReason::Stop), "no end token was drawn");

    let long = plain.iter().find(|completion| completion.tokens.len() > 10).expect("a long completion");
    let stop = format!("{} {} ", long.tokens[4], long.tokens[5]);
    let sampling = SamplingParams { stop: vec![stop.clone()], ..sampling() };
    let stopped: Vec<_> = generate(&params, 4, &prompts, 6, &sampling).into_iter().flat_map(|group| group.completions).collect();
    let mut cut = 0;
    for (stopped, plain) in stopped.iter().zip(&plain) {
        match plain.text.find(&stop) {
            Some(at) => {
                assert_eq!(stopped.text, plain.text[..at]);
                assert_eq!(stopped.finish, FinishReason::Stop);
                assert!(decode(&stopped.tokens).ends_with(&stop), "the tokens of the stop string stay");
                cut += 1;
            }
            None => assert_eq!(stopped, plain),
        }
    }
    assert!(cut > 0, "the stop string was never reached");
}

#[test]
fn end_tokens_are_tokens_like_others_when_they_are_ignored() {
    let (params, prompts) = (params(config()), prompts(&[6, 8, 11]));
    let all = |sampling: &SamplingParams| -> Vec<Completion> {
        generate(&params, 4, &prompts, 6, sampling).into_iter().flat_map(|group| group.completions).collect()
    };
    let (plain, whole) = (all(&sampling()), all(&SamplingParams { ignore_eos: true, ..sampling() }));
    assert!(plain.iter().any(|completion| completion.tokens.len() < 45), "no end token was drawn");
    for (plain, whole) in plain.iter().zip(&whole) {
        assert_eq!((whole.tokens.len(), whole.finish), (45, FinishReason::Length));
        assert_eq!(whole.tokens[..plain.tokens.len()], plain.tokens, "what comes before is the same");
    }
}

#[test]
fn groups_are_handed_out_while_others_are_being_decoded() {
    let (params, prompts) = (params(config()), prompts(&[4; 12]));
    let mut order = Vec::new();
    let stream = |prompt, completion| Stream::new(4, "rollout", &[prompt, completion]);
    let sampling = sampling();
    let request = Request { decode: &decode, prompts: &prompts, num_generations: 2, sampling: &sampling, stream: &stream };
    let mut engine = RolloutEngine::new(&params, 24).expect("a sound model");
    let mut on_group = |i: usize, group: Group| order.push((i, group.completions.iter().map(|c| c.tokens.len()).max()));
    engine.run(&request, &mut on_group).expect("runs");
    assert!(order.is_sorted_by_key(|(_, longest)| *longest), "with room for all, the shortest group is done first: {order:?}");
    assert!(!order.is_sorted_by_key(|(i, _)| *i), "groups should not wait for earlier ones: {order:?}");
}

#[test]
fn updated_weights_are_those_that_are_sampled_from() {
    let (first, prompts) = (params(config()), prompts(&[8, 3]));
    let mut second = first.clone();
    second.data.iter_mut().for_each(|x| *x *= 0.9);
    let mut engine = RolloutEngine::new(&first, 4).expect("a sound model");
    let before = collect(&mut engine, &prompts, 2, &sampling());
    engine.update(&second).expect("the same configuration");
    let after = collect(&mut engine, &prompts, 2, &sampling());
    assert_ne!(before, after);
    assert_eq!(after, generate(&second, 4, &prompts, 2, &sampling()));
    let other = params(ModelConfig { vocab_size: 132, ..config() });
    assert!(matches!(engine.update(&other), Err(Error::Request(_))));
}

#[test]
fn requests_that_cannot_be_met_are_refused_before_any_work() {
    let params = params(config());
    let mut engine = RolloutEngine::new(&params, 4).expect("a sound model");
    let stream = |prompt, completion| Stream::new(4, "rollout", &[prompt, completion]);
    let mut refused = |prompts: &[Prompt], num_generations, sampling: &SamplingParams| {
        let request = Request { decode: &decode, prompts, num_generations, sampling, stream: &stream };
        engine.run(&request, &mut |_, _| panic!("a group of a refused request")).expect_err("refused")
    };
    let good = prompts(&[5]);
    let too_long = refused(&prompts(&[5, 356]), 1, &sampling());
    assert!(matches!(too_long, Error::TooLong { length: 401, limit: 400 }), "{too_long}");
    let empty = Prompt { id: 77, tokens: Vec::new() };
    let outside = Prompt { id: 78, tokens: vec![131] };
    for (prompts, n, sampling, words) in [
        (&good[..], 0, sampling(), "num_generations is 0"),
        (&[empty][..], 1, sampling(), "prompt 77 has no tokens"),
        (&[outside][..], 1, sampling(), "prompt 78 has token 131, but the vocabulary has 131 tokens"),
        (&good[..], 1, SamplingParams { top_p: 2.0, ..sampling() }, "top_p 2"),
    ] {
        let error = refused(prompts, n, &sampling).to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(matches!(RolloutEngine::new(&params, 0), Err(Error::Request(_))));
}

#[test]
fn weights_that_are_not_finite_fail_with_the_place_of_the_first_bad_logit() {
    let mut params = params(config());
    let last = params.layout.get("model.norm.weight").expect("the last norm").range.clone();
    params.data[last.start] = f32::NAN;
    let mut engine = RolloutEngine::new(&params, 4).expect("a sound model");
    let stream = |prompt, completion| Stream::new(4, "rollout", &[prompt, completion]);
    let (prompts, sampling) = (prompts(&[5]), sampling());
    let request = Request { decode: &decode, prompts: &prompts, num_generations: 1, sampling: &sampling, stream: &stream };
    let error = engine.run(&request, &mut |_, _| panic!("a group of NaN")).expect_err("NaN weights").to_string();
    assert_eq!(error, "a logit of token 0 in completion 0 of prompt 10 is not finite");
}
