//! Rewards of one user made comparable with another's: each is only defined up to a scale and a shift.
//!
//! Reference: Poddar et al. 2024, "Personalizing Reinforcement Learning from Human Feedback with Variational Preference Learning".

use crate::advantage::mean;
use crate::stats::{log_sum_exp, sigmoid};

/// Mean chance to win against a comparison set scored under the same latent, `mean_j σ(r - r_j)`, in 0..1; 0 without comparisons.
pub fn win_probability(reward: f64, comparisons: &[f64]) -> f64 {
    mean(&comparisons.iter().map(|other| sigmoid(reward - other)).collect::<Vec<_>>())
}

/// `ln mean_j e^r_j` of a comparison set; 0 without comparisons.
pub fn log_mean_exp(comparisons: &[f64]) -> f64 {
    if comparisons.is_empty() { 0.0 } else { log_sum_exp(comparisons) - (comparisons.len() as f64).ln() }
}

/// `(r - normaliser) · temperature`, with the normaliser of [`log_mean_exp`].
pub fn normalised(reward: f64, normaliser: f64, temperature: f64) -> f64 {
    (reward - normaliser) * temperature
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn shifts_of_a_user_cancel() {
        let (rewards, others) = ([0.5, -2.0], [0.0, 1.0, -1.0]);
        let shifted = others.map(|r| r + 1e3);
        for reward in rewards {
            assert_close(&[win_probability(reward + 1e3, &shifted)], &[win_probability(reward, &others)]);
            let value = |reward: f64, others: &[f64]| normalised(reward, log_mean_exp(others), 0.5);
            assert!((value(reward + 1e3, &shifted) - value(reward, &others)).abs() < 1e-9);
        }
    }

    #[test]
    fn extreme_rewards_and_no_comparisons_give_finite_values() {
        assert_close(&[win_probability(1e5, &[-1e5, 1e5]), win_probability(3.0, &[])], &[0.75, 0.0]);
        assert_close(&[log_mean_exp(&[1e5, 1e5]), log_mean_exp(&[])], &[1e5, 0.0]);
    }
}
