//! Which of several rewarded completions are learned from, by rank, by share or by lot.
//!
//! Higher rewards come first; among equal ones the lowest index. NaN stands for no reward and is never chosen.

use crate::stats::order;

/// Indices of the `count` best, best first; fewer where there are fewer.
pub fn best(rewards: &[f64], count: usize) -> Vec<usize> {
    let mut ranks: Vec<usize> = (0..rewards.len()).filter(|&i| !rewards[i].is_nan()).collect();
    ranks.sort_by(|&a, &b| order(rewards[b], rewards[a]));
    ranks.truncate(count);
    ranks
}

/// Completions that a share of all stands for: `floor(n · share)`. The sum keeps a share such as 3 · 0.1 from losing one to rounding.
pub fn share_count(n: usize, share: f64) -> usize {
    ((n as f64 * share + 1e-9) as usize).min(n)
}

/// Index drawn by a uniform number in 0..1 from probabilities: the first whose cumulative sum exceeds it. None where all are 0.
pub fn drawn(probabilities: &[f64], uniform: f64) -> Option<usize> {
    let mut cumulative = 0.0;
    let exceeds = |probability: &f64| {
        cumulative += probability;
        cumulative > uniform
    };
    // The sum may be an ulp below 1; what is above is the last one's that can be drawn.
    probabilities.iter().position(exceeds).or_else(|| probabilities.iter().rposition(|probability| *probability > 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_the_next_item_and_what_has_no_probability_is_never_drawn() {
        assert_eq!([0.0, 0.24, 0.25, 0.99].map(|uniform| drawn(&[0.25, 0.0, 0.75, 0.0], uniform)), [0, 0, 2, 2].map(Some));
        // Ten tenths add up to less than 1.
        let last = 1.0 - f64::EPSILON / 2.0;
        assert_eq!((drawn(&[0.1; 10], last), drawn(&[1.0, 0.0], last)), (Some(9), Some(0)));
        assert_eq!((drawn(&[], 0.0), drawn(&[0.0; 2], 0.0)), (None, None));
    }

    #[test]
    fn best_come_first_and_equal_ones_in_their_order() {
        let rewards = [0.5, f64::NAN, 2.0, 0.5, 2.0];
        assert_eq!(best(&rewards, 3), [2, 4, 0]);
        assert_eq!(best(&rewards, 9), [2, 4, 0, 3]);
        assert!(best(&[], 2).is_empty() && best(&rewards, 0).is_empty());
    }

    #[test]
    fn share_is_rounded_down_but_not_by_a_rounding_error() {
        assert_eq!(
            [(10, 0.3), (10, 0.29), (3, 0.2), (4, 1.0), (0, 0.5)].map(|(n, share)| share_count(n, share)),
            [3, 2, 0, 4, 0]
        );
        assert_eq!(share_count(30, 0.1), 3);
    }
}
