//! Rewards of tokens from a rewrite of the answer: what the rewrite keeps was right.
//!
//! Reference: Zhou et al. 2024, "Sequence to Sequence Reward Modeling: Improving RLHF by Language Feedback".

/// How an answer's tokens are held against the rewrite's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alignment {
    /// Tokens of a longest common subsequence are kept.
    #[default]
    Lcs,
    /// Tokens that stand at the same place are kept.
    Position,
    /// Tokens before the first difference are kept.
    Prefix,
}

/// Whether each token of the answer survives in the rewrite. Both are ids of one tokenizer, special tokens included.
pub fn kept_tokens(response: &[u32], rewrite: &[u32], alignment: Alignment) -> Vec<bool> {
    let same = |i: usize| rewrite.get(i) == Some(&response[i]);
    match alignment {
        Alignment::Position => (0..response.len()).map(same).collect(),
        Alignment::Prefix => {
            let first = (0..response.len()).find(|&i| !same(i)).unwrap_or(response.len());
            (0..response.len()).map(|i| i < first).collect()
        }
        Alignment::Lcs => common_subsequence(response, rewrite),
    }
}

/// Tokens of the answer in a longest common subsequence: of several, the one that a walk from the front finds which takes equal tokens
/// and else passes over the answer's where that loses nothing.
fn common_subsequence(response: &[u32], rewrite: &[u32]) -> Vec<bool> {
    // longest[i][j]: of what follows response[i..] and rewrite[j..].
    let mut longest = vec![vec![0u32; rewrite.len() + 1]; response.len() + 1];
    for i in (0..response.len()).rev() {
        for j in (0..rewrite.len()).rev() {
            longest[i][j] =
                if response[i] == rewrite[j] { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let mut kept = vec![false; response.len()];
    let (mut i, mut j) = (0, 0);
    while i < response.len() && j < rewrite.len() {
        if response[i] == rewrite[j] {
            kept[i] = true;
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    kept
}

/// What tokens get.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScores {
    /// Of a token that is kept.
    pub positive: f64,
    /// Taken off for one that is not.
    pub negative: f64,
    /// Divides by the answer's length, so that a sequence's sum lies in `-negative ..= positive`.
    pub by_length: bool,
}

impl TokenScores {
    /// Reward of each token.
    pub fn rewards(self, kept: &[bool]) -> Vec<f64> {
        let divisor = if self.by_length { kept.len() as f64 } else { 1.0 };
        kept.iter().map(|kept| if *kept { self.positive } else { -self.negative } / divisor).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_answer_is_kept_and_an_empty_rewrite_keeps_nothing() {
        for alignment in [Alignment::Lcs, Alignment::Position, Alignment::Prefix] {
            assert_eq!(kept_tokens(&[1, 2, 3], &[1, 2, 3], alignment), [true; 3]);
            assert_eq!(kept_tokens(&[1, 2, 3], &[], alignment), [false; 3]);
            assert!(kept_tokens(&[], &[1], alignment).is_empty());
        }
    }

    #[test]
    fn alignments_differ_after_an_insertion() {
        let kept = |alignment| kept_tokens(&[1, 2, 3, 5], &[1, 9, 2, 5], alignment);
        assert_eq!(kept(Alignment::Position), [true, false, false, true]);
        assert_eq!(kept(Alignment::Prefix), [true, false, false, false]);
        assert_eq!(kept(Alignment::Lcs), [true, true, false, true]);
    }

    #[test]
    fn of_equally_long_subsequences_the_answer_is_passed_over_first() {
        assert_eq!(kept_tokens(&[1, 2], &[2, 1], Alignment::Lcs), [false, true]);
    }

    #[test]
    fn scores_by_length_add_up_within_their_bounds() {
        let scores = TokenScores { positive: 1.0, negative: 0.5, by_length: true };
        assert_eq!(scores.rewards(&[true, true, false, false]), [0.25, 0.25, -0.125, -0.125]);
        assert!(scores.rewards(&[]).is_empty());
    }
}
