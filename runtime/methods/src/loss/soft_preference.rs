//! Preference losses with a strength to each pair: a probability as label, or a scale of its own.

use candle_core::Tensor;

use super::dpo::PairLogps;
use super::log_sigmoid;

/// `(policy - reference)` of the chosen answer minus that of the rejected, `[P]`.
fn log_ratio_difference(policy: &PairLogps, reference: &PairLogps) -> candle_core::Result<Tensor> {
    (&policy.chosen - &reference.chosen)? - (&policy.rejected - &reference.rejected)?
}

/// `-p ln σ(Δ) - (1 - p) ln σ(-Δ)` of each pair, `[P]`: cross-entropy of a binary label, or of a probability as label.
///
/// # Shapes
/// - `delta`: `[P]` log-odds; gradient flows to it. `probabilities`: `[P]`, in 0..=1, without gradient.
pub fn label_cross_entropy(delta: &Tensor, probabilities: &Tensor) -> candle_core::Result<Tensor> {
    let probabilities = probabilities.detach();
    let wins = (log_sigmoid(delta)? * &probabilities)?;
    let losses = (log_sigmoid(&delta.neg()?)? * (1.0 - probabilities)?)?;
    (wins + losses)?.neg()
}

/// `-p ln σ(Δ) - (1 - p) ln σ(-Δ)` of each pair, `[P]`, with Δ = beta times the difference of log-ratios: least at Δ = logit(p).
///
/// # Shapes
/// - `policy`, `reference`: `[P]` each, sums over tokens, nats; gradient flows to the policy's.
/// - `probabilities`: `[P]`, that the chosen answer is better, 0 and 1 included; labels without gradient.
///
/// Reference: Zhai et al. 2024, "Online Self-Preferring Language Models".
pub fn soft_cross_entropy(
    policy: &PairLogps,
    reference: &PairLogps,
    probabilities: &Tensor,
    beta: f64,
) -> candle_core::Result<Tensor> {
    label_cross_entropy(&(log_ratio_difference(policy, reference)? * beta)?, probabilities)
}

/// `-ln σ(beta_i Δ_i)` of each pair, `[P]`, with a beta for each (`betas`, `[P]`, without gradient) and Δ the difference of log-ratios.
pub fn dpo_of_betas(policy: &PairLogps, reference: &PairLogps, betas: &Tensor) -> candle_core::Result<Tensor> {
    log_sigmoid(&(log_ratio_difference(policy, reference)? * betas.detach())?)?.neg()
}

/// Beta of a pair by the margin of its rewards: `beta (1 + w (1 - e^(-k margin)))`, within beta and `(1 + w) beta`.
///
/// Reference: Zhang et al. 2025 ("MM-RLHF"), dynamic reward scaling.
pub fn dynamic_beta(margin: f64, beta: f64, w: f64, k: f64) -> f64 {
    // A negative margin would make it fall without bound.
    beta * (1.0 + w * (-(-k * margin).exp_m1()).max(0.0))
}

/// Beta of a batch by how far its mean implicit margin is from the running mean: `beta (1 + alpha (mean - running))`, at least `floor`.
/// A batch without pairs has beta.
///
/// Reference: Wu et al. 2024 ("beta-DPO").
pub fn batch_beta(margins: &[f64], running: f64, beta: f64, alpha: f64, floor: f64) -> f64 {
    let surprise = crate::stats::mean_opt(margins).map_or(0.0, |mean| mean - running);
    (beta * (1.0 + alpha * surprise)).max(floor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;
    use crate::testing::{assert_close, assert_finite, check_gradients, gradients, numbers, vector};

    fn pairs(leaves: &[Tensor]) -> (PairLogps, PairLogps) {
        let reference = PairLogps { chosen: vector(&[-3.0, -2.0]), rejected: vector(&[-4.0, -1.0]) };
        (PairLogps { chosen: leaves[0].clone(), rejected: leaves[1].clone() }, reference)
    }

    fn soft(leaves: &[Tensor], probabilities: &[f64]) -> candle_core::Result<Tensor> {
        let (policy, reference) = pairs(leaves);
        soft_cross_entropy(&policy, &reference, &vector(probabilities), 0.5)?.sum_all()
    }

    #[test]
    fn cross_entropy_is_least_where_the_margin_is_the_labels_log_odds() {
        // Differences of log-ratios ln 3 / 0.5 and 0.
        let at = 3.0f64.ln() / 0.5;
        let leaves = [vector(&[-3.0 + at, -2.0]), vector(&[-4.0, -1.0])];
        let (_, gradients) = gradients(&leaves, |leaves| soft(leaves, &[0.75, 0.5])).unwrap();
        assert!(gradients.iter().flatten().all(|g| g.abs() < 1e-15), "{gradients:?}");
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let leaves = [vector(&[-2.0, -1.5]), vector(&[-2.0, -4.0])];
        check_gradients(&leaves, 1e-8, |leaves| soft(leaves, &[0.9, 0.2]));
        check_gradients(&leaves, 1e-8, |leaves| {
            let (policy, reference) = pairs(leaves);
            dpo_of_betas(&policy, &reference, &vector(&[0.1, 0.4]))?.sum_all()
        });
    }

    #[test]
    fn certain_labels_of_hopeless_pairs_have_finite_losses() {
        for far in [-1e5, 1e5] {
            assert_finite(&[vector(&[far, far]), vector(&[-far, -far])], |leaves| soft(leaves, &[0.0, 1.0]));
        }
    }

    #[test]
    fn each_pair_has_its_beta() {
        let (policy, reference) = pairs(&[vector(&[-2.0, -1.5]), vector(&[-2.0, -4.0])]);
        let losses = dpo_of_betas(&policy, &reference, &vector(&[0.1, 0.4])).unwrap();
        assert_close(&numbers(&losses), &[-stats::log_sigmoid(-0.1), -stats::log_sigmoid(1.4)]);
    }

    #[test]
    fn betas_stay_within_their_bounds() {
        let betas = [0.0, -1e6, 1e6, 1.0].map(|margin| dynamic_beta(margin, 0.1, 0.5, 0.5));
        assert_close(&betas, &[0.1, 0.1, 0.15, 0.1 * (1.0 + 0.5 * (1.0 - (-0.5f64).exp()))]);
        assert_eq!(dynamic_beta(-1e6, 0.1, 0.0, 0.5), 0.1);
        assert_close(&[batch_beta(&[1.0, 2.0], 0.5, 0.1, 0.5, 1e-3), batch_beta(&[-99.0], 0.0, 0.1, 0.5, 1e-3)], &[0.15, 1e-3]);
        assert_eq!(batch_beta(&[], 3.0, 0.1, 0.5, 1e-3), 0.1);
    }
}
