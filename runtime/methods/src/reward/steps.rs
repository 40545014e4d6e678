//! Scores of a solution from those of its steps, as process reward models give them.

use crate::advantage::mean;
use crate::stats::sigmoid;

/// How the probabilities of steps become one score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// Their product.
    Product,
    /// The T-th root of the product, which does not favour short solutions.
    GeometricMean,
    /// The mean.
    Mean,
    /// `σ(mean ln(p / (1 - p)))`.
    MeanLogit,
    /// `mean p / (1 - p)`, which is not bounded.
    MeanOdds,
    /// That of the last step.
    Last,
}

/// Probabilities whose odds are taken are kept this far from 0 and 1.
pub const PROBABILITY_CLIP: f64 = 1e-12;

/// Score of a solution without steps.
pub const WITHOUT_STEPS: f64 = 0.5;

/// One score of the probabilities of a solution's steps, each in 0..=1; `empty` without any.
///
/// `clip` keeps odds and logits finite; the other rules take probabilities as they are.
///
/// Reference: Kim et al. 2024, "Evaluating Robustness of Reward Models for Mathematical Reasoning".
pub fn aggregate(steps: &[f64], rule: Aggregation, clip: f64, empty: f64) -> f64 {
    let Some(&last) = steps.last() else { return empty };
    let odds = |p: f64| {
        let p = p.clamp(clip, 1.0 - clip);
        p / (1.0 - p)
    };
    let over = |f: &dyn Fn(f64) -> f64| mean(&steps.iter().map(|&p| f(p)).collect::<Vec<_>>());
    match rule {
        Aggregation::Min => steps.iter().copied().fold(f64::INFINITY, f64::min),
        Aggregation::Max => steps.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Aggregation::Product => steps.iter().product(),
        Aggregation::GeometricMean => over(&f64::ln).exp(),
        Aggregation::Mean => mean(steps),
        Aggregation::MeanLogit => sigmoid(over(&|p| odds(p).ln())),
        Aggregation::MeanOdds => over(&odds),
        Aggregation::Last => last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn no_steps_give_one_half_under_every_rule() {
        assert_eq!(aggregate(&[], Aggregation::Product, PROBABILITY_CLIP, WITHOUT_STEPS), 0.5);
    }

    #[test]
    fn impossible_step_makes_products_zero_and_leaves_odds_finite() {
        let of = |rule| aggregate(&[0.0, 1.0], rule, PROBABILITY_CLIP, WITHOUT_STEPS);
        assert_eq!([Aggregation::Product, Aggregation::GeometricMean, Aggregation::Min].map(of), [0.0; 3]);
        assert!((of(Aggregation::MeanLogit) - 0.5).abs() < 1e-4, "1 - clip is rounded");
        assert!(of(Aggregation::MeanOdds).is_finite());
    }

    #[test]
    fn geometric_mean_does_not_depend_on_the_number_of_equal_steps() {
        let of = |n| aggregate(&vec![0.3; n], Aggregation::GeometricMean, PROBABILITY_CLIP, WITHOUT_STEPS);
        assert_close(&[of(1), of(7)], &[0.3, 0.3]);
    }
}
