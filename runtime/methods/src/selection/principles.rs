//! Preferences by principle: what a judge says of a pair under each of several principles, the one that decides, and how principles are drawn.
//!
//! Reference: Sun et al. 2023, "SALMON: Self-Alignment with Instructable Reward Models", and the code released with it.

use std::cmp::Ordering;

use super::ranked::drawn;
use crate::advantage::variance;
use crate::evaluation::verdicts::Verdict;
use crate::stats::{first_max, order};

/// What a judge says for the first answer in both orders, from the logits (nats) of the letters of the first and the second answer as they are shown.
///
/// In `shown` the first answer has the first letter, in `swapped` the second one.
pub fn relative_scores(shown: [f64; 2], swapped: [f64; 2]) -> [f64; 2] {
    [shown[0] - shown[1], swapped[1] - swapped[0]]
}

/// The answer that both orders prefer; a tie where they disagree or one of them is even.
pub fn agreed(scores: [f64; 2]) -> Verdict {
    match scores {
        [a, b] if a > 0.0 && b > 0.0 => Verdict::First,
        [a, b] if a < 0.0 && b < 0.0 => Verdict::Second,
        _ => Verdict::Tie,
    }
}

/// Population variance of a principle's scores over both orders of all pairs; 0 without pairs.
pub fn score_variance(scores: &[[f64; 2]]) -> f64 {
    variance(scores.as_flattened(), 0)
}

/// One principle's say about a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Say {
    /// Its [`relative_scores`].
    pub scores: [f64; 2],
    /// Its [`score_variance`] over the data.
    pub variance: f64,
    /// Whether its opposite is asked for.
    pub negated: bool,
}

impl Say {
    /// Mean of the scores over the variance, as the released code has it (not over its root), with the other sign where negated; 0 where the orders
    /// disagree. A principle without variance tells no pairs apart and has 0 too.
    pub fn signed_score(&self) -> f64 {
        if agreed(self.scores) == Verdict::Tie || self.variance <= 0.0 {
            return 0.0;
        }
        let score = f64::midpoint(self.scores[0], self.scores[1]) / self.variance;
        if self.negated { -score } else { score }
    }
}

/// What principles say of a pair together.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// [`Say::signed_score`] of each.
    pub signed_scores: Vec<f64>,
    /// The one with the greatest magnitude, the first on ties; None without principles.
    pub dominant: Option<usize>,
    /// The answer that it prefers. A tie leaves the pair out.
    pub preference: Verdict,
}

/// The preference of the principle that is surest.
pub fn aggregate(says: &[Say]) -> Aggregate {
    let signed_scores: Vec<f64> = says.iter().map(Say::signed_score).collect();
    let dominant = first_max(&signed_scores.iter().map(|score| score.abs()).collect::<Vec<_>>());
    let preference = match dominant.map(|i| order(signed_scores[i], 0.0)) {
        Some(Ordering::Greater) => Verdict::First,
        Some(Ordering::Less) => Verdict::Second,
        _ => Verdict::Tie,
    };
    Aggregate { signed_scores, dominant, preference }
}

/// Weights of principles with `bonus` for those whose text, in lower case, contains one of the keywords; once, however many it contains.
///
/// # Panics
/// When there are not as many weights as principles.
pub fn boosted_weights<S: AsRef<str>>(principles: &[S], weights: &[f64], keywords: &[S], bonus: f64) -> Vec<f64> {
    assert_eq!(principles.len(), weights.len(), "each principle needs a weight");
    let boosted = |(principle, weight): (&S, &f64)| {
        let text = principle.as_ref().to_lowercase();
        if keywords.iter().any(|keyword| text.contains(keyword.as_ref())) { weight + bonus } else { *weight }
    };
    principles.iter().zip(weights).map(boosted).collect()
}

/// Probability of each item to be drawn first: its share of the weights. Where these add up to 0 nothing is drawn, and all are 0.
pub fn first_draw_probabilities(weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| if total > 0.0 { weight / total } else { 0.0 }).collect()
}

