//! Continuous batching: which prompt is run when, and which completions are decoded together.

use std::time::Instant;

use plumb_core::rollout::{Completion, FinishReason, Group, Prompt, SamplingParams};
use plumb_core::seed::Stream;
use plumb_kernels::cpu::awake::awake;
use rayon::prelude::*;

use super::decoder::{Decoder, Row};
use super::kv_cache::{KvPool, PAGE, PageTable};
use super::memory::Extent;
use super::prefix::PrefixTree;
use super::sampler::{SampleScratch, Sampled, Sampler};
use super::speculation::{draft_room, look_up};
use super::text::{Decode, StopWatch, final_text};
use super::{RolloutOptions, RolloutStats};
use crate::{Error, Result};

/// Most rows of prompts in a pass: enough to reuse each weight many times, few enough for the second-level cache.
pub const PREFILL_ROWS: usize = 128;

/// Most rows whose logits are held at a time.
pub const LOGIT_ROWS: usize = 128;

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
    table: PageTable,
    /// Tokens of the prompt that were run, by this prompt or by one that begins like it.
    run: usize,
    completions: Vec<Option<Completion>>,
}

/// A completion that is being decoded, or waits for its prompt.
struct Slot {
    /// Index into the request's prompts.
    prompt: usize,
    completion: usize,
    prompt_table: PageTable,
    table: PageTable,
    stream: Stream,
    /// Empty while its prompt is being run.
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    /// Guesses of what comes after `tokens`, run along with the last of them.
    draft: Vec<u32>,
    watch: StopWatch,
    finish: Option<FinishReason>,
}

/// A token to draw.
#[derive(Clone, Copy, Debug)]
struct Draw {
    slot: usize,
    /// Whose logits: an index into the pass's `sampled` rows.
    line: usize,
    uniform: f64,
    token: Option<Sampled>,
}

/// A running call of [`super::RolloutEngine::generate`].
pub struct Batch<'a> {
    options: &'a RolloutOptions,
    decoder: &'a mut Decoder,
    kv_pool: &'a mut KvPool,
    request: &'a Request<'a>,
    sampler: Sampler,
    prefixes: PrefixTree,
    /// Completions in order: prompt by prompt. This is the next to be started.
    next: usize,
    /// In the order of their prompts, as are the slots.
    groups: Vec<OpenGroup>,
    slots: Vec<Slot>,
    /// Slots that are done, for their buffers.
    spare: Vec<Slot>,
    /// The rows of a pass: those of completions, then those of prompts.
    rows: Vec<Row>,
    /// Which rows of a pass have tokens drawn after them, in order.
    sampled: Vec<usize>,
    /// Neighbours where they are of one slot, and in the order of their lines.
    draws: Vec<Draw>,
    /// One per thread.
    scratch: Vec<SampleScratch>,
    /// Logits after the prompt whose completions are not all started, `[v]`: those that start later draw their first token from them.
    first_logits: Vec<f32>,
    stats: RolloutStats,
}

impl<'a> Batch<'a> {
    /// Prepares a request that was checked.
    pub fn new(options: &'a RolloutOptions, decoder: &'a mut Decoder, kv_pool: &'a mut KvPool, request: &'a Request<'a>) -> Self {
        let Request { prompts, num_generations, sampling, .. } = *request;
        let extent = Extent::new(options, prompts, num_generations, sampling.max_completion_length);
        kv_pool.reset(extent.tables(), extent.pages_of_table());
        decoder.reserve(extent.positions(), extent.rows(), extent.lines());
        Batch {
            options,
            sampler: Sampler::new(sampling),
            prefixes: PrefixTree::new(prompts),
            next: 0,
            groups: Vec::with_capacity(extent.slots),
            slots: Vec::with_capacity(extent.slots),
            spare: Vec::with_capacity(extent.slots),
            rows: Vec::with_capacity(extent.rows()),
            sampled: Vec::with_capacity(extent.rows()),
            draws: Vec::with_capacity(extent.rows() + extent.slots),
            scratch: vec![SampleScratch::default(); rayon::current_num_threads()],
            first_logits: vec![0.0; decoder.config().vocab_size],
            stats: RolloutStats { kv_page_bytes: kv_pool.page_bytes() as u64, ..RolloutStats::default() },
            decoder,
            kv_pool,
            request,
        }
    }

