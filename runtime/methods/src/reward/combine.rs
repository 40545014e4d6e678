//! Rules that make one reward of several named components, or of a model's score and a check.

use crate::stats::sigmoid;

/// How components become one number; see [`combine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `Σ w v`.
    WeightedSum,
    /// `Σ w v / Σ w`; 0 where the weights add up to 0.
    WeightedMean,
    /// `Σ w / Σ (w / v)`; 0 if any component is not positive.
    Harmonic,
    /// `Π v^w`; 0 if any component is negative.
    Product,
    /// The least component, whatever the weights.
    Min,
}

/// One number of a completion's components `(weight, value)`; 0 without components.
pub fn combine(components: &[(f64, f64)], rule: Rule) -> f64 {
    let weights: f64 = components.iter().map(|(w, _)| w).sum();
    let sum = || components.iter().map(|(w, v)| w * v).sum::<f64>();
    match rule {
        _ if components.is_empty() => 0.0,
        Rule::WeightedSum => sum(),
        Rule::WeightedMean if weights == 0.0 => 0.0,
        Rule::WeightedMean => sum() / weights,
        Rule::Harmonic if weights == 0.0 || components.iter().any(|(_, v)| *v <= 0.0) => 0.0,
        Rule::Harmonic => weights / components.iter().map(|(w, v)| w / v).sum::<f64>(),
        Rule::Product if components.iter().any(|(_, v)| *v < 0.0) => 0.0,
        Rule::Product => components.iter().map(|(w, v)| v.powf(*w)).product(),
        Rule::Min => components.iter().map(|(_, v)| *v).fold(f64::INFINITY, f64::min),
    }
}

/// 1 for an answer that matches exactly, else σ(score), which never reaches a match's reward.
///
/// Reference: Zhang et al. 2025, "BaseReward".
pub fn match_or_score(score: f64, exact_match: bool) -> f64 {
    if exact_match { 1.0 } else { sigmoid(score) }
}

/// `R_i = Σ_{j ≠ i} S(i, j)`: what a pairwise judge says of each answer against all others. What it says of an answer against itself
/// counts nothing.
pub fn pairwise_sums(scores: &[Vec<f64>]) -> Vec<f64> {
    let others = |(i, row): (usize, &Vec<f64>)| row.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, s)| s).sum();
    scores.iter().enumerate().map(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    const ALL: [Rule; 5] = [Rule::WeightedSum, Rule::WeightedMean, Rule::Harmonic, Rule::Product, Rule::Min];

    fn all(components: &[(f64, f64)]) -> [f64; 5] {
        ALL.map(|rule| combine(components, rule))
    }

    #[test]
    fn rules_match_values_by_hand() {
        assert_close(&all(&[(2.0, 0.5), (1.0, 0.25)]), &[1.25, 1.25 / 3.0, 3.0 / 8.0, 0.0625, 0.25]);
    }

    #[test]
    fn components_that_are_not_positive_have_a_defined_value() {
        assert_close(&all(&[(1.0, -0.5), (1.0, 0.5)]), &[0.0, 0.0, 0.0, 0.0, -0.5]);
        assert_close(&all(&[(1.0, 0.0), (1.0, 0.5)]), &[0.5, 0.25, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn weights_of_zero_and_no_components_give_no_nan() {
        assert_close(&all(&[(0.0, 0.5), (0.0, 0.25)]), &[0.0, 0.0, 0.0, 1.0, 0.25]);
        assert_close(&all(&[]), &[0.0; 5]);
    }

    #[test]
    fn score_stays_below_a_match() {
        assert_eq!(match_or_score(-3.0, true), 1.0);
        assert!(match_or_score(30.0, false) < 1.0);
        assert_eq!(match_or_score(-1e4, false), 0.0);
    }

    #[test]
    fn pairwise_sum_leaves_out_the_diagonal() {
        assert_close(&pairwise_sums(&[vec![9.0, 1.0, 2.0], vec![0.5, 9.0, 0.25], vec![0.0, 1.0, 9.0]]), &[3.0, 0.75, 1.0]);
        assert_close(&pairwise_sums(&[vec![9.0]]), &[0.0]);
    }
}
