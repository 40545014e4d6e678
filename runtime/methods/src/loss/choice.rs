//! Reward models on pairs whose preferred answer is given by its index, with a penalty on the mean reward of a batch.
//!
//! Reference: Sun et al. 2023, "SALMON", and Sun et al. 2023, "Aligning Large Multimodal Models with Factually Augmented RLHF", with the code released
//! with both.

use candle_core::Tensor;

use super::mean;
use super::reward::{Strength, graded_bradley_terry};

/// Mean binary cross-entropy of `σ(second - first)` with the choice, `+ mean_penalty · |mean(first + second)|`, `[]`; 0 without pairs. The penalty has no
/// gradient where the mean is 0.
///
/// # Shapes
/// - `first`, `second`: rewards, `[P]` each; gradient flows to both. `second_preferred`: one a pair.
pub fn choice_loss(first: &Tensor, second: &Tensor, second_preferred: &[bool], mean_penalty: f64) -> candle_core::Result<Tensor> {
    let signs: Vec<f64> = second_preferred.iter().map(|&second| if second { 1.0 } else { -1.0 }).collect();
    let loss = mean(&graded_bradley_terry(first, second, &signs, Strength::Ignored)?)?;
    let center = mean(&(first + second)?)?;
    // Not `abs`, whose gradient at 0 is 1.
    let magnitude = (&center * center.detach().sign()?)?;
    loss + (magnitude * mean_penalty)?
}

/// Share of the pairs whose preferred answer has the greater reward, a tie being read as a choice of the second; 0 without pairs.
///
/// # Panics
/// When the lists have different lengths.
pub fn choice_accuracy(first: &[f64], second: &[f64], second_preferred: &[bool]) -> f64 {
    assert!(first.len() == second.len() && first.len() == second_preferred.len(), "each pair needs both rewards and a choice");
    let right = (0..first.len()).filter(|&i| (second[i] - first[i] >= 0.0) == second_preferred[i]).count();
    right as f64 / first.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, assert_float32_agrees, check_gradients, gradients, vector};

    const CHOICES: [bool; 3] = [true, false, true];

    fn loss(x: &[Tensor], mean_penalty: f64) -> candle_core::Result<Tensor> {
        choice_loss(&x[0], &x[1], &CHOICES, mean_penalty)
    }

    #[test]
    fn gradients_agree_with_finite_differences_on_both_sides_of_the_penalty() {
        for second in [[0.5, -0.7, 1.5], [-4.0, -0.7, 0.1]] {
            let leaves = [vector(&[0.3, -1.0, 2.0]), vector(&second)];
            check_gradients(&leaves, 1e-8, |x| loss(x, 0.5));
            assert_float32_agrees(&leaves, |x| loss(x, 0.5));
        }
    }

    #[test]
    fn equal_rewards_cost_a_bit_each_and_the_penalty_has_no_gradient_at_mean_zero() {
        let equal = [vector(&[0.0; 3]), vector(&[0.0; 3])];
        let (value, with) = gradients(&equal, |x| loss(x, 1e3)).unwrap();
        let (_, without) = gradients(&equal, |x| loss(x, 0.0)).unwrap();
        assert_close(&[value], &[std::f64::consts::LN_2]);
        assert_eq!(with, without);
        // Mean 4 of the sums.
        let shifted = [vector(&[2.0; 3]), vector(&[2.0; 3])];
        assert_close(&[assert_finite(&shifted, |x| loss(x, 0.25))], &[std::f64::consts::LN_2 + 1.0]);
    }

    #[test]
    fn no_pairs_and_extreme_rewards_are_finite() {
        assert_eq!(assert_finite(&[vector(&[]), vector(&[])], |x| choice_loss(&x[0], &x[1], &[], 1.0)), 0.0);
        let extreme = [vector(&[1e4, -1e4, 0.0]), vector(&[-1e4, 1e4, 0.0])];
        assert_finite(&extreme, |x| loss(x, 1.0));
    }

    #[test]
    fn tie_is_read_as_a_choice_of_the_second() {
        assert_eq!(choice_accuracy(&[1.0, 1.0, 2.0, 0.0], &[1.0, 1.0, 1.0, 1.0], &[true, false, false, false]), 0.5);
        assert_eq!(choice_accuracy(&[], &[], &[]), 0.0);
    }
}
