//! Continuous batching: which prompt is run when, and which completions are decoded together.

use std::ops::Range;
use std::time::Instant;

use plumb_core::rollout::{Completion, FinishReason, Group, Prompt, SamplingParams};
use plumb_core::seed::Stream;
use rayon::prelude::*;

use super::RolloutStats;
use super::decoder::{Caches, Decoder, Row};
use super::sampler::{SampleScratch, Sampled, Sampler};
use super::text::{Decode, StopWatch, final_text};
use crate::{Error, Result};

/// Rows of prompts that are run together: enough to reuse each weight many times, few enough for the second-level cache.
const PREFILL_ROWS: usize = 128;

/// What [`super::RolloutEngine::generate`] was asked for.
pub struct Request<'a> {
    pub decode: Decode<'a>,
    pub prompts: &'a [Prompt],
    pub num_generations: usize,
    pub sampling: &'a SamplingParams,
    pub stream: &'a dyn Fn(u64, u64) -> Stream,
}

/// A prompt some of whose completions are not done.
struct OpenGroup {
    /// Index into the request's prompts.
    prompt: usize,
    cache: usize,
    /// Logits after the prompt, `[v]`: each completion's first token is drawn from them.
    logits: Vec<f32>,
    completions: Vec<Option<Completion>>,
}

/// A completion that is being decoded.
struct Slot {
    /// Index into the request's prompts.
    prompt: usize,
    completion: usize,
    prompt_cache: usize,
    cache: usize,
    stream: Stream,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    watch: StopWatch,
    finish: Option<FinishReason>,
    scratch: SampleScratch,
    sampled: Option<Sampled>,
}

/// A running call of [`super::RolloutEngine::generate`].
pub struct Batch<'a> {
    max_slots: usize,
    decoder: &'a mut Decoder,
    caches: &'a mut Caches,
    request: &'a Request<'a>,
    sampler: Sampler,
    vocab_size: usize,
    /// Completions in order: prompt by prompt. This is the next to be started.
    next: usize,
    groups: Vec<OpenGroup>,
    slots: Vec<Slot>,
    /// Slots that are done, for their buffers.
    spare: Vec<Slot>,
    rows: Vec<Row>,
    /// `[slots, v]`.
    logits: Vec<f32>,
    stats: RolloutStats,
}

impl<'a> Batch<'a> {
    /// Prepares a request that was checked.
    pub fn new(max_slots: usize, decoder: &'a mut Decoder, caches: &'a mut Caches, request: &'a Request<'a>) -> Self {
        let longest = request.prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
        caches.prompts.reset(longest);
        caches.completions.reset(request.sampling.max_completion_length);
        decoder.reserve(longest + request.sampling.max_completion_length);
        Batch {
            max_slots,
            sampler: Sampler::new(request.sampling),
            vocab_size: decoder.config().vocab_size,
            decoder,
            caches,
            request,
            next: 0,
            groups: Vec::new(),
            slots: Vec::new(),
            spare: Vec::new(),
            rows: Vec::new(),
            logits: Vec::new(),
            stats: RolloutStats::default(),
        }
    }

    /// Decodes until all groups are done.
    pub fn run(mut self, on_group: &mut dyn FnMut(usize, Group)) -> Result<RolloutStats> {
        loop {
            let start = Instant::now();
            let fresh = self.start_completions();
            self.draw_first_tokens(fresh)?;
            self.stats.prefill_s += start.elapsed().as_secs_f64();
            // A completion may end with its first token: then its place is free again before anything is decoded.
            if self.finish_completions(on_group) {
                continue;
            }
            if self.slots.is_empty() {
                return Ok(self.stats);
            }
            let start = Instant::now();
            self.decode_step()?;
            self.stats.decode_s += start.elapsed().as_secs_f64();
            self.finish_completions(on_group);
        }
    }

