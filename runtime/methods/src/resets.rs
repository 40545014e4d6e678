//! Rollouts that begin within reference answers.
//!
//! Reference: Chang et al. 2024, "Dataset Reset Policy Optimization for RLHF" (DR-PO).

/// Tokens of a reference answer of `length` tokens that a rollout is given: none unless `reset < probability` and there are two or more, else
/// `1 + floor(cut · (length - 1))`, at most `length - 1`. `reset` and `cut` are uniform in 0..1.
pub fn forced_tokens(length: usize, probability: f64, reset: f64, cut: f64) -> usize {
    if reset >= probability || length < 2 {
        return 0;
    }
    (1 + (cut * (length - 1) as f64).floor() as usize).min(length - 1)
}

/// A completion's score, or `missing` where it was cut before its end and there is such a score.
pub fn scored(score: f64, ended: bool, missing: Option<f64>) -> f64 {
    if ended { score } else { missing.unwrap_or(score) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_token_is_given_and_one_is_left() {
        assert_eq!([0.0, 0.5, 0.999, 1.0].map(|cut| forced_tokens(5, 1.0, 0.3, cut)), [1, 3, 4, 4]);
        assert_eq!(forced_tokens(1, 1.0, 0.0, 0.5), 0);
        assert_eq!((forced_tokens(5, 0.3, 0.3, 0.5), forced_tokens(5, 0.3, 0.29, 0.5)), (0, 3));
    }

    #[test]
    fn answers_without_an_end_have_the_score_for_that() {
        assert_eq!([scored(2.0, true, Some(-1.0)), scored(2.0, false, Some(-1.0)), scored(2.0, false, None)], [2.0, -1.0, 2.0]);
    }
}
