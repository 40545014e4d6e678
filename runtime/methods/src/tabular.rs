//! The KL-regularized problem over finitely many answers, where everything has a closed form: `max_π E_π[r] - beta KL(π ‖ ref)`.
//! Oracles for tests of losses that stand for it, and objectives over whole tables.

use crate::stats::{log_sigmoid, log_sum_exp};

/// Solution of the regularized problem for one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimalPolicy {
    /// Of each answer, adding up to 1; answers that the reference cannot give have 0.
    pub probabilities: Vec<f64>,
    /// ln Z with `Z = Σ_y ref(y) e^(r(y) / beta)`; beta times it is the problem's value.
    pub log_partition: f64,
}

/// `π*(y) = ref(y) e^(r(y) / beta) / Z` (Rafailov et al. 2023, equation 4).
///
/// # Panics
/// When there are not as many rewards as probabilities.
pub fn optimal_policy(reference: &[f64], rewards: &[f64], beta: f64) -> OptimalPolicy {
    assert_eq!(reference.len(), rewards.len(), "each answer needs a reward");
    let logits: Vec<f64> = reference.iter().zip(rewards).map(|(p, reward)| p.ln() + reward / beta).collect();
    let log_partition = log_sum_exp(&logits);
    OptimalPolicy { probabilities: logits.iter().map(|x| (x - log_partition).exp()).collect(), log_partition }
}

/// The part of rewards that a policy's log-ratios show: `r - beta ln Z`, which is `beta ln(π* / ref)`.
pub fn implicit_rewards(rewards: &[f64], beta: f64, log_partition: f64) -> Vec<f64> {
    rewards.iter().map(|reward| reward - beta * log_partition).collect()
}

/// `-ln σ(r(winner) - r(loser))` of each pair of answers.
fn pair_losses(rewards: &[f64], pairs: &[[usize; 2]]) -> Vec<f64> {
    pairs.iter().map(|&[winner, loser]| -log_sigmoid(rewards[winner] - rewards[loser])).collect()
}

/// `Σ_y weight_y value_y` over answers of positive weight: a value may be infinite where the weight is 0.
fn expectation(weights: &[f64], values: &[f64]) -> f64 {
    weights.iter().zip(values).filter(|(weight, _)| **weight > 0.0).map(|(weight, value)| weight * value).sum()
}

/// Both sides of the adversarial objective of RPO for one reward; they agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Adversarial {
    /// `eta (beta ln Z - E_base[r]) + L_D(r)`.
    pub reward_side: f64,
    /// `-eta beta E_base[ln(π_r / ref)] + L_D(beta ln(π_r / ref))`: with π_r known, the reward is not needed.
    pub policy_side: f64,
    /// π_r.
    pub policy: Vec<f64>,
}

/// What the adversary minimizes over rewards (Liu et al. 2024, "Provably Mitigating Overoptimization in RLHF: Your SFT Loss is
/// Implicitly an Adversarial Regularizer"). `L_D` is the mean Bradley-Terry loss of `pairs`, each a winner and a loser; 0 without any.
pub fn adversarial(reference: &[f64], base: &[f64], rewards: &[f64], pairs: &[[usize; 2]], beta: f64, eta: f64) -> Adversarial {
    let OptimalPolicy { probabilities, log_partition } = optimal_policy(reference, rewards, beta);
    let likelihood = |rewards: &[f64]| crate::advantage::mean(&pair_losses(rewards, pairs));
    // The logarithm of the ratio and not the ratio's: probabilities may be rounded to 0.
    let log_ratios = implicit_rewards(rewards, beta, log_partition);
    Adversarial {
        reward_side: eta * (beta * log_partition - expectation(base, rewards)) + likelihood(rewards),
        policy_side: -eta * expectation(base, &log_ratios) + likelihood(&log_ratios),
        policy: probabilities,
    }
}

