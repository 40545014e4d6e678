//! SteerLM 2.0: a policy conditioned on attributes, from samples of the one before it.
//!
//! Reference: Wang et al. 2024, "HelpSteer2", section 4.3.

use candle_core::Tensor;

use crate::softmax::{log_softmax, softmax};

/// Log-probabilities of a group's samples, nats, `[samples]` each; the policy's alone has a gradient.
#[derive(Clone, Debug)]
pub struct Group {
    /// Of the wanted attributes given the sample.
    pub attributes: Tensor,
    /// Of the sample under the model without attributes.
    pub sft: Tensor,
    /// Under the policy that it was drawn from.
    pub proposal: Tensor,
    /// Under the policy that is trained.
    pub policy: Tensor,
}

/// Weights of a group's samples, `[samples]` each, without gradient.
#[derive(Clone, Debug)]
pub struct Weights {
    /// `softmax(ln P(a|x,y) + ln P(y|x) - ln Q'(y|a,x))`: what the target makes of the samples.
    pub target: Tensor,
    /// `softmax(ln Q(y|a,x) - ln Q'(y|a,x))`: what the policy makes of them.
    pub baseline: Tensor,
}

/// Self-normalized importance weights of a group.
pub fn weights(group: &Group) -> candle_core::Result<Weights> {
    let target = softmax(&((&group.attributes + &group.sft)? - &group.proposal)?.detach())?;
    let baseline = softmax(&(&group.policy - &group.proposal)?.detach())?;
    Ok(Weights { target, baseline })
}

/// KL(target ‖ baseline) of a group, nats, `[]`. Its gradient by the policy is `-(target - baseline)`, the one of the paper.
pub fn divergence(group: &Group) -> candle_core::Result<Tensor> {
    let target = weights(group)?.target;
    let log_target = log_softmax(&((&group.attributes + &group.sft)? - &group.proposal)?.detach())?;
    let log_baseline = log_softmax(&(&group.policy - &group.proposal)?)?;
    (target * (log_target - log_baseline)?)?.sum_all()
}

/// `-Σ (target - baseline) · ln Q / mean length`, `[]`: what is minimized. Its value says little; [`divergence`] is watched instead.
pub fn policy_loss(group: &Group, lengths: &[usize]) -> candle_core::Result<Tensor> {
    let Weights { target, baseline } = weights(group)?;
    let mean_length = lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
    ((baseline - target)? * &group.policy)?.sum_all()? / mean_length.max(1.0)
}

/// `Σ (w + e) ln((w + e) / (b + e))` with e = 1e-8: the smoothed divergence that is logged.
pub fn smoothed_distance(target: &[f64], baseline: &[f64]) -> f64 {
    const SMOOTHING: f64 = 1e-8;
    let term = |(w, b): (&f64, &f64)| (w + SMOOTHING) * ((w + SMOOTHING) / (b + SMOOTHING)).ln();
    target.iter().zip(baseline).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, check_gradients, gradients, numbers, vector};

    fn group(policy: &Tensor) -> Group {
        let (attributes, sft) = (vector(&[-4.0, -2.0, -1.0]), vector(&[-12.0, -13.0, -13.5]));
        Group { attributes, sft, proposal: vector(&[-12.5, -11.0, -12.0]), policy: policy.clone() }
    }

    #[test]
    fn gradient_is_the_difference_of_the_weights() {
        let policy = vector(&[-11.0, -11.5, -12.0]);
        let (_, gradient) = gradients(std::slice::from_ref(&policy), |x| divergence(&group(&x[0]))).unwrap();
        let weights = weights(&group(&policy)).unwrap();
        let want: Vec<f64> = numbers(&weights.baseline).iter().zip(numbers(&weights.target)).map(|(b, w)| b - w).collect();
        assert_close(&gradient[0], &want);
        let (_, of_loss) = gradients(std::slice::from_ref(&policy), |x| policy_loss(&group(&x[0]), &[2, 4, 6])).unwrap();
        assert_close(&of_loss[0], &want.iter().map(|x| x / 4.0).collect::<Vec<_>>());
        check_gradients(&[policy], 1e-7, |x| divergence(&group(&x[0])));
    }

    #[test]
    fn single_sample_teaches_nothing_and_far_ones_stay_finite() {
        let alone = |x: &Tensor| Group {
            attributes: vector(&[-1.0]),
            sft: vector(&[-2.0]),
            proposal: vector(&[-3.0]),
            policy: x.clone(),
        };
        assert_eq!(gradients(&[vector(&[-4.0])], |x| divergence(&alone(&x[0]))).unwrap(), (0.0, vec![vec![0.0]]));
        assert_finite(&[vector(&[-1e4, 0.0, -1e3])], |x| divergence(&group(&x[0])));
    }
}