    /// Decodes until all groups are done.
    pub fn run(mut self, on_group: &mut dyn FnMut(usize, Group)) -> Result<RolloutStats> {
        loop {
            let start = Instant::now();
            self.start_completions();
            self.draw_late_first_tokens()?;
            self.stats.prefill_s += start.elapsed().as_secs_f64();
            // A completion may end with its first token: then its place is free again before anything is run.
            if self.finish_completions(on_group) {
                continue;
            }
            if self.slots.is_empty() {
                self.stats.kv_pages_peak = self.kv_pool.peak() as u64;
                return Ok(self.stats);
            }
            self.pass()?;
            self.finish_completions(on_group);
        }
    }

    /// Fills free places with waiting completions, and opens the groups of prompts that are new.
    fn start_completions(&mut self) {
        let Request { prompts, num_generations, sampling, stream, .. } = *self.request;
        while self.slots.len() < self.options.max_batch && self.next < prompts.len() * num_generations {
            let (prompt, completion) = (self.next / num_generations, self.next % num_generations);
            self.next += 1;
            if completion == 0 {
                self.open_group(prompt);
            }
            let prompt_table = self.groups.last().expect("the group of the prompt that came last is open").table;
            let table = self.kv_pool.take_table();
            let stream = stream(prompts[prompt].id, completion as u64);
            let capacity = sampling.max_completion_length;
            let slot = match self.spare.pop() {
                Some(slot) => Slot { prompt, completion, prompt_table, table, stream, finish: None, ..slot },
                None => Slot {
                    prompt,
                    completion,
                    prompt_table,
                    table,
                    stream,
                    tokens: Vec::with_capacity(capacity),
                    logprobs: Vec::with_capacity(capacity),
                    draft: Vec::with_capacity(self.options.speculation.map_or(0, |speculation| speculation.max_draft)),
                    watch: StopWatch::default(),
                    finish: None,
                },
            };
            self.slots.push(slot);
        }
    }

    /// Gives a prompt its pages: those that an earlier one computes, and new ones.
    fn open_group(&mut self, prompt: usize) {
        let Batch { request, kv_pool, prefixes, groups, stats, .. } = self;
        let table = kv_pool.take_table();
        let mut reused = 0;
        for i in 0..prefixes.path(prompt).len() {
            let node = prefixes.path(prompt)[i];
            let page = if let Some(page) = prefixes.page(node) {
                reused += 1;
                page
            } else {
                let page = kv_pool.take_page();
                prefixes.set_page(node, page);
                page
            };
            kv_pool.push(table, page);
        }
        kv_pool.reserve(table, request.prompts[prompt].tokens.len());
        let run = reused * PAGE;
        stats.reused_tokens += run as u64;
        groups.push(OpenGroup { prompt, table, run, completions: vec![None; request.num_generations] });
    }

    /// Draws the first tokens of completions whose prompt was run before they were started.
    fn draw_late_first_tokens(&mut self) -> Result<()> {
        let Batch { request, groups, slots, draws, sampler, scratch, first_logits, .. } = self;
        draws.clear();
        for (at, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.tokens.is_empty()) {
            let group = &groups[group_of(groups, slot.prompt)];
            if group.run == request.prompts[group.prompt].tokens.len() {
                draws.push(Draw { slot: at, line: 0, uniform: slot.stream.f64_at(0), token: None });
            }
        }
        if !draws.is_empty() {
            draw(sampler, draws, 0, first_logits, scratch, first_logits.len());
        }
        self.take_tokens()
    }

