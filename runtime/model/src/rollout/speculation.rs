//! Guesses of what a completion says next, which are checked and cost nothing but rows (speculative decoding, Leviathan et al. 2023).
//!
//! Token t of a completion is a function of the logits after the tokens before it and of the t-th number of its random stream. So
//! a guess is accepted exactly when the sampler draws that token from the real logits, and the completion is bit for bit the one
//! without guesses: a wrong one wastes its row and those after it, and changes nothing. What is guessed is whatever followed the
//! last occurrence of the latest few tokens (prompt lookup, Saxena 2023), so there is no second model.

use super::RolloutOptions;

/// How a completion's next tokens are guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speculation {
    /// Most tokens guessed at a time.
    pub max_draft: usize,
    /// Latest tokens that must have occurred before, in the prompt or in the completion.
    pub ngram: usize,
}

/// Rows of a pass up to which guesses may fill it. While fewer rows are run the weights' way from memory is what takes the time, so
/// rows that fill the gap are nearly free; a larger batch has no gap.
pub const SPECULATIVE_ROWS: usize = 16;

/// Tokens that each of `running` completions may guess, in a pass that has `others` rows besides.
pub fn draft_room(options: &RolloutOptions, running: usize, others: usize) -> usize {
    let Some(speculation) = options.speculation else { return 0 };
    let gap = SPECULATIVE_ROWS.saturating_sub(running + others);
    gap.checked_div(running).unwrap_or(0).min(speculation.max_draft)
}

/// Appends to `draft` up to `room` tokens that followed the last occurrence of the sequence's latest `ngram` tokens. Where that
/// occurrence runs into the end of the sequence, the guess goes on as it began: a period repeats.
pub fn look_up(prompt: &[u32], completion: &[u32], ngram: usize, room: usize, draft: &mut Vec<u32>) {
    let len = prompt.len() + completion.len();
    let at = |i: usize| if i < prompt.len() { prompt[i] } else { completion[i - prompt.len()] };
    if room == 0 || len <= ngram {
        return;
    }
    let occurs = |start: &usize| (0..ngram).rev().all(|i| at(start + i) == at(len - ngram + i));
    let Some(start) = (0..len - ngram).rev().find(occurs) else { return };
    for source in (start + ngram..).take(room) {
        let token = if source < len { at(source) } else { draft[source - len] };
        draft.push(token);
    }
}

#[cfg(test)]
mod tests {
    use plumb_kernels::cpu::packed_matmul::WeightFormat;

    use super::*;

    fn guess(prompt: &[u32], completion: &[u32], ngram: usize, room: usize) -> Vec<u32> {
        let mut draft = Vec::new();
        look_up(prompt, completion, ngram, room, &mut draft);
        draft
    }

    #[test]
    fn what_followed_the_last_occurrence_is_guessed() {
        assert_eq!(guess(&[1, 2, 3, 4, 1, 2, 5, 6], &[9, 1, 2], 2, 3), [5, 6, 9], "the last of two occurrences");
        assert_eq!(guess(&[1, 2, 3, 4], &[7, 2], 1, 2), [3, 4]);
        assert_eq!(
            guess(&[1, 2, 3], &[1, 2, 8, 2, 1, 2], 2, 9)[..4],
            [8, 2, 1, 2],
            "across the prompt's end and in the completion"
        );
        assert_eq!(guess(&[3, 1], &[4, 3, 1], 2, 1), [4], "what follows may lie in the completion");
    }

    #[test]
    fn a_period_repeats_beyond_the_end() {
        assert_eq!(guess(&[5, 8, 9], &[8, 9], 2, 5), [8, 9, 8, 9, 8]);
        assert_eq!(guess(&[4], &[4, 4], 2, 3), [4, 4, 4]);
    }

    #[test]
    fn nothing_is_guessed_without_an_occurrence_or_room() {
        assert!(guess(&[1, 2, 3], &[4], 1, 5).is_empty());
        assert!(guess(&[1], &[1], 2, 5).is_empty());
        assert!(guess(&[1, 1], &[1, 1], 1, 0).is_empty());
        let options = RolloutOptions { speculation: Some(Speculation { max_draft: 4, ngram: 2 }), ..RolloutOptions::from(64) };
        let room = |running, others| draft_room(&options, running, others);
        assert_eq!(
            [room(1, 0), room(4, 0), room(4, 6), room(9, 0), room(16, 0), room(64, 128), room(0, 0)],
            [4, 3, 1, 0, 0, 0, 0]
        );
        assert_eq!(draft_room(&RolloutOptions { weights: WeightFormat::Bf16, ..RolloutOptions::from(64) }, 1, 0), 0);
    }
}
