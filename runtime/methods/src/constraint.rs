//! Reinforcement learning under constraints: multipliers that keep the components of a reward at their thresholds.
//!
//! Reference: Moskovitz et al. 2023, "Confronting Reward Model Overoptimization with Constrained RLHF".

use crate::advantage::{mean, std_dev};
use crate::stats::sigmoid;

/// From a raw multiplier to its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Squash {
    /// `σ(x)`: weights in 0..1.
    #[default]
    Sigmoid,
    /// `tanh(x)`: weights in -1..1, so that too much of a component can cost.
    Tanh,
    /// The multiplier itself.
    None,
}

impl Squash {
    /// Weight of a raw multiplier.
    pub fn weight(self, raw: f64) -> f64 {
        match self {
            Squash::Sigmoid => sigmoid(raw),
            Squash::Tanh => raw.tanh(),
            Squash::None => raw,
        }
    }

    /// Weight of the KL beside components of these weights: what they leave of one each where they are bounded, else 1.
    pub fn kl_weight(self, weights: &[f64]) -> f64 {
        match self {
            Squash::Sigmoid | Squash::Tanh => weights.len() as f64 - weights.iter().sum::<f64>(),
            Squash::None => 1.0,
        }
    }

    /// Derivative of the weight by the raw multiplier.
    pub fn slope(self, raw: f64) -> f64 {
        match self {
            Squash::Sigmoid => sigmoid(raw) * sigmoid(-raw),
            Squash::Tanh => 1.0 - raw.tanh().powi(2),
            Squash::None => 1.0,
        }
    }
}

/// `(x - mean) / (std + epsilon)`; all 0 where they are equal.
pub fn normalised(values: &[f64], ddof: usize, epsilon: f64) -> Vec<f64> {
    let (center, std) = (mean(values), std_dev(values, ddof));
    values.iter().map(|value| (value - center) / (std + epsilon)).collect()
}

/// `A_i = kl_weight · A_kl,i + Σ_j weight_j · A_j,i`, of advantages that are [normalised] or not; for the weights see [`Squash`].
///
/// `components`: `[components][rows]`.
pub fn mixed_advantages(components: &[Vec<f64>], kl: &[f64], weights: &[f64], kl_weight: f64) -> Vec<f64> {
    let of_components = |i: usize| components.iter().zip(weights).map(|(component, weight)| weight * component[i]).sum::<f64>();
    (0..kl.len()).map(|i| kl_weight * kl[i] + of_components(i)).collect()
}

/// Multipliers, learned by gradient descent with momentum.
#[derive(Clone, Debug, PartialEq)]
pub struct Multipliers {
    /// One per component, before [`Squash`].
    pub raw: Vec<f64>,
    /// From raw multipliers to weights.
    pub squash: Squash,
    /// Step size.
    pub learning_rate: f64,
    /// Share of the last direction that is kept.
    pub momentum: f64,
    /// Gradients are scaled down to this norm.
    pub max_grad_norm: Option<f64>,
    /// Whether multipliers below 0 are set to 0 after a step.
    pub clamp_at_zero: bool,
    /// The last direction; none before the first step.
    pub direction: Option<Vec<f64>>,
}

impl Multipliers {
    /// Weights of the components.
    pub fn weights(&self) -> Vec<f64> {
        self.raw.iter().map(|&raw| self.squash.weight(raw)).collect()
    }

    /// One step by the violations, mean reward minus threshold of each component: a component below its threshold gets more weight.
    pub fn update(&mut self, violations: &[f64]) {
        let mut gradient: Vec<f64> =
            violations.iter().zip(&self.raw).map(|(violation, &raw)| violation * self.squash.slope(raw)).collect();
        if let Some(most) = self.max_grad_norm {
            let norm = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
            let scale = (most / (norm + 1e-6)).min(1.0);
            gradient.iter_mut().for_each(|x| *x *= scale);
        }
        if let Some(before) = &self.direction {
            gradient.iter_mut().zip(before).for_each(|(x, before)| *x += self.momentum * before);
        }
        for (raw, step) in self.raw.iter_mut().zip(&gradient) {
            *raw -= self.learning_rate * step;
            if self.clamp_at_zero {
                *raw = raw.max(0.0);
            }
        }
        self.direction = Some(gradient);
    }
}

/// `-Σ_j (r_j - target_j)²`: a reward for being at thresholds, and not beyond them.
pub fn target_tracking(components: &[f64], targets: &[f64]) -> f64 {
    -components.iter().zip(targets).map(|(reward, target)| (reward - target) * (reward - target)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    fn multipliers(squash: Squash) -> Multipliers {
        Multipliers {
            raw: vec![0.0, 0.5],
            squash,
            learning_rate: 1.0,
            momentum: 0.5,
            max_grad_norm: None,
            clamp_at_zero: false,
            direction: None,
        }
    }

    #[test]
    fn components_below_their_threshold_gain_weight_and_the_last_direction_is_kept_in_part() {
        let mut plain = multipliers(Squash::None);
        plain.update(&[-0.2, 0.4]);
        assert_close(&plain.raw, &[0.2, 0.1]);
        plain.update(&[0.0, 0.0]);
        assert_close(&plain.raw, &[0.3, -0.1]);
    }

    #[test]
    fn slopes_are_those_of_the_weights() {
        for squash in [Squash::Sigmoid, Squash::Tanh, Squash::None] {
            let numeric = (squash.weight(0.3 + 1e-6) - squash.weight(0.3 - 1e-6)) / 2e-6;
            assert!((squash.slope(0.3) - numeric).abs() < 1e-9, "{squash:?}");
        }
    }

    #[test]
    fn long_gradients_are_shortened_and_multipliers_may_be_kept_above_zero() {
        let mut short = Multipliers { max_grad_norm: Some(0.5), clamp_at_zero: true, ..multipliers(Squash::None) };
        short.update(&[3.0, 4.0]);
        assert!((short.raw[1] - 0.1).abs() < 1e-6 && short.raw[0] == 0.0, "{:?}", short.raw);
    }

    #[test]
    fn advantages_are_mixed_by_weight_and_equal_ones_are_zero() {
        assert_eq!(mixed_advantages(&[vec![1.0, 2.0]], &[4.0, 0.0], &[0.25], 0.75), [3.25, 0.5]);
        assert_eq!(normalised(&[2.0, 2.0], 1, 1e-8), [0.0, 0.0]);
        assert_eq!(target_tracking(&[1.0, 3.0], &[1.0, 1.0]), -4.0);
    }
}