    /// Runs the last token of each completion with what is guessed after it, and some rows of the prompts that are not through;
    /// then draws what follows. Time is shared out by rows.
    fn pass(&mut self) -> Result<()> {
        let start = Instant::now();
        self.rows.clear();
        self.sampled.clear();
        self.draws.clear();
        self.add_completion_rows();
        let of_completions = self.rows.len();
        self.add_prompt_rows();
        let of_prompts = self.rows.len() - of_completions;

        let first_of_next = self.next_group_line();
        let Batch { decoder, kv_pool, rows, sampled, draws, sampler, scratch, first_logits, .. } = self;
        let vocab_size = first_logits.len();
        awake(|| {
            decoder.forward(rows, kv_pool);
            let mut draws = &mut draws[..];
            for (i, rows) in sampled.chunks(LOGIT_ROWS).enumerate() {
                let logits = decoder.logits(rows);
                let lines = i * LOGIT_ROWS..i * LOGIT_ROWS + rows.len();
                let here = draws.partition_point(|draw| draw.line < lines.end);
                draw(
                    sampler,
                    draws.split_off_mut(..here).expect("as many as there are"),
                    lines.start,
                    logits,
                    scratch,
                    vocab_size,
                );
                if let Some(line) = first_of_next.filter(|line| lines.contains(line)) {
                    first_logits.copy_from_slice(&logits[(line - lines.start) * vocab_size..][..vocab_size]);
                }
            }
        });
        self.stats.passes += 1;
        self.stats.prefill_tokens += of_prompts as u64;
        let result = self.take_tokens();
        let (elapsed, share) = (start.elapsed().as_secs_f64(), of_prompts as f64 / (of_prompts + of_completions) as f64);
        self.stats.prefill_s += elapsed * share;
        self.stats.decode_s += elapsed * (1.0 - share);
        result
    }

    fn add_completion_rows(&mut self) {
        let waiting: usize = self.groups.iter().map(|group| self.request.prompts[group.prompt].tokens.len() - group.run).sum();
        let running = self.slots.iter().filter(|slot| !slot.tokens.is_empty()).count();
        let room = draft_room(self.options, running, waiting.min(PREFILL_ROWS));
        let Batch { options, request, kv_pool, slots, rows, sampled, draws, stats, .. } = self;
        for (at, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| !slot.tokens.is_empty()) {
            let (prompt, done) = (&request.prompts[slot.prompt].tokens, slot.tokens.len());
            if let Some(speculation) = options.speculation {
                // The last token that may be drawn is never run.
                let room = room.min(request.sampling.max_completion_length - 1 - done);
                look_up(prompt, &slot.tokens, speculation.ngram, room, &mut slot.draft);
                stats.drafted_tokens += slot.draft.len() as u64;
            }
            kv_pool.reserve(slot.table, done + slot.draft.len());
            for (i, &token) in slot.tokens[done - 1..].iter().chain(&slot.draft).enumerate() {
                let position = prompt.len() + done - 1 + i;
                draws.push(Draw { slot: at, line: sampled.len(), uniform: slot.stream.f64_at((done + i) as u64), token: None });
                sampled.push(rows.len());
                let (prompt_table, completion) = (slot.prompt_table, Some(slot.table));
                rows.push(Row { token, position, prompt: prompt_table, prompt_len: prompt.len(), completion });
            }
        }
    }

    /// Prompts are run in order, so that what one has in common with an earlier one was run before or is among the rows before.
    fn add_prompt_rows(&mut self) {
        let Batch { request, groups, slots, rows, sampled, draws, .. } = self;
        let mut room = PREFILL_ROWS;
        for group in groups {
            let prompt = &request.prompts[group.prompt].tokens;
            let positions = group.run..prompt.len().min(group.run + room);
            if positions.is_empty() {
                continue;
            }
            room -= positions.len();
            group.run = positions.end;
            let (table, prompt_len) = (group.table, prompt.len());
            let row = |position| Row { token: prompt[position], position, prompt: table, prompt_len, completion: None };
            rows.extend(positions.map(row));
            if group.run == prompt.len() {
                let waiting = slots.iter().enumerate().filter(|(_, slot)| slot.prompt == group.prompt);
                let line = sampled.len();
                draws.extend(waiting.map(|(at, slot)| Draw { slot: at, line, uniform: slot.stream.f64_at(0), token: None }));
                sampled.push(rows.len() - 1);
            }
        }
    }

