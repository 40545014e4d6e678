//! Losses of policies that stay where all judges are satisfied, and how several tasks share a step.
//!
//! Reference: Xu et al. 2024, "The Perfect Blend: Redefining RLHF with Mixture of Judges" (CGPO), sections 4 and 5.

use candle_core::Tensor;
use plumb_core::recipe::Dpo;

use super::dpo::PairLogps;
use super::mean;
use super::rpo::{Likelihood, Rpo, rpo};
use crate::reward::ensemble;

/// `-mean(weight · ln π(answer))`, `[]`; 0 without answers.
///
/// With advantages as weights it is the policy gradient of CRPG, the mean over all completions; with calibrated rewards that of CRRAFT over the answers
/// that were used.
///
/// # Shapes
/// - `logps`: `[N]`, sums over tokens, nats; gradient flows to them. `weights`: `[N]`, constants.
pub fn weighted_likelihood(logps: &Tensor, weights: &Tensor) -> candle_core::Result<Tensor> {
    mean(&(logps * weights)?)?.neg()
}

/// CODPO: `-ln σ(beta (ratio_chosen - ratio_rejected)) - lambda / |chosen| · ln π(chosen)` of each pair, `[P]` each part; a step's loss is the mean of
/// their sum.
///
/// # Shapes
/// - `policy`, `reference`: `[P]` each, sums over tokens, nats. Gradient flows to the policy's.
/// - `chosen_lengths`: `[P]` tokens; no tokens count as one.
pub fn codpo(
    policy: &PairLogps,
    reference: &PairLogps,
    chosen_lengths: &Tensor,
    beta: f64,
    lambda: f64,
) -> candle_core::Result<Rpo> {
    let means = (&policy.chosen / chosen_lengths.maximum(1.0)?)?;
    let likelihood = Likelihood { eta: lambda, scaled_by_beta: false };
    rpo(policy, reference, &means, &Dpo { beta, ..Dpo::default() }, likelihood)
}

/// `learning_rate · Σ_l weight_l · gradient_l` over tasks, by parameter: each task's gradient comes from its own prompts, judges, reward and loss.
///
/// `gradients`: `[tasks][parameters]`, in the direction of improvement. Nothing without tasks.
pub fn blended_update(gradients: &[Vec<f64>], weights: &[f64], learning_rate: f64) -> Vec<f64> {
    ensemble::weighted(gradients, weights).into_iter().map(|gradient| learning_rate * gradient).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::log_sigmoid;
    use crate::testing::{assert_close, assert_finite, check_gradients, gradients, numbers, vector};

    fn pair(leaves: &[Tensor]) -> PairLogps {
        PairLogps { chosen: leaves[0].clone(), rejected: leaves[1].clone() }
    }

    fn codpo_loss(leaves: &[Tensor], lengths: &[f64]) -> candle_core::Result<Tensor> {
        let reference = PairLogps { chosen: vector(&[-3.0, -2.0]), rejected: vector(&[-4.0, -1.0]) };
        let parts = codpo(&pair(leaves), &reference, &vector(lengths), 0.5, 2.0)?;
        parts.dpo + parts.likelihood
    }

    #[test]
    fn chosen_answers_are_learned_by_token() {
        let leaves = [vector(&[-2.0, -2.5]), vector(&[-4.5, -1.0])];
        let want = [-log_sigmoid(0.5 * 1.5) + 2.0 * 2.0 / 4.0, -log_sigmoid(0.5 * -0.5) + 2.0 * 2.5];
        assert_close(&numbers(&codpo_loss(&leaves, &[4.0, 1.0]).unwrap()), &want);
        assert_close(&numbers(&codpo_loss(&leaves, &[4.0, 0.0]).unwrap()), &want);
        check_gradients(&leaves, 1e-8, |leaves| super::mean(&codpo_loss(leaves, &[4.0, 0.0])?));
        assert_finite(&[vector(&[-1e4, 0.0]), vector(&[0.0, -1e4])], |leaves| codpo_loss(leaves, &[4.0, 0.0])?.sum_all());
    }

    #[test]
    fn likelihood_has_its_weights_as_gradient_and_no_answers_have_no_loss() {
        let weights = vector(&[0.5, -1.0, 0.0]);
        let graph = |leaves: &[Tensor]| weighted_likelihood(&leaves[0], &weights);
        let gradient = check_gradients(&[vector(&[-3.0, -0.5, -9.0])], 1e-8, graph);
        assert_close(&gradient[0], &[-0.5 / 3.0, 1.0 / 3.0, 0.0]);
        let none = gradients(&[vector(&[])], |leaves| weighted_likelihood(&leaves[0], &vector(&[]))).unwrap();
        assert_eq!(none, (0.0, vec![vec![]]));
    }

    #[test]
    fn tasks_share_a_step_by_their_weights() {
        assert_close(&blended_update(&[vec![0.2, -0.1], vec![1.0, 0.4]], &[1.0, 0.5], 0.1), &[0.07, 0.01]);
        assert!(blended_update(&[], &[], 0.1).is_empty());
    }
}