/// Parts of the value-incentivized objective for one reward.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueIncentivized {
    /// Rewards whose mean under the calibration policy is 0.
    pub calibrated_rewards: Vec<f64>,
    /// `beta ln Z` of the calibrated rewards: what the best policy gets.
    pub value: f64,
    /// The best policy.
    pub policy: Vec<f64>,
    /// Sum of the Bradley-Terry losses of the pairs.
    pub nll: f64,
    /// `nll - sign · alpha · value`.
    pub objective: f64,
}

/// Value-incentivized reward estimation (Cen et al. 2024): `sign` is 1 for optimism (online), -1 for pessimism (offline), 0 for neither.
pub fn value_incentivized(
    reference: &[f64],
    calibration: &[f64],
    rewards: &[f64],
    pairs: &[[usize; 2]],
    beta: f64,
    sign_alpha: f64,
) -> ValueIncentivized {
    let shift = expectation(calibration, rewards);
    let calibrated_rewards: Vec<f64> = rewards.iter().map(|reward| reward - shift).collect();
    let OptimalPolicy { probabilities: policy, log_partition } = optimal_policy(reference, &calibrated_rewards, beta);
    let value = beta * log_partition;
    let nll: f64 = pair_losses(&calibrated_rewards, pairs).iter().sum();
    ValueIncentivized { calibrated_rewards, value, policy, nll, objective: nll - sign_alpha * value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn optimal_policy_beats_all_others_and_its_value_is_the_partition() {
        let (reference, rewards, beta) = ([0.5, 0.3, 0.2], [0.0, 1.0, -0.5], 0.7);
        let best = optimal_policy(&reference, &rewards, beta);
        let value =
            |policy: &[f64]| -> f64 { (0..3).map(|i| policy[i] * (rewards[i] - beta * (policy[i] / reference[i]).ln())).sum() };
        assert_close(&[value(&best.probabilities), best.probabilities.iter().sum()], &[beta * best.log_partition, 1.0]);
        assert!(value(&[0.4, 0.4, 0.2]) < value(&best.probabilities));
        let implicit = implicit_rewards(&rewards, beta, best.log_partition);
        let ratios: Vec<f64> = (0..3).map(|i| beta * (best.probabilities[i] / reference[i]).ln()).collect();
        assert_close(&implicit, &ratios);
    }

    #[test]
    fn impossible_answers_stay_impossible_and_extreme_rewards_are_finite() {
        let best = optimal_policy(&[0.0, 1.0], &[1e6, 0.0], 0.1);
        assert_close(&best.probabilities, &[0.0, 1.0]);
        let far = optimal_policy(&[0.5, 0.5], &[1e6, -1e6], 1e-3);
        assert!(far.log_partition.is_finite());
        assert_close(&far.probabilities, &[1.0, 0.0]);
    }

    #[test]
    fn both_sides_of_the_adversarial_objective_agree() {
        for rewards in [[0.0, 1.0, -0.5], [5.0, -40.0, 800.0]] {
            let got = adversarial(&[0.5, 0.3, 0.2], &[0.2, 0.0, 0.8], &rewards, &[[1, 0], [0, 2]], 0.7, 0.3);
            assert!((got.reward_side - got.policy_side).abs() < 1e-9 * got.reward_side.abs().max(1.0), "{got:?}");
        }
        assert_eq!(adversarial(&[1.0], &[1.0], &[0.0], &[], 1.0, 1.0).reward_side, 0.0);
    }

    #[test]
    fn value_does_not_depend_on_a_shift_of_rewards() {
        let of = |shift: f64| {
            let rewards = [0.2 + shift, 1.0 + shift, -0.5 + shift];
            value_incentivized(&[0.5, 0.3, 0.2], &[0.1, 0.0, 0.9], &rewards, &[[1, 0]], 0.4, 0.5)
        };
        let (a, b) = (of(0.0), of(3.0));
        assert_close(&[a.value, a.nll, a.objective], &[b.value, b.nll, b.objective]);
        assert_close(&a.policy, &b.policy);
        assert_close(&[0.1 * a.calibrated_rewards[0] + 0.9 * a.calibrated_rewards[2]], &[0.0]);
    }
}
