//! Losses that teach reward models and policies what a verbal confidence is worth.
//!
//! A random high or low confidence is written under the better and the worse answer of a pair: a better answer should gain by the high one, a worse
//! one by the low one.
//!
//! Reference: Leng et al. 2024, "Taming Overconfidence in LLMs: Reward Calibration in RLHF".

use candle_core::Tensor;

use super::{log_sigmoid, mean};

/// One value per pair for each answer with a high and with a low confidence, and without any; `[P]` each.
#[derive(Clone, Debug)]
pub struct Confident {
    /// The better answer with a high confidence.
    pub chosen_high: Tensor,
    /// With a low one.
    pub chosen_low: Tensor,
    /// The worse answer with a high confidence.
    pub rejected_high: Tensor,
    /// With a low one.
    pub rejected_low: Tensor,
    /// The better answer as it is.
    pub chosen: Tensor,
    /// The worse one.
    pub rejected: Tensor,
}

/// What the reward loss compares besides high and low confidences of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Comparison {
    /// Nothing.
    #[default]
    Base,
    /// The answers without confidence.
    Combined,
    /// The better answer with a high against the worse one with a low confidence.
    Cross,
}

/// Mean over pairs of `-ln σ(chosen_high - chosen_low) - ln σ(rejected_low - rejected_high)`, and of what `comparison` adds; `[]`.
///
/// Gradient flows to all rewards.
pub fn calibrated_reward(rewards: &Confident, comparison: Comparison) -> candle_core::Result<Tensor> {
    let over = |better: &Tensor, worse: &Tensor| log_sigmoid(&(better - worse)?)?.neg();
    let base = (over(&rewards.chosen_high, &rewards.chosen_low)? + over(&rewards.rejected_low, &rewards.rejected_high)?)?;
    mean(&match comparison {
        Comparison::Base => base,
        Comparison::Combined => (base + over(&rewards.chosen, &rewards.rejected)?)?,
        Comparison::Cross => (base + over(&rewards.chosen_high, &rewards.rejected_low)?)?,
    })
}

/// Mean over pairs of `coefficient · (l(chosen_high, chosen_low) + l(rejected_low, rejected_high)) + l(chosen, rejected)` (CDPO), `[]`.
///
/// l is the sigmoid loss of DPO, `-ln σ(beta · ((a - a_ref) - (b - b_ref)))` over sequences' log-probabilities in nats. Gradient flows to the policy's.
pub fn calibrated_dpo(policy: &Confident, reference: &Confident, beta: f64, coefficient: f64) -> candle_core::Result<Tensor> {
    let loss = |[better, worse]: [fn(&Confident) -> &Tensor; 2]| {
        let ratio = |side: fn(&Confident) -> &Tensor| side(policy) - side(reference);
        log_sigmoid(&((ratio(better)? - ratio(worse)?)? * beta)?)?.neg()
    };
    let of_chosen = loss([|c| &c.chosen_high, |c| &c.chosen_low])?;
    let of_rejected = loss([|c| &c.rejected_low, |c| &c.rejected_high])?;
    mean(&(((of_chosen + of_rejected)? * coefficient)? + loss([|c| &c.chosen, |c| &c.rejected])?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, check_gradients, gradients, vector};

    fn confident(values: &[Tensor]) -> Confident {
        let [chosen_high, chosen_low, rejected_high, rejected_low, chosen, rejected] = std::array::from_fn(|i| values[i].clone());
        Confident { chosen_high, chosen_low, rejected_high, rejected_low, chosen, rejected }
    }

    fn values() -> Vec<Tensor> {
        (0..6).map(|i| vector(&[0.3 * f64::from(i) - 1.0, f64::from(i * i % 5) - 2.0])).collect()
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for comparison in [Comparison::Base, Comparison::Combined, Comparison::Cross] {
            check_gradients(&values(), 1e-7, |x| calibrated_reward(&confident(x), comparison));
        }
        let reference = confident(&values().into_iter().rev().collect::<Vec<_>>());
        check_gradients(&values(), 1e-7, |x| calibrated_dpo(&confident(x), &reference, 0.4, 0.7));
    }

    #[test]
    fn equal_rewards_cost_ln_2_a_comparison() {
        let zeros = vec![vector(&[0.0]); 6];
        let costs = [Comparison::Base, Comparison::Combined, Comparison::Cross]
            .map(|comparison| gradients(&zeros, |x| calibrated_reward(&confident(x), comparison)).unwrap().0 / 2f64.ln());
        assert_close(&costs, &[2.0, 3.0, 3.0]);
    }

    #[test]
    fn values_far_apart_have_finite_losses() {
        let far: Vec<Tensor> = (0..6).map(|i| vector(&[if i % 2 == 0 { -1e4 } else { 1e4 }])).collect();
        assert_finite(&far, |x| calibrated_reward(&confident(x), Comparison::Cross));
        let reference = confident(&vec![vector(&[0.0]); 6]);
        assert_finite(&far, |x| calibrated_dpo(&confident(x), &reference, 1.0, 1.0));
    }
}