    /// Fills free places with waiting completions and runs the prompts that are new. Returns the places that were filled.
    fn start_completions(&mut self) -> Range<usize> {
        let Request { prompts, num_generations, sampling, stream, .. } = *self.request;
        let (first, first_group) = (self.slots.len(), self.groups.len());
        while self.slots.len() < self.max_slots && self.next < prompts.len() * num_generations {
            let (prompt, completion) = (self.next / num_generations, self.next % num_generations);
            self.next += 1;
            if completion == 0 {
                let (cache, completions) = (self.caches.prompts.take(), vec![None; num_generations]);
                self.groups.push(OpenGroup { prompt, cache, logits: vec![0.0; self.vocab_size], completions });
            }
            let prompt_cache = self.groups.iter().find(|group| group.prompt == prompt).expect("its group is open").cache;
            let cache = self.caches.completions.take();
            let stream = stream(prompts[prompt].id, completion as u64);
            let capacity = sampling.max_completion_length;
            let slot = match self.spare.pop() {
                Some(slot) => Slot { prompt, completion, prompt_cache, cache, stream, finish: None, ..slot },
                None => Slot {
                    prompt,
                    completion,
                    prompt_cache,
                    cache,
                    stream,
                    tokens: Vec::with_capacity(capacity),
                    logprobs: Vec::with_capacity(capacity),
                    watch: StopWatch::default(),
                    finish: None,
                    scratch: SampleScratch::default(),
                    sampled: None,
                },
            };
            self.slots.push(slot);
        }
        self.logits.resize(self.logits.len().max(self.slots.len() * self.vocab_size), 0.0);
        self.prefill(first_group);
        first..self.slots.len()
    }

    /// Runs the prompts of the groups from `first` on, in chunks that need not end where a prompt does.
    fn prefill(&mut self, first: usize) {
        let Batch { decoder, caches, request, groups, rows, stats, vocab_size, .. } = self;
        let mut pending: Vec<(usize, Row)> = Vec::new();
        for (i, group) in groups.iter().enumerate().skip(first) {
            let prompt = &request.prompts[group.prompt].tokens;
            let row = |position| Row {
                token: prompt[position],
                position,
                prompt: group.cache,
                prompt_len: prompt.len(),
                completion: None,
            };
            pending.extend((0..prompt.len()).map(|position| (i, row(position))));
        }
        for chunk in pending.chunks(PREFILL_ROWS) {
            rows.clear();
            rows.extend(chunk.iter().map(|(_, row)| *row));
            let is_last = |row: &Row| row.position + 1 == row.prompt_len;
            let last: Vec<usize> = (0..chunk.len()).filter(|&at| is_last(&rows[at])).collect();
            let mut logits = vec![0.0; last.len() * *vocab_size];
            // One entry into the thread pool for the whole pass, rather than one for each matrix.
            rayon::scope(|_| {
                decoder.forward(rows, caches);
                if !last.is_empty() {
                    decoder.logits(last.iter().copied(), &mut logits);
                }
            });
            for (at, logits) in last.into_iter().zip(logits.chunks_exact(*vocab_size)) {
                groups[chunk[at].0].logits.copy_from_slice(logits);
            }
            stats.prefill_tokens += chunk.len() as u64;
        }
    }

    fn draw_first_tokens(&mut self, fresh: Range<usize>) -> Result<()> {
        let Batch { slots, logits, groups, vocab_size, .. } = self;
        for (slot, logits) in slots.iter().zip(logits.chunks_exact_mut(*vocab_size)).skip(fresh.start) {
            let group = groups.iter().find(|group| group.prompt == slot.prompt).expect("its group is open");
            logits.copy_from_slice(&group.logits);
        }
        let sampler = &self.sampler;
        let logits = &mut self.logits[fresh.start * self.vocab_size..];
        let slots = &mut self.slots[fresh.clone()];
        if !slots.is_empty() {
            rayon::scope(|_| draw(sampler, slots, logits, self.vocab_size));
        }
        self.take_tokens(fresh)
    }

