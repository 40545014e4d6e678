//! Preference losses with a term of likelihood that keeps the policy where data or its reference are.

use candle_core::Tensor;
use plumb_core::recipe::Dpo;

use super::dpo::{PairLogps, dpo};
use super::mean;

/// What is added to a pair's preference loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// Weight; what is below 1e-6 counts as 0.
    pub eta: f64,
    /// Whether DPO's beta is a factor too, as in the derivation, which is over sums of tokens. Weights over means have none.
    pub scaled_by_beta: bool,
}

/// Parts of each pair's loss, `[P]`; the loss is their sum.
#[derive(Clone, Debug)]
pub struct Rpo {
    /// Of the preference.
    pub dpo: Tensor,
    /// Weighted negative log-likelihood of the chosen answer. Label smoothing does not touch it.
    pub likelihood: Tensor,
}

/// DPO with the chosen answers' likelihood as adversarial regularizer: `dpo - eta (· beta) · ln π(chosen)`.
///
/// # Shapes
/// - `policy`, `reference`: as in [`dpo`].
/// - `chosen_logps`: `[P]`, sum or mean over the chosen answer's tokens under the policy, nats; gradient flows to them.
///
/// Reference: Liu et al. 2024, "Provably Mitigating Overoptimization in RLHF: Your SFT Loss is Implicitly an Adversarial Regularizer".
pub fn rpo(
    policy: &PairLogps,
    reference: &PairLogps,
    chosen_logps: &Tensor,
    settings: &Dpo,
    likelihood: Likelihood,
) -> candle_core::Result<Rpo> {
    let eta = if likelihood.eta < 1e-6 { 0.0 } else { likelihood.eta };
    let weight = if likelihood.scaled_by_beta { eta * settings.beta } else { eta };
    Ok(Rpo { dpo: dpo(policy, Some(reference), settings)?, likelihood: (chosen_logps * -weight)? })
}

/// Parts of a value-incentivized loss, `[]` each.
#[derive(Clone, Debug)]
pub struct Vpo {
    /// `nll - sign · alpha · value`.
    pub loss: Tensor,
    /// Mean DPO loss of the pairs; 0 without any.
    pub nll: Tensor,
    /// `-beta · mean(policy - reference)` over calibration answers: what the best policy is worth; 0 without any.
    pub value: Tensor,
}

/// Value-incentivized preference optimization (Cen et al. 2024): DPO with the policy's own value as optimism or pessimism.
///
/// # Shapes
/// - `policy`, `reference`: `[P]` each, sums over tokens, nats.
/// - `calibration`: `[C]` each, the policy's and the reference's of answers of a fixed policy. Gradient flows to all of the policy's.
///
/// `sign_alpha` above 0 is optimism, which pushes calibration answers down (online); below 0 pessimism, which pulls them up (offline).
pub fn vpo(
    policy: &PairLogps,
    reference: &PairLogps,
    calibration: [&Tensor; 2],
    beta: f64,
    sign_alpha: f64,
) -> candle_core::Result<Vpo> {
    let nll = mean(&dpo(policy, Some(reference), &Dpo { beta, ..Dpo::default() })?)?;
    let value = (mean(&(calibration[0] - calibration[1])?)? * -beta)?;
    Ok(Vpo { loss: (&nll - (&value * sign_alpha)?)?, nll, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::log_sigmoid;
    use crate::testing::{assert_close, assert_finite, check_gradients, gradients, numbers, vector};

    fn pairs(leaves: &[Tensor]) -> (PairLogps, PairLogps) {
        let reference = PairLogps { chosen: vector(&[-3.0, -2.0]), rejected: vector(&[-4.0, -1.0]) };
        (PairLogps { chosen: leaves[0].clone(), rejected: leaves[1].clone() }, reference)
    }

    fn leaves() -> [Tensor; 3] {
        [vector(&[-2.0, -1.5]), vector(&[-2.0, -4.0]), vector(&[-7.0, -3.0, -5.5])]
    }

    fn vpo_loss(leaves: &[Tensor], sign_alpha: f64) -> candle_core::Result<Tensor> {
        let (policy, reference) = pairs(leaves);
        Ok(vpo(&policy, &reference, [&leaves[2], &vector(&[-6.0, -4.0, -5.0])], 0.2, sign_alpha)?.loss)
    }

    #[test]
    fn likelihood_term_is_scaled_by_its_form_and_small_weights_vanish() {
        let (policy, reference) = pairs(&leaves());
        let settings = Dpo { beta: 0.2, ..Dpo::default() };
        let of = |eta, scaled_by_beta| {
            let parts = rpo(&policy, &reference, &policy.chosen, &settings, Likelihood { eta, scaled_by_beta }).unwrap();
            (numbers(&parts.dpo), numbers(&parts.likelihood))
        };
        assert_close(&of(0.5, true).1, &[0.2, 0.15]);
        assert_close(&of(0.5, false).1, &[1.0, 0.75]);
        assert_close(&of(1e-7, false).1, &[0.0, 0.0]);
        assert_close(&of(0.5, true).0, &[-log_sigmoid(-0.2), -log_sigmoid(0.7)]);
    }

    #[test]
    fn value_is_minus_beta_times_the_mean_log_ratio() {
        let (policy, reference) = pairs(&leaves());
        let parts = vpo(&policy, &reference, [&leaves()[2], &vector(&[-6.0, -4.0, -5.0])], 0.2, 0.5).unwrap();
        assert_close(&numbers(&parts.value), &[0.2 * 0.5 / 3.0]);
        assert_close(&numbers(&parts.loss), &[numbers(&parts.nll)[0] - 0.5 * numbers(&parts.value)[0]]);
    }

    #[test]
    fn optimism_pushes_calibration_answers_down_and_pessimism_pulls_them_up() {
        for sign_alpha in [0.5, -0.5] {
            let gradients = check_gradients(&leaves(), 1e-8, |leaves| vpo_loss(leaves, sign_alpha));
            assert!(gradients[2].iter().all(|g| (g * sign_alpha) > 0.0), "{gradients:?}");
        }
        assert_finite(&[vector(&[-1e4, 0.0]), vector(&[0.0, -1e4]), vector(&[0.0; 3])], |leaves| vpo_loss(leaves, 1.0));
    }

    #[test]
    fn empty_streams_add_nothing() {
        let none = || vector(&[]);
        let pair = || PairLogps { chosen: none(), rejected: none() };
        let graph = |leaves: &[Tensor]| Ok(vpo(&pair(), &pair(), [&leaves[0], &none()], 0.2, 1.0)?.loss);
        assert_eq!(gradients(&[none()], graph).unwrap(), (0.0, vec![vec![]]));
    }
}
