//! What is run together, shared or guessed changes no bit: random mixtures, each completion held to one that is decoded by itself.

use std::collections::BTreeMap;

use plumb_core::rollout::{Completion, FinishReason};

use super::decoder::Row;
use super::sampler::{SampleScratch, Sampler};
use super::tests::{config, decode, generate, params, prompts, sampling};
use super::*;
use crate::config::ModelConfig;

fn stream(prompt: u64, completion: u64) -> Stream {
    Stream::new(4, "rollout", &[prompt, completion])
}

/// A completion by itself: a token a pass, pages of its own, no guesses.
fn plain(decoder: &mut Decoder, prompt: &Prompt, completion: u64, sampling: &SamplingParams) -> Completion {
    let config = decoder.config().clone();
    let mut kv_pool = KvPool::new(KvShape::new(&config));
    let tables = [kv_pool.take_table(), kv_pool.take_table()];
    decoder.reserve(prompt.tokens.len() + sampling.max_completion_length, 1, 1);
    let (sampler, mut scratch, stream) = (Sampler::new(sampling), SampleScratch::default(), stream(prompt.id, completion));
    let mut done = Completion { tokens: Vec::new(), logprobs: Vec::new(), text: String::new(), finish: FinishReason::Length };
    let prompt_len = prompt.tokens.len();
    let mut run = |decoder: &mut Decoder, token: u32, position: usize| {
        let completion = (position >= prompt_len).then_some(tables[1]);
        match completion {
            Some(table) => kv_pool.reserve(table, position - prompt_len + 1),
            None => kv_pool.reserve(tables[0], position + 1),
        }
        decoder.forward(&[Row { token, position, prompt: tables[0], prompt_len, completion }], &mut kv_pool);
    };
    prompt.tokens.iter().enumerate().for_each(|(position, &token)| run(decoder, token, position));
    loop {
        let t = done.tokens.len();
        let drawn = sampler.sample(decoder.logits(&[0]), stream.f64_at(t as u64), &mut scratch).expect("finite logits");
        done.tokens.push(drawn.token);
        done.logprobs.push(drawn.logprob);
        // An end token is no text, not even where it is ignored.
        let end = config.eos_token_ids.contains(&drawn.token);
        let ended = end && !sampling.ignore_eos;
        let shown = decode(&done.tokens[..done.tokens.len() - usize::from(end)]);
        let cut = sampling.stop.iter().filter_map(|stop| shown.find(stop)).min();
        if ended || cut.is_some() || t + 1 == sampling.max_completion_length {
            done.finish = if ended || cut.is_some() { FinishReason::Stop } else { FinishReason::Length };
            done.text = shown[..cut.unwrap_or(shown.len())].to_string();
            return done;
        }
        run(decoder, drawn.token, prompt_len + t);
    }
}

/// A model whose layers say little, so that a token depends mostly on the one before it, and greedy completions soon go in circles.
fn repetitive(config: ModelConfig) -> Params {
    let mut params = params(config);
    for spec in params.layout.clone().tensors() {
        if spec.name.contains("o_proj") || spec.name.contains("down_proj") {
            params.data[spec.range.clone()].iter_mut().for_each(|w| *w *= 0.02);
        }
    }
    params
}

/// A call's groups by their prompts, and what it did.
fn run(
    engine: &mut RolloutEngine,
    prompts: &[Prompt],
    n: usize,
    sampling: &SamplingParams,
) -> (BTreeMap<usize, Group>, RolloutStats) {
    let request = Request { decode: &decode, prompts, num_generations: n, sampling, stream: &stream };
    let mut groups = BTreeMap::new();
    let mut on_group = |i, group: Group| assert!(groups.insert(i, group).is_none(), "a group twice");
    let stats = engine.run(&request, &mut on_group).expect("runs");
    (groups, stats)
}

/// Numbers that decide a case: the n-th below some bound.
struct Dice(Stream, u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.1 += 1;
        self.0.below_at(self.1, bound as u64) as usize
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn tokens(&mut self, len: usize) -> Vec<u32> {
        (0..len).map(|_| self.below(131) as u32).collect()
    }

    /// Prompts that begin with parts of a few texts, some of them nothing else, at and around the ends of pages.
    fn prompts(&mut self) -> Vec<Prompt> {
        let texts: Vec<Vec<u32>> = (0..=self.below(3)).map(|_| self.tokens(80)).collect();
        let count = 1 + self.below(8) as u64;
        let prompt = |id| {
            let cut = self.pick(&[0, 15, 16, 17, 32, 33, 48, 64, 79]);
            let mut tokens = self.pick(&texts)[..cut].to_vec();
            let tail = self.pick(&[0, 1, 2, 16, 40]).max(usize::from(cut == 0));
            tokens.extend(self.tokens(tail));
            Prompt { id, tokens }
        };
        (0..count).map(prompt).collect()
    }

    fn sampling(&mut self) -> SamplingParams {
        let max = self.pick(&[1, 2, 16, 17, 18, 45]);
        let mut params = match self.below(4) {
            0 => SamplingParams::neutral(max),
            1 => SamplingParams { temperature: 0.3, ..SamplingParams::neutral(max) },
            2 => SamplingParams::greedy(max),
            _ => SamplingParams { max_completion_length: max, ..sampling() },
        };
        params.ignore_eos = self.below(5) == 0;
        if self.below(2) == 0 {
            // Most completions reach one of these in a while: two tokens' ends and beginnings.
            params.stop = vec!["1 1".into(), "0 4".into(), "77 ".into()];
        }
        params
    }

    fn options(&mut self) -> RolloutOptions {
        let max_batch = self.pick(&[1, 2, 3, 5, 9, 64]);
        let guess = self.below(3) > 0;
        let speculation = guess.then(|| Speculation { max_draft: 1 + self.below(6), ngram: 1 + self.below(2) });
        RolloutOptions { speculation, ..max_batch.into() }
    }
}

