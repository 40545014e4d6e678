//! Judgements of two answers at a time: probabilities from both orders, champions, rankings and the pairs made of them.

use crate::stats::sigmoid;

/// Distance from one half within which a probability is a tie, so that rounding does not decide.
pub const TIE: f64 = 1e-6;

/// How the answers to both orders of one question become a probability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Combine {
    /// The first order alone.
    Single,
    /// Mean of the two probabilities of the same answer.
    #[default]
    MeanProbability,
    /// Mean of the two log-odds of the same answer.
    MeanLogit,
}

/// Probability that the first answer is better, from the log-probabilities (or logits) of the verdicts A and B.
///
/// In `verdict` the first answer stands at A; in `swapped` at B, so that what favours a place cancels out. Without `swapped` the one
/// order counts alone. Equal numbers give exactly one half. Logits are divided by `temperature`.
pub fn preference_probability(verdict: [f64; 2], swapped: Option<[f64; 2]>, combine: Combine, temperature: f64) -> f64 {
    let first = (verdict[0] - verdict[1]) / temperature;
    let Some(swapped) = swapped.filter(|_| combine != Combine::Single) else { return sigmoid(first) };
    let second = (swapped[1] - swapped[0]) / temperature;
    match combine {
        Combine::MeanLogit => sigmoid(f64::midpoint(first, second)),
        _ => f64::midpoint(sigmoid(first), sigmoid(second)),
    }
}

/// `P(first ≻ second) + P(second ≻ first) - 1` as a judge says them in both orders: 0 without bias of place, above it where the answer
/// at A is favoured. Arguments as in [`preference_probability`].
pub fn position_gap(verdict: [f64; 2], swapped: [f64; 2], temperature: f64) -> f64 {
    let at_a = |[a, b]: [f64; 2]| sigmoid((a - b) / temperature);
    at_a(verdict) + at_a(swapped) - 1.0
}

/// 1 where the first answer wins, 0 where it loses, one half within [`TIE`] of even odds.
pub fn verdict(probability: f64) -> f64 {
    if (probability - 0.5).abs() <= TIE { 0.5 } else { f64::from(u8::from(probability > 0.5)) }
}

/// Champion after each comparison of a knockout, the first entry before any; the last is the winner. The first answer begins,
/// challengers come in order, and the champion stays on a tie. None of nothing.
///
/// `probabilities[i][j]`: that i is better than j.
pub fn knockout(probabilities: &[Vec<f64>]) -> Option<Vec<usize>> {
    let mut champions = vec![0];
    for challenger in 1..probabilities.len() {
        let champion = champions[challenger - 1];
        let loses = verdict(probabilities[champion][challenger]) == 0.0;
        champions.push(if loses { challenger } else { champion });
    }
    (!probabilities.is_empty()).then_some(champions)
}

/// Answers by their chance of winning.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// Indices, best first; ties by index.
    pub order: Vec<usize>,
    /// Mean probability of each answer to be better than another; one half for a single one.
    pub scores: Vec<f64>,
    /// `[i][j]`: mean of P(i ≻ j) and 1 - P(j ≻ i).
    pub symmetric: Vec<Vec<f64>>,
}

/// Ranks answers by their mean symmetrized probability of winning. `probabilities[i][j]`: that i is better than j.
pub fn rank(probabilities: &[Vec<f64>]) -> Ranking {
    let n = probabilities.len();
    let symmetric: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|j| f64::midpoint(probabilities[i][j], 1.0 - probabilities[j][i])).collect()).collect();
    let score = |i: usize| {
        let others: Vec<f64> = (0..n).filter(|&j| j != i).map(|j| symmetric[i][j]).collect();
        if others.is_empty() { 0.5 } else { crate::advantage::mean(&others) }
    };
    let scores: Vec<f64> = (0..n).map(score).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| crate::stats::order(scores[b], scores[a]));
    Ranking { order, scores, symmetric }
}

/// Which ranks of a [`Ranking`] are paired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// Each with the next.
    #[default]
    Adjacent,
    /// Each with all below.
    All,
    /// The best with all others.
    BestRest,
    /// The best with the worst.
    BestWorst,
}

/// A pair with the strength of its preference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftPair {
    /// Answer of the higher rank.
    pub chosen: usize,
    /// Answer of the lower rank.
    pub rejected: usize,
    /// Symmetrized probability that the chosen one is better; below one half is possible in a cycle.
    pub probability: f64,
}