/// Indices drawn without replacement, one for each uniform number in 0..1: the first whose cumulative share of the weights that are left, in the order
/// of the items, exceeds the number. Ends with `most` draws, or when no weight is left.
pub fn draw_without_replacement(weights: &[f64], uniforms: &[f64], most: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
    let mut indices = Vec::new();
    for &uniform in uniforms.iter().take(most) {
        let shares = first_draw_probabilities(&left.iter().map(|&i| weights[i]).collect::<Vec<_>>());
        let Some(place) = drawn(&shares, uniform) else { break };
        indices.push(left.remove(place));
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn orders_agree_by_strict_signs() {
        // A judge that always says the first letter prefers nobody.
        assert_eq!(relative_scores([2.0, 0.5], [2.0, 0.5]), [1.5, -1.5]);
        let verdicts = [[0.5, 1.0], [-0.5, -1.0], [1.0, -1.0], [0.0, 1.0], [0.0, 0.0], [-1.0, 0.0]].map(agreed);
        let tie = Verdict::Tie;
        assert_eq!(verdicts, [Verdict::First, Verdict::Second, tie, tie, tie, tie]);
    }

    #[test]
    fn surest_principle_decides_and_its_negation_turns_the_label() {
        let say = |scores, variance, negated| Say { scores, variance, negated };
        // 0.5, -2 and 0: the second is the surest.
        let says = [say([1.0, 1.0], 2.0, false), say([-1.0, -3.0], 1.0, false), say([9.0, -9.0], 0.1, false)];
        let got = aggregate(&says);
        assert_close(&got.signed_scores, &[0.5, -2.0, 0.0]);
        assert_eq!((got.dominant, got.preference), (Some(1), Verdict::Second));
        let negated = aggregate(&[says[0], Say { negated: true, ..says[1] }]);
        assert_eq!((negated.signed_scores[1], negated.preference), (2.0, Verdict::First));
        // A negation of one that does not decide changes nothing.
        assert_eq!(aggregate(&[Say { negated: true, ..says[0] }, says[1]]).preference, Verdict::Second);
    }

    #[test]
    fn ties_go_to_the_first_and_no_principles_prefer_nobody() {
        let say = Say { scores: [1.0, 1.0], variance: 1.0, negated: false };
        assert_eq!(aggregate(&[say, Say { negated: true, ..say }]).preference, Verdict::First);
        let none = aggregate(&[]);
        assert_eq!((none.dominant, none.preference), (None, Verdict::Tie));
        let unsure = aggregate(&[Say { scores: [1.0, -1.0], negated: true, ..say }, Say { variance: 0.0, ..say }]);
        assert_eq!((unsure.dominant, unsure.preference, unsure.signed_scores), (Some(0), Verdict::Tie, vec![0.0; 2]));
    }

    #[test]
    fn variance_is_over_both_orders() {
        assert_eq!((score_variance(&[[1.0, 3.0], [1.0, 3.0]]), score_variance(&[])), (1.0, 0.0));
    }

    #[test]
    fn keywords_raise_a_weight_once() {
        let weights = boosted_weights(&["Numerical Reasoning", "Vivid"], &[1.0, 2.0], &["reason", "numerical"], 10.0);
        assert_eq!(weights, [11.0, 2.0]);
        assert_close(&first_draw_probabilities(&weights), &[11.0 / 13.0, 2.0 / 13.0]);
        assert_eq!((first_draw_probabilities(&[0.0; 2]), first_draw_probabilities(&[])), (vec![0.0; 2], vec![]));
    }

    #[test]
    fn draws_end_when_nothing_is_left() {
        assert_eq!(draw_without_replacement(&[1.0, 1.0, 2.0], &[0.25, 0.0, 0.5, 0.5], 9), [1, 0, 2]);
        assert_eq!(draw_without_replacement(&[1.0, 1.0, 2.0], &[0.5; 3], 2), [2, 1]);
        assert_eq!(draw_without_replacement(&[0.0, 1.0, 0.0], &[0.0, 0.0], 3), [1]);
        assert_eq!(draw_without_replacement(&[0.1; 10], &[1.0 - f64::EPSILON / 2.0], 3), [9]);
        assert!(draw_without_replacement(&[], &[0.5], 3).is_empty());
    }
}
