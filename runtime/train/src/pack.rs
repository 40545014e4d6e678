//! What an optimizer step learns from, and how it is packed for the engine.

use std::ops::Range;
use std::sync::Arc;

use plumb_model::engine::{Packed, Target};

/// Most tokens the engine sees at once; a group with a single completion may exceed it. A constant, since another division of a
/// step adds the same gradients in another order.
pub const MICRO_BATCH_TOKENS_MAX: usize = 2048;

/// A completion as the loss sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct LossRow {
    /// Ids of the prompt; rows of one group share them.
    pub prompt: Arc<[u32]>,
    /// Ids of the completion.
    pub completion: Vec<u32>,
    /// Weight of the row's tokens in the loss, which carries the normalization: see [`plumb_methods::loss`]. 0 masks the row.
    pub token_weight: f64,
    /// One per token, or one for all. Empty for losses without advantages.
    pub advantages: Vec<f32>,
    /// One per token; empty for the policy's own.
    pub old_logprobs: Vec<f32>,
    /// One per token; empty without a reference.
    pub ref_logprobs: Vec<f32>,
    /// The sampler's, one per token; empty where it had the policy's own weights.
    pub rollout_logprobs: Vec<f32>,
    /// By how much the chosen answer of the row's pair should win, where that is learned.
    pub margin: f64,
    /// A teacher's last hidden states before each token of the completion, `[tokens, d]`; empty without a teacher.
    pub teacher_hidden: Vec<f32>,
    /// Whether the completion is a good one, where that is learned.
    pub label: bool,
}

impl LossRow {
    /// A row without policy terms.
    pub fn new(prompt: Arc<[u32]>, completion: Vec<u32>, token_weight: f64) -> Self {
        let (advantages, old_logprobs, ref_logprobs, rollout_logprobs, teacher_hidden) = Default::default();
        LossRow {
            prompt,
            completion,
            token_weight,
            advantages,
            old_logprobs,
            ref_logprobs,
            rollout_logprobs,
            teacher_hidden,
            margin: 0.0,
            label: true,
        }
    }
}

/// Divides `rows` into `parts` runs of nearly equal length, in order; fewer where there are fewer rows.
pub fn parts(rows: usize, parts: usize) -> Vec<Range<usize>> {
    let parts = parts.clamp(1, rows.max(1));
    (0..parts).map(|i| rows * i / parts..rows * (i + 1) / parts).collect()
}

/// Divides rows, in order, into runs of at most [`MICRO_BATCH_TOKENS_MAX`] tokens; a prompt that neighbors share counts once. Each `unit`
/// rows in a row stay together, whatever their length.
pub fn micro_batches(rows: &[LossRow], unit: usize) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (i, together) in rows.chunks(unit).enumerate() {
        let (start, end) = (i * unit, i * unit + together.len());
        let alone = packed_tokens(together, None);
        let before = batches.last().and_then(|_| rows[..start].last());
        let added = packed_tokens(together, before);
        match batches.last_mut() {
            Some(batch) if tokens + added <= MICRO_BATCH_TOKENS_MAX => {
                batch.end = end;
                tokens += added;
            }
            _ => {
                batches.push(start..end);
                tokens = alone;
            }
        }
    }
    batches
}

/// Tokens of rows when each shared prompt is there once, also one that is shared with the row before them.
fn packed_tokens(rows: &[LossRow], before: Option<&LossRow>) -> usize {
    let (mut tokens, mut last) = (0, before);
    for row in rows {
        let shared = last.is_some_and(|last| Arc::ptr_eq(&last.prompt, &row.prompt));
        tokens += row.completion.len() + if shared { 0 } else { row.prompt.len() };
        last = Some(row);
    }
    tokens
}

/// The segment of a row's prompt: that of the row before, `last`, where they share it.
fn share_prompt<'a>(packed: &mut Packed, last: &mut Option<(&'a Arc<[u32]>, usize)>, row: &'a LossRow) -> usize {
    let segment = match last {
        Some((shared, segment)) if Arc::ptr_eq(shared, &row.prompt) => *segment,
        _ => packed.push(&row.prompt, None),
    };
    *last = Some((&row.prompt, segment));
    segment
}