    /// Runs the last token of each completion and draws the next.
    fn decode_step(&mut self) -> Result<()> {
        let Batch { decoder, caches, request, sampler, slots, rows, logits, vocab_size, .. } = self;
        rows.clear();
        rows.extend(slots.iter().map(|slot| {
            let prompt_len = request.prompts[slot.prompt].tokens.len();
            Row {
                token: *slot.tokens.last().expect("its first token was drawn"),
                position: prompt_len + slot.tokens.len() - 1,
                prompt: slot.prompt_cache,
                prompt_len,
                completion: Some(slot.cache),
            }
        }));
        let logits = &mut logits[..slots.len() * *vocab_size];
        rayon::scope(|_| {
            decoder.forward(rows, caches);
            decoder.logits(0..rows.len(), logits);
            draw(sampler, slots, logits, *vocab_size);
        });
        self.stats.decode_tokens += self.slots.len() as u64;
        self.take_tokens(0..self.slots.len())
    }

    /// Appends the drawn tokens and decides which completions are done.
    fn take_tokens(&mut self, places: Range<usize>) -> Result<()> {
        let Request { decode, prompts, sampling, .. } = *self.request;
        let ends = if sampling.ignore_eos { &[][..] } else { &self.decoder.config().eos_token_ids };
        for slot in &mut self.slots[places] {
            let Some(Sampled { token, logprob }) = slot.sampled.take() else {
                let (id, completion, t) = (prompts[slot.prompt].id, slot.completion, slot.tokens.len());
                return Err(Error::NonFinite { what: format!("a logit of token {t} in completion {completion} of prompt {id}") });
            };
            slot.tokens.push(token);
            slot.logprobs.push(logprob);
            if ends.contains(&token) || slot.watch.found(decode, &slot.tokens, &sampling.stop) {
                slot.finish = Some(FinishReason::Stop);
            } else if slot.tokens.len() == sampling.max_completion_length {
                slot.finish = Some(FinishReason::Length);
            }
        }
        Ok(())
    }

    /// Moves completions that are done to their groups, and hands out groups that are complete. Returns whether there were any.
    fn finish_completions(&mut self, on_group: &mut dyn FnMut(usize, Group)) -> bool {
        let Request { decode, prompts, sampling, .. } = *self.request;
        let before = self.slots.len();
        let mut place = 0;
        while place < self.slots.len() {
            let Some(mut finish) = self.slots[place].finish else {
                place += 1;
                continue;
            };
            // In order, so that completions of a prompt stay neighbours and find its keys in the cache.
            let mut slot = self.slots.remove(place);
            // Some tokenizers do not mark their end-of-text token as special, and would write it out.
            let ended = slot.tokens.last().is_some_and(|token| self.decoder.config().eos_token_ids.contains(token));
            let (text, stopped) = final_text(decode, &slot.tokens[..slot.tokens.len() - usize::from(ended)], &sampling.stop);
            if stopped {
                finish = FinishReason::Stop;
            }
            let completion = Completion { tokens: slot.tokens.clone(), logprobs: slot.logprobs.clone(), text, finish };
            slot.tokens.clear();
            slot.logprobs.clear();
            slot.watch.reset();
            self.caches.completions.give_back(slot.cache);
            let at = self.groups.iter().position(|group| group.prompt == slot.prompt).expect("its group is open");
            self.groups[at].completions[slot.completion] = Some(completion);
            self.spare.push(slot);
            if self.groups[at].completions.iter().all(Option::is_some) {
                let group = self.groups.remove(at);
                self.caches.prompts.give_back(group.cache);
                let completions = group.completions.into_iter().flatten().collect();
                on_group(group.prompt, Group { prompt: prompts[group.prompt].clone(), completions });
            }
        }
        self.slots.len() < before
    }
}

/// Draws a token for each slot from its row of `logits`.
fn draw(sampler: &Sampler, slots: &mut [Slot], logits: &mut [f32], vocab_size: usize) {
    slots.par_iter_mut().zip(logits.par_chunks_exact_mut(vocab_size)).for_each(|(slot, logits)| {
        let uniform = slot.stream.f64_at(slot.tokens.len() as u64);
        slot.sampled = sampler.sample(logits, uniform, &mut slot.scratch);
    });
}
