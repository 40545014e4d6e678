//! What of a prompt and two answers fits into a reward model that reads the prompt twice.

use std::ops::Range;

/// Which side of an answer that is too long is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CutSide {
    /// The beginning stays.
    #[default]
    Right,
    /// The end stays.
    Left,
}

/// Lengths in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Of the whole input, the four tokens that join its parts included.
    pub total: usize,
    /// Of each answer.
    pub response: usize,
    /// What is cut off answers.
    pub cut: CutSide,
}

/// Tokens that stay, as ranges of the originals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of the prompt, which loses its beginning.
    pub prompt: Range<usize>,
    /// Of the reference.
    pub reference: Range<usize>,
    /// Of the candidate.
    pub candidate: Range<usize>,
}

impl Budget {
    /// Tokens that separate and end the parts: newlines, the separator and the reward token.
    const JOINTS: usize = 4;

    /// Cuts the answers first; the prompt, which is read twice, gets half of what they leave, and nothing where they leave nothing.
    ///
    /// Reference: Dou et al. 2025, "Pre-Trained Policy Discriminators are General Reward Models" (POLAR).
    pub fn fit(self, prompt: usize, reference: usize, candidate: usize) -> Kept {
        let cut = |tokens: usize| match self.cut {
            CutSide::Right => 0..tokens.min(self.response),
            CutSide::Left => tokens.saturating_sub(self.response)..tokens,
        };
        let (reference, candidate) = (cut(reference), cut(candidate));
        let room = self.total.saturating_sub(Self::JOINTS + reference.len() + candidate.len()) / 2;
        Kept { prompt: prompt.saturating_sub(room)..prompt, reference, candidate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_gets_half_of_the_rest_and_loses_its_beginning() {
        let budget = Budget { total: 25, response: 5, cut: CutSide::Right };
        let kept = budget.fit(20, 9, 3);
        assert_eq!(kept, Kept { prompt: 14..20, reference: 0..5, candidate: 0..3 });
        assert_eq!(Budget { cut: CutSide::Left, ..budget }.fit(20, 9, 3).reference, 4..9);
    }

    #[test]
    fn answers_that_fill_the_budget_leave_no_prompt() {
        let budget = Budget { total: 8, response: 100, cut: CutSide::Right };
        assert_eq!(budget.fit(20, 9, 3).prompt, 20..20);
        assert_eq!(budget.fit(0, 0, 0), Kept { prompt: 0..0, reference: 0..0, candidate: 0..0 });
    }
}
