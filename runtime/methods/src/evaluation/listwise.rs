//! Scores of a whole list against those of a consensus: pairs, Kendall's tau, discounted gain.

use crate::stats::{dot, order};

fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}

/// Reward in 0..=1 of predicted scores: `max(0, 1 - cost / total)` over pairs of weight `1 + |truth_i - truth_j|`.
///
/// A reversed pair costs its weight, a predicted tie of scores that differ half of it, all else nothing. 1 with fewer than two scores.
///
/// Reference: Yu et al. 2025, "RewardAnything", the accuracy term of its public code.
pub fn weighted_pair_reward(predicted: &[f64], truth: &[f64]) -> f64 {
    let (mut cost, mut total) = (0.0, 0.0);
    for (i, j) in pairs(truth.len()) {
        let (of_predicted, of_truth) = (predicted[i] - predicted[j], truth[i] - truth[j]);
        let weight = 1.0 + of_truth.abs();
        total += weight;
        if of_predicted * of_truth < 0.0 {
            cost += weight;
        } else if of_predicted == 0.0 && of_truth != 0.0 {
            cost += weight / 2.0;
        }
    }
    if total > 0.0 { (1.0 - cost / total).max(0.0) } else { 1.0 }
}

/// Share of the pairs whose true scores differ that are in their order; a predicted tie is half a pair. 0 without such pairs.
pub fn pairwise_accuracy(predicted: &[f64], truth: &[f64]) -> f64 {
    let (mut right, mut all) = (0.0, 0.0);
    for (i, j) in pairs(truth.len()).filter(|&(i, j)| truth[i] != truth[j]) {
        let sign = (predicted[i] - predicted[j]) * (truth[i] - truth[j]);
        all += 1.0;
        right += if sign > 0.0 { 1.0 } else { f64::from(u8::from(predicted[i] == predicted[j])) / 2.0 };
    }
    if all > 0.0 { right / all } else { 0.0 }
}

/// Kendall's tau-b, which corrects for ties; 0 where one side is constant.
pub fn kendall_tau_b(a: &[f64], b: &[f64]) -> f64 {
    let (mut balance, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (i, j) in pairs(a.len()) {
        let sign = |x: f64| if x == 0.0 { 0.0 } else { x.signum() };
        let (a, b) = (sign(a[i] - a[j]), sign(b[i] - b[j]));
        balance += a * b;
        of_a += a * a;
        of_b += b * b;
    }
    if of_a > 0.0 && of_b > 0.0 { balance / f64::sqrt(of_a * of_b) } else { 0.0 }
}

/// What a true score is worth in [`ndcg`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gain {
    /// The score.
    #[default]
    Linear,
    /// `2^score - 1`.
    Exponential,
}

/// Discounted cumulative gain of the predicted order over that of the best one, discount `1 / log2(rank + 1)`. Predicted ties stand in the
/// order of their indices. 0 where nothing can be gained.
pub fn ndcg(predicted: &[f64], truth: &[f64], gain: Gain) -> f64 {
    let gains: Vec<f64> = truth.iter().map(|score| if gain == Gain::Linear { *score } else { score.exp2() - 1.0 }).collect();
    let discounts: Vec<f64> = (0..truth.len()).map(|rank| 1.0 / (rank as f64 + 2.0).log2()).collect();
    let by = |key: &[f64]| {
        let mut ranks: Vec<usize> = (0..gains.len()).collect();
        ranks.sort_by(|&a, &b| order(key[b], key[a]));
        dot(&ranks.iter().map(|&i| gains[i]).collect::<Vec<_>>(), &discounts)
    };
    let best = by(&gains);
    if best > 0.0 { by(predicted) / best } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn reversed_pairs_cost_more_the_further_they_are_apart() {
        assert_eq!(weighted_pair_reward(&[1.0, 5.0, 3.0], &[5.0, 1.0, 3.0]), 0.0);
        assert_eq!(weighted_pair_reward(&[3.0, 3.0], &[5.0, 1.0]), 0.5);
        assert_eq!(weighted_pair_reward(&[2.0, 4.0], &[4.0, 4.0]), 1.0);
        assert_eq!(weighted_pair_reward(&[2.0], &[4.0]), 1.0);
    }

    #[test]
    fn ties_are_half_right_in_pairs_and_corrected_for_in_tau() {
        assert_eq!(pairwise_accuracy(&[1.0, 1.0, 0.0], &[2.0, 1.0, 0.0]), 2.5 / 3.0);
        assert_eq!(pairwise_accuracy(&[1.0, 2.0], &[1.0, 1.0]), 0.0);
        assert_close(&[kendall_tau_b(&[1.0, 1.0, 0.0], &[2.0, 1.0, 0.0])], &[2.0 / 6f64.sqrt()]);
        assert_eq!(kendall_tau_b(&[1.0, 1.0], &[2.0, 1.0]), 0.0);
    }

    #[test]
    fn perfect_order_gains_all_there_is() {
        assert_close(&[ndcg(&[3.0, 9.0], &[1.0, 2.0], Gain::Exponential)], &[1.0]);
        assert_eq!(ndcg(&[3.0, 9.0], &[0.0, 0.0], Gain::Linear), 0.0);
        assert!(ndcg(&[9.0, 3.0], &[1.0, 2.0], Gain::Linear) < 1.0);
    }
}