impl Ranking {
    /// Pairs in the order of ranks, the higher one chosen; those whose `|2 p - 1|` is below `min_strength` are left out.
    ///
    /// Reference: Zhai et al. 2024 ("Online Self-Preferring Language Models").
    pub fn pairs(&self, pairing: Pairing, min_strength: f64) -> Vec<SoftPair> {
        let n = self.order.len();
        let kept = |&(high, low): &(usize, usize)| match pairing {
            Pairing::Adjacent => low == high + 1,
            Pairing::All => true,
            Pairing::BestRest => high == 0,
            Pairing::BestWorst => high == 0 && low == n - 1,
        };
        let ranks = (0..n).flat_map(|high| (high + 1..n).map(move |low| (high, low)));
        let pair = |(high, low): (usize, usize)| {
            let (chosen, rejected) = (self.order[high], self.order[low]);
            SoftPair { chosen, rejected, probability: self.symmetric[chosen][rejected] }
        };
        ranks.filter(kept).map(pair).filter(|pair| (2.0 * pair.probability - 1.0).abs() >= min_strength).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn bias_of_place_cancels_out() {
        // The judge always answers A with odds of 3 to 1.
        let verdict = [3.0f64.ln(), 0.0];
        for combine in [Combine::MeanProbability, Combine::MeanLogit] {
            assert_close(&[preference_probability(verdict, Some(verdict), combine, 1.0)], &[0.5]);
        }
        assert_close(&[preference_probability(verdict, Some(verdict), Combine::Single, 1.0)], &[0.75]);
        assert_close(&[preference_probability(verdict, None, Combine::MeanLogit, 1.0)], &[0.75]);
        assert_eq!(preference_probability([-2.0; 2], Some([-7.0; 2]), Combine::MeanProbability, 1.0), 0.5);
        assert!(preference_probability([1e5, 0.0], Some([0.0, 1e5]), Combine::MeanProbability, 0.1) <= 1.0);
    }

    #[test]
    fn gap_shows_the_bias_that_the_mean_of_both_orders_hides() {
        let bias = [3.0f64.ln() * 0.5, 0.0];
        assert_close(&[position_gap(bias, bias, 0.5)], &[0.5]);
        assert_close(&[position_gap(bias, [0.0, bias[0]], 0.5)], &[0.0]);
    }

    #[test]
    fn verdict_is_a_tie_near_even_odds() {
        assert_eq!([0.5 + 5e-7, 0.5, 0.51, 0.49].map(verdict), [0.5, 0.5, 1.0, 0.0]);
    }

    #[test]
    fn champion_stays_on_a_tie() {
        let half = vec![vec![0.5; 3]; 3];
        assert_eq!(knockout(&half).unwrap(), [0, 0, 0]);
        assert_eq!(knockout(&[vec![0.5, 0.2], vec![0.8, 0.5]]).unwrap(), [0, 1]);
        assert_eq!(knockout(&[]), None);
        assert_eq!(knockout(&[vec![0.5]]).unwrap(), [0]);
    }

    #[test]
    fn ranks_of_ties_go_by_index_and_one_answer_has_no_pair() {
        let ranking = rank(&vec![vec![0.5; 3]; 3]);
        assert_eq!(ranking.order, [0, 1, 2]);
        assert_eq!(ranking.pairs(Pairing::All, 0.0).len(), 3);
        assert!(ranking.pairs(Pairing::All, 0.1).is_empty());
        let one = rank(&[vec![0.5]]);
        assert_eq!((one.scores.as_slice(), one.pairs(Pairing::BestWorst, 0.0)), (&[0.5][..], vec![]));
        assert!(rank(&[]).pairs(Pairing::BestRest, 0.0).is_empty());
    }

    #[test]
    fn pairings_choose_ranks() {
        let win = |i: usize, j: usize| 0.5 + 0.1 * (j as f64 - i as f64);
        let ranking = rank(&(0..3).map(|i| (0..3).map(|j| win(i, j)).collect()).collect::<Vec<_>>());
        let pairs = |pairing| ranking.pairs(pairing, 0.0).iter().map(|pair| (pair.chosen, pair.rejected)).collect::<Vec<_>>();
        assert_eq!(pairs(Pairing::Adjacent), [(0, 1), (1, 2)]);
        assert_eq!(pairs(Pairing::BestRest), [(0, 1), (0, 2)]);
        assert_eq!(pairs(Pairing::BestWorst), [(0, 2)]);
        assert_close(&[ranking.pairs(Pairing::BestWorst, 0.0)[0].probability], &[0.7]);
    }
}