/// Packs rows: each shared prompt once, then its completions as segments that continue it. Targets are the completions' tokens,
/// row after row.
///
/// The last token of a completion predicts nothing, so it is asked for but not evaluated.
pub fn pack(rows: &[LossRow]) -> (Packed, Vec<Target>) {
    let (mut packed, mut targets) = (Packed::default(), Vec::new());
    let mut prompt = None;
    for row in rows {
        let segment = share_prompt(&mut packed, &mut prompt, row);
        let last_of_prompt = packed.segments[segment].start + packed.segments[segment].len - 1;
        let (&first, rest) = row.completion.split_first().expect("a completion has at least one token");
        targets.push(Target { row: last_of_prompt as u32, token: first });
        if !rest.is_empty() {
            let inner = packed.push(&row.completion[..rest.len()], Some(segment));
            let start = packed.segments[inner].start;
            targets.extend(rest.iter().enumerate().map(|(j, &token)| Target { row: (start + j) as u32, token }));
        }
    }
    (packed, targets)
}

/// Packs rows with the last tokens of their completions, each shared prompt once. Returns the index of each row's last token too.
pub fn pack_whole(rows: &[LossRow]) -> (Packed, Vec<u32>) {
    let (mut packed, mut last) = (Packed::default(), Vec::with_capacity(rows.len()));
    let mut prompt = None;
    for row in rows {
        let segment = share_prompt(&mut packed, &mut prompt, row);
        packed.push(&row.completion, Some(segment));
        last.push(packed.tokens.len() as u32 - 1);
    }
    (packed, last)
}

#[cfg(test)]
mod tests {
    use plumb_model::engine::Segment;

    use super::*;

    fn row(prompt: &Arc<[u32]>, completion: &[u32]) -> LossRow {
        LossRow::new(prompt.clone(), completion.to_vec(), 1.0)
    }

    #[test]
    fn group_is_packed_with_its_prompt_once() {
        let (a, b): (Arc<[u32]>, Arc<[u32]>) = (Arc::new([1, 2, 3]), Arc::new([9]));
        let (packed, targets) = pack(&[row(&a, &[4, 5, 6]), row(&a, &[7]), row(&b, &[8, 8])]);
        assert_eq!(packed.tokens, [1, 2, 3, 4, 5, 9, 8]);
        let segment = |start, len, prefix| Segment { start, len, prefix };
        assert_eq!(packed.segments, [segment(0, 3, None), segment(3, 2, Some(0)), segment(5, 1, None), segment(6, 1, Some(2))]);
        let pairs: Vec<(u32, u32)> = targets.iter().map(|t| (t.row, t.token)).collect();
        assert_eq!(pairs, [(2, 4), (3, 5), (4, 6), (2, 7), (5, 8), (6, 8)]);
    }

    #[test]
    fn whole_rows_share_their_prompt_and_end_with_their_last_tokens() {
        let (a, b): (Arc<[u32]>, Arc<[u32]>) = (Arc::new([1, 2, 3]), Arc::new([9]));
        let (packed, last) = pack_whole(&[row(&a, &[4, 5, 6]), row(&a, &[7]), row(&b, &[8, 8])]);
        assert_eq!(packed.tokens, [1, 2, 3, 4, 5, 6, 7, 9, 8, 8]);
        assert_eq!(
            packed.segments.iter().map(|segment| segment.prefix).collect::<Vec<_>>(),
            [None, Some(0), Some(0), None, Some(3)]
        );
        assert_eq!(last, [5, 6, 9]);
    }

    #[test]
    fn micro_batches_cover_the_rows_and_keep_to_the_limit() {
        let prompt: Arc<[u32]> = vec![0; 1000].into();
        let rows: Vec<LossRow> = (0..7).map(|_| row(&prompt, &[0; 400])).collect();
        // A prompt of 1000 shared by two completions of 400, again and again.
        assert_eq!(micro_batches(&rows, 1), [0..2, 2..4, 4..6, 6..7]);
        // Two rows with prompts of their own are 2800 tokens, and stay together.
        let apart: Vec<LossRow> = (0..4).map(|_| row(&vec![0; 1000].into(), &[0; 400])).collect();
        assert_eq!(micro_batches(&apart, 2), [0..2, 2..4]);
        assert_eq!(micro_batches(&apart, 1).len(), 4);
        let only = 0..1;
        assert_eq!(micro_batches(&[row(&prompt, &[0; 3000])], 1), [only]);
        assert!(micro_batches(&[], 1).is_empty());
    }

    #[test]
    fn parts_are_nearly_equal_and_cover_the_rows() {
        assert_eq!(parts(7, 3), [0..2, 2..4, 4..7]);
        assert_eq!(parts(2, 3), [0..1, 1..2]);
        let empty = 0..0;
        assert_eq!(parts(0, 3), [empty]);
    }
}
