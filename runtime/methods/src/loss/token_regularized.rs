//! Preference optimization with rewards of single tokens as a regularizer (Zhou et al. 2024, "T-REG").

use candle_core::Tensor;

use super::dpo::{PairLogps, mask_weights};
use super::log_sigmoid;

/// What the regularizer is multiplied by, besides its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weighting {
    /// σ(-margin), without gradient: as much as the preference loss pulls.
    #[default]
    Sequence,
    /// 1.
    Static,
}

/// Constants of [`t_reg`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TReg {
    /// Scale of the log-ratios.
    pub beta: f64,
    /// What the chosen answer must be ahead (SimPO); 0 for DPO.
    pub gamma: f64,
    /// Weight of the regularizer.
    pub alpha: f64,
    /// What else it is multiplied by.
    pub weighting: Weighting,
}

/// Losses of pairs and their parts, `[P]` each.
#[derive(Clone, Debug)]
pub struct Regularized {
    /// `-ln σ(margin) + alpha · weight · (chosen + rejected regularizer)`.
    pub losses: Tensor,
    /// `beta` times the difference of log-ratios, less gamma.
    pub margins: Tensor,
    /// By [`Weighting`].
    pub weights: Tensor,
    /// `-beta Σ_t reward_t ln π_t` of each answer: tokens of positive reward are encouraged, in the rejected answer too.
    pub regularizers: PairLogps,
}

/// Weights by which tokens' log-probabilities add up to what [`t_reg`] takes as `rewarded`: those of [`mask_weights`] times the rewards.
pub fn rewarded_weights(mask: &[f64], rewards: &[f64], averages: bool) -> Vec<f64> {
    mask_weights(mask, averages).iter().zip(rewards).map(|(weight, reward)| weight * reward).collect()
}

/// Losses of pairs.
///
/// # Shapes
/// - `policy`: `[P]` each, nats; sums over tokens for DPO, means for SimPO, which has no reference.
/// - `reference`: like the policy's; None takes them as 0.
/// - `rewarded`: `[P]` each, `Σ_t reward_t ln π_t` with the policy's reduction. Gradient flows to it and to the policy.
pub fn t_reg(
    policy: &PairLogps,
    reference: Option<&PairLogps>,
    rewarded: &PairLogps,
    settings: TReg,
) -> candle_core::Result<Regularized> {
    let mut difference = (&policy.chosen - &policy.rejected)?;
    if let Some(reference) = reference {
        difference = (difference - (&reference.chosen - &reference.rejected)?)?;
    }
    let margins = ((difference * settings.beta)? - settings.gamma)?;
    let weights = match settings.weighting {
        Weighting::Sequence => log_sigmoid(&margins.detach().neg()?)?.exp()?,
        Weighting::Static => margins.ones_like()?,
    };
    let regularizers =
        PairLogps { chosen: (&rewarded.chosen * -settings.beta)?, rejected: (&rewarded.rejected * -settings.beta)? };
    let regularizer = ((&regularizers.chosen + &regularizers.rejected)? * settings.alpha)?;
    let losses = ((regularizer * &weights)? - log_sigmoid(&margins)?)?;
    Ok(Regularized { losses, margins, weights, regularizers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, check_gradients, gradients, numbers, vector};

    const SETTINGS: TReg = TReg { beta: 0.5, gamma: 0.1, alpha: 0.25, weighting: Weighting::Static };
    const REWARDS: [f64; 2] = [0.4, -0.3];

    /// Answers of one token: what is rewarded is the token's log-probability times its reward.
    fn loss(leaves: &[Tensor], weighting: Weighting) -> candle_core::Result<Regularized> {
        let policy = PairLogps { chosen: leaves[0].clone(), rejected: leaves[1].clone() };
        let rewarded = PairLogps { chosen: (&leaves[0] * REWARDS[0])?, rejected: (&leaves[1] * REWARDS[1])? };
        t_reg(&policy, None, &rewarded, TReg { weighting, ..SETTINGS })
    }

    #[test]
    fn gradients_rescale_those_of_the_preference_loss_by_token() {
        let leaves = [vector(&[-1.0]), vector(&[-2.0])];
        let parts = loss(&leaves, Weighting::Sequence).unwrap();
        let weight = numbers(&parts.weights)[0];
        assert_close(&numbers(&parts.margins), &[0.4]);
        let (_, gradients) = gradients(&leaves, |leaves| loss(leaves, Weighting::Sequence)?.losses.sum_all()).unwrap();
        let want = [-0.5 * weight * (1.0 + 0.25 * REWARDS[0]), 0.5 * weight * (1.0 - 0.25 * REWARDS[1])];
        assert_close(&gradients.concat(), &want);
    }

    #[test]
    fn static_gradients_agree_with_finite_differences_and_extremes_are_finite() {
        check_gradients(&[vector(&[-1.0, -3.0]), vector(&[-2.0, -0.5])], 1e-8, |leaves| {
            loss(leaves, Weighting::Static)?.losses.sum_all()
        });
        for weighting in [Weighting::Static, Weighting::Sequence] {
            assert_finite(&[vector(&[-1e5, 0.0]), vector(&[0.0, -1e5])], |leaves| loss(leaves, weighting)?.losses.sum_all());
        }
    }

    #[test]
    fn masked_tokens_have_no_weight() {
        assert_eq!(rewarded_weights(&[1.0, 0.0, 1.0], &[0.5, 0.4, -0.2], true), [0.25, 0.0, -0.1]);
        assert_eq!(rewarded_weights(&[0.0], &[0.5], true), [0.0]);
    }
}