    /// The line of logits that completions will begin with which are not started yet, if it is in this pass.
    fn next_group_line(&self) -> Option<usize> {
        let started = !self.next.is_multiple_of(self.request.num_generations);
        let group = self.groups.last().filter(|_| started)?;
        let last = self.rows.last().filter(|row| row.completion.is_none() && row.prompt == group.table)?;
        (last.position + 1 == last.prompt_len).then(|| self.sampled.len() - 1)
    }

    /// Appends the drawn tokens, of which there are more than one where guesses were right, and decides which completions are done.
    fn take_tokens(&mut self) -> Result<()> {
        let Batch { decoder, request, slots, draws, stats, .. } = self;
        let Request { decode, prompts, sampling, .. } = **request;
        let ends = if sampling.ignore_eos { &[][..] } else { &decoder.config().eos_token_ids };
        for draws in draws.chunk_by(|a, b| a.slot == b.slot) {
            let slot = &mut slots[draws[0].slot];
            for (i, draw) in draws.iter().enumerate() {
                let Some(Sampled { token, logprob }) = draw.token else {
                    let (id, completion, t) = (prompts[slot.prompt].id, slot.completion, slot.tokens.len());
                    let what = format!("a logit of token {t} in completion {completion} of prompt {id}");
                    return Err(Error::NonFinite { what });
                };
                stats.decode_tokens += u64::from(!slot.tokens.is_empty());
                slot.tokens.push(token);
                slot.logprobs.push(logprob);
                if ends.contains(&token) || slot.watch.found(decode, &slot.tokens, &sampling.stop) {
                    slot.finish = Some(FinishReason::Stop);
                } else if slot.tokens.len() == sampling.max_completion_length {
                    slot.finish = Some(FinishReason::Length);
                }
                // The next draw is from the logits after a guess: it counts if the guess is what was drawn.
                if slot.finish.is_some() || slot.draft.get(i) != Some(&token) {
                    break;
                }
                stats.accepted_tokens += 1;
            }
            slot.draft.clear();
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
            self.kv_pool.give_back_table(slot.table, 0);
            let at = group_of(&self.groups, slot.prompt);
            self.groups[at].completions[slot.completion] = Some(completion);
            self.spare.push(slot);
            if self.groups[at].completions.iter().all(Option::is_some) {
                let OpenGroup { prompt, table, completions, .. } = self.groups.remove(at);
                self.kv_pool.give_back_table(table, self.prefixes.path(prompt).len());
                self.prefixes.release(prompt, |page| self.kv_pool.give_back_page(page));
                let completions = completions.into_iter().flatten().collect();
                on_group(prompt, Group { prompt: prompts[prompt].clone(), completions });
            }
        }
        self.slots.len() < before
    }
}

/// Where the open group of a prompt is.
fn group_of(groups: &[OpenGroup], prompt: usize) -> usize {
    groups.binary_search_by_key(&prompt, |group| group.prompt).expect("its group is open")
}

/// Draws tokens from rows of logits, `[lines, v]`, the first of which is `first_line`. Each thread takes a share of the draws.
fn draw(
    sampler: &Sampler,
    draws: &mut [Draw],
    first_line: usize,
    logits: &[f32],
    scratch: &mut [SampleScratch],
    vocab_size: usize,
) {
    let share = draws.len().div_ceil(scratch.len()).max(1);
    draws.par_chunks_mut(share).zip(scratch).for_each(|(draws, scratch)| {
        for draw in draws {
            let logits = &logits[(draw.line - first_line) * vocab_size..][..vocab_size];
            draw.token = sampler.sample(logits, draw.uniform, scratch);
        }
    });
}