#[test]
fn prop_any_mixture_gives_each_completion_the_bits_that_it_has_by_itself() {
    let mut models = [params(config()), repetitive(config())].map(|params| {
        let engine = RolloutEngine::new(&params, 1).expect("a sound model");
        (Decoder::new(&params, WeightFormat::F32, Precision::default()), engine)
    });
    let pools = [1, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool"));
    let mut all = RolloutStats::default();
    for case in 0..80 {
        let (decoder, engine) = &mut models[case as usize % 2];
        let mut dice = Dice(Stream::new(21, "mixtures", &[case]), 0);
        let (prompts, sampling, options, n) = (dice.prompts(), dice.sampling(), dice.options(), 1 + dice.below(4));
        engine.set_options(options).expect("sound options");
        let (groups, stats) = pools[dice.below(2)].install(|| run(engine, &prompts, n, &sampling));
        assert_eq!(groups.len(), prompts.len());
        for (prompt, group) in prompts.iter().zip(groups.values()) {
            for (i, completion) in group.completions.iter().enumerate() {
                let expected = plain(decoder, prompt, i as u64, &sampling);
                assert_eq!(*completion, expected, "case {case}: completion {i} of {prompt:?}\n{options:?} {sampling:?}");
            }
        }
        let of_prompts: usize = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
        let of_completions: usize = groups.values().flat_map(|group| &group.completions).map(|c| c.tokens.len() - 1).sum();
        assert_eq!(stats.prefill_tokens + stats.reused_tokens, of_prompts as u64, "case {case}");
        assert_eq!(stats.decode_tokens, of_completions as u64, "case {case}");
        assert_eq!(engine.kv_pool.in_use(), 0, "case {case}: pages left behind");
        let estimate = memory_estimate(decoder.config(), &options, &prompts, n, &sampling);
        assert!(stats.kv_pages_peak * stats.kv_page_bytes <= estimate.kv_cache, "case {case}: {stats:?} {estimate:?}");
        all += stats;
    }
    assert!(all.reused_tokens > 500, "little was shared: {all:?}");
    assert!(all.accepted_tokens > 25 && all.drafted_tokens > all.accepted_tokens + 50, "little was guessed: {all:?}");
}

#[test]
fn more_completions_than_rows_of_logits_at_a_time_give_the_same_bits() {
    let (params, prompts) = (params(config()), prompts(&[3; 50]));
    let expected = generate(&params, 7, &prompts, 3, &SamplingParams::neutral(4));
    assert_eq!(generate(&params, 150, &prompts, 3, &SamplingParams::neutral(4)), expected);
}

/// What a call does without the completions.
fn stats(params: &Params, options: RolloutOptions, prompts: &[Prompt], n: usize, sampling: &SamplingParams) -> RolloutStats {
    run(&mut RolloutEngine::new(params, options).expect("a sound model"), prompts, n, sampling).1
}

#[test]
fn common_beginnings_are_run_once_even_when_their_first_prompt_is_long_done() {
    let params = params(config());
    let system: Vec<u32> = (0..40).collect();
    let prompt = |id: u64, tail: u32| Prompt { id, tokens: system.iter().copied().chain([tail, 9]).collect() };
    let prompts = [prompt(0, 50), prompt(1, 51), Prompt { id: 2, tokens: vec![60; 33] }, prompt(3, 50), prompt(4, 52)];
    for max_batch in [1, 3, 64] {
        let stats = stats(&params, max_batch.into(), &prompts, 2, &sampling());
        assert_eq!(stats.reused_tokens, 3 * 32, "two whole pages of 16 tokens for each of three prompts, max_batch {max_batch}");
        assert_eq!(stats.prefill_tokens, 4 * 42 + 33 - 96);
    }
}

#[test]
fn a_prompt_is_run_beside_completions_that_go_on() {
    let params = params(config());
    let length = |prompt: &Prompt| generate_one(&params, prompt).tokens.len();
    let find = |len: usize, wanted: &dyn Fn(usize) -> bool| {
        let id = |i: u64| Prompt { id: 1000 + i, tokens: (0..len as u64).map(|t| ((i * 31 + t * 7) % 131) as u32).collect() };
        (0..200).map(id).find(|prompt| wanted(length(prompt))).expect("a completion of such a length")
    };
    let brief = |length| (2..8).contains(&length);
    let prompts = [find(4, &brief), find(5, &|length| length == 45), find(300, &brief)];
    // The second place decodes 45 tokens; in the first a completion ends and a prompt of three passes comes in, without a pass of its own.
    assert_eq!(stats(&params, 2.into(), &prompts, 1, &sampling()).passes, 45);
    let alone: u64 = prompts.iter().map(|prompt| prompt.tokens.len().div_ceil(128) as u64 + length(prompt) as u64 - 1).sum();
    assert_eq!(stats(&params, 1.into(), &prompts, 1, &sampling()).passes, alone);
}

fn generate_one(params: &Params, prompt: &Prompt) -> Completion {
    generate(params, 1, std::slice::from_ref(prompt), 1, &sampling()).remove(0).completions.remove(0)
}

#[test]
fn each_right_guess_saves_a_pass() {
    let params = repetitive(config());
    let greedy = |length| SamplingParams { ignore_eos: true, ..SamplingParams::greedy(length) };
    let prompts = self::prompts(&[30]);
    let plainly = stats(&params, 4.into(), &prompts, 1, &greedy(200));
    let speculation = Some(Speculation { max_draft: 4, ngram: 2 });
    let options = RolloutOptions { speculation, ..4.into() };
    let guessed = stats(&params, options, &prompts, 1, &greedy(200));
    assert_eq!((plainly.passes, plainly.drafted_tokens), (200, 0));
    assert!(guessed.accepted_tokens > 20, "{guessed:?}");
    assert_eq!(guessed.passes, plainly.passes - guessed.accepted_tokens);
    // A batch that fills the passes guesses nothing.
    let prompts = self::prompts(&[5; 20]);
    let full = stats(&params, RolloutOptions { speculation, ..64.into() }, &prompts, 1, &greedy(30));
    assert_eq!(full.drafted_tokens, 0);
}

#[test]
fn options_that_guess_nothing_or_of_other_weights_are_refused() {
    let params = params(config());
    let mut engine = RolloutEngine::new(&params, 4).expect("a sound model");
    let good = RolloutOptions::from(4);
    for (options, word) in [
        (RolloutOptions { speculation: Some(Speculation { max_draft: 0, ngram: 2 }), ..good }, "max_draft"),
        (RolloutOptions { speculation: Some(Speculation { max_draft: 2, ngram: 0 }), ..good }, "ngram"),
        (RolloutOptions { max_batch: 0, ..good }, "max_batch"),
        (RolloutOptions { weights: WeightFormat::Int8, ..good }, "Int8"),
    ] {
        let error = engine.set_options(options).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn memory_estimate_is_what_a_call_allocates_when_no_completion_ends_early() {
    for (tied, format) in [(true, WeightFormat::F32), (false, WeightFormat::Bf16), (false, WeightFormat::Int8)] {
        let params = params(ModelConfig { tie_word_embeddings: tied, ..config() });
        let mut prompts = prompts(&[30, 70, 5, 33]);
        prompts.push(Prompt { id: 50, tokens: prompts[1].tokens[..60].to_vec() });
        let options = RolloutOptions { weights: format, ..15.into() };
        for sampling in [SamplingParams::neutral(60), sampling()] {
            let sampling = SamplingParams { ignore_eos: true, ..sampling };
            let mut engine = RolloutEngine::new(&params, options).expect("a sound model");
            let request =
                Request { decode: &decode, prompts: &prompts, num_generations: 3, sampling: &sampling, stream: &stream };
            engine.run(&request, &mut |_, _| {}).expect("runs");
            let (held, estimate) = (engine.memory(), memory_estimate(&params.config, &options, &prompts, 3, &sampling));
            assert_eq!((held.weights, held.kv_cache), (estimate.weights, estimate.kv_cache), "{format:?}");
            // Sampling's own buffers live as long as the call.
            let of_sampling = 131 * (4 + if sampling.top_k > 0 { 12 * rayon::current_num_threads() } else { 0 }) as u64;
            assert_eq!(held.buffers + of_sampling, estimate.buffers, "{format:?}");
        }
    }
}

#[test]
fn memory_estimate_counts_what_is_decoded_at_a_time_and_common_beginnings_once() {
    let (config, page) = (config(), KvShape::new(&config()).page_bytes() as u64);
    let same: Vec<Prompt> = (0..10).map(|id| Prompt { id, tokens: (0..40).collect() }).collect();
    let pages = |prompts: &[Prompt], max_batch: usize, n: usize, max| {
        memory_estimate(&config, &max_batch.into(), prompts, n, &SamplingParams::neutral(max)).kv_cache / page
    };
    assert_eq!(pages(&same, 4, 8, 33), 4 * 2 + 2 + 4, "4 completions, 2 pages in common and the ends of 4 prompts");
    assert_eq!(pages(&same, 4, 8, 1), 2 + 4, "a completion's last token is never run");
    assert_eq!(pages(&same[..1], 64, 8, 34), 8 * 3 + 3);
    assert_eq!(pages(&[], 64, 8, 34), 0);
}
