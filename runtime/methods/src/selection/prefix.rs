//! Giving up completions whose value falls low before they are done.
//!
//! Reference: Nath et al. 2024, "Learning Goal-Conditioned Representations for Language Reward Models", filtering for majority votes.

/// From where on a completion's values are looked at, and what is too low.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefixFilter {
    /// A value below it ends the completion.
    pub threshold: f64,
    /// Share of the completion's tokens that are skipped.
    pub percentile: f64,
    /// Tokens that are skipped at least.
    pub burn_in: usize,
}

/// What became of a question's completions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// By completion. All, where none would be left.
    pub keep: Vec<bool>,
    /// Token at which each was, or would have been, given up.
    pub cut_at: Vec<Option<usize>>,
    /// Tokens from there to the ends; 0 where none would be left, since all are needed then.
    pub tokens_saved: usize,
    /// Tokens that were looked at or saved: all that are not skipped.
    pub tokens_considered: usize,
    /// Whether none would have been left.
    pub fallback: bool,
}

impl PrefixFilter {
    /// Filters the completions of one question by their tokens' values, `[completion][token]`.
    pub fn filter(self, values: &[Vec<f64>]) -> Kept {
        let start = |values: &Vec<f64>| self.burn_in.max((self.percentile * values.len() as f64).floor() as usize);
        let cut = |values: &Vec<f64>| (start(values)..values.len()).find(|&t| values[t] < self.threshold);
        let cut_at: Vec<Option<usize>> = values.iter().map(cut).collect();
        let fallback = !values.is_empty() && cut_at.iter().all(Option::is_some);
        let saved = cut_at.iter().zip(values).filter_map(|(cut, values)| cut.map(|cut| values.len() - cut)).sum();
        Kept {
            keep: cut_at.iter().map(|cut| fallback || cut.is_none()).collect(),
            tokens_saved: if fallback { 0 } else { saved },
            tokens_considered: values.iter().map(|values| values.len().saturating_sub(start(values))).sum(),
            cut_at,
            fallback,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: PrefixFilter = PrefixFilter { threshold: 0.0, percentile: 0.5, burn_in: 2 };

    #[test]
    fn values_are_looked_at_after_the_burn_in_alone() {
        // The first begins at token 3, the second (shorter) at 2; low values before that do not count.
        let kept = FILTER.filter(&[vec![-1.0, -1.0, -1.0, 1.0, -1.0, 1.0], vec![-1.0, -1.0, 0.0], vec![-1.0]]);
        let want = Kept {
            keep: vec![false, true, true],
            cut_at: vec![Some(4), None, None],
            tokens_saved: 2,
            tokens_considered: 4,
            fallback: false,
        };
        assert_eq!(kept, want);
    }

    #[test]
    fn all_are_kept_where_none_would_be_left() {
        let kept = FILTER.filter(&[vec![1.0, 1.0, -1.0], vec![1.0, 1.0, 1.0, -1.0]]);
        assert_eq!((kept.keep, kept.cut_at, kept.tokens_saved), (vec![true, true], vec![Some(2), Some(3)], 0));
        assert!(kept.fallback && !FILTER.filter(&[]).fallback);
    }
}
