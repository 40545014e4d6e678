//! Preference losses without a reference: SimPO (Meng et al. 2024, equation 6), CPO (Xu et al. 2024, equation 3) and AlphaPO
//! (Gupta et al. 2025), as in TRL 1.16. `hinge` and `ipo` without a reference are [`super::dpo::dpo`] with `reference_free`.

use candle_core::Tensor;

use super::dpo::PairLogps;
use super::log_sigmoid;

/// Largest exponent of a probability that is divided by; its square stays finite in float32.
const MAX_EXPONENT: f64 = 40.0;

/// Constants of [`simpo`]. CPO is `gamma` 0 over sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimPo {
    /// Scale of the log-probabilities: 2 to 2.5 for means over tokens, 0.1 for sums.
    pub beta: f64,
    /// What the chosen answer must be ahead, in units of the scaled log-probabilities; 0 asks for nothing.
    pub gamma: f64,
    /// Share of the pairs whose labels are taken to be wrong.
    pub label_smoothing: f64,
    /// Shape of AlphaPO's reward (1 - p^-alpha) / alpha; 0 is its limit ln p.
    pub alpha: f64,
}

// ANCHOR: formula
/// `-(1 - e) ln σ(z) - e ln σ(-z)` with `z = beta (reward_chosen - reward_rejected) - gamma` of each pair, `[P]`.
///
/// A step's loss is its mean, plus CPO's alpha times the negative log-likelihood of the chosen answers ([`super::sft::sft`]).
///
/// # Shapes
/// - `logps`: `[P]` each, nats: means over tokens for SimPO and AlphaPO, sums for CPO. Gradient flows to them.
pub fn simpo(logps: &PairLogps, settings: SimPo) -> candle_core::Result<Tensor> {
    let reward = |logps: &Tensor| reward(logps, settings.alpha);
    let margin = (reward(&logps.chosen)? - reward(&logps.rejected)?)?;
    let z = ((margin * settings.beta)? - settings.gamma)?;
    let e = settings.label_smoothing;
    (log_sigmoid(&z)? * (e - 1.0))? - (log_sigmoid(&z.neg()?)? * e)?
}
// ANCHOR_END: formula

/// (1 - p^-alpha) / alpha of log-probabilities, without overflow.
fn reward(logps: &Tensor, alpha: f64) -> candle_core::Result<Tensor> {
    if alpha == 0.0 {
        return Ok(logps.clone());
    }
    (1.0 - (logps * -alpha)?.minimum(MAX_EXPONENT)?.exp()?)? / alpha
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;
    use crate::testing::{assert_close, assert_finite, check_gradients, numbers, vector};

    const SIMPO: SimPo = SimPo { beta: 2.0, gamma: 0.5, label_smoothing: 0.1, alpha: 0.0 };

    fn pair(leaves: &[Tensor]) -> PairLogps {
        PairLogps { chosen: leaves[0].clone(), rejected: leaves[1].clone() }
    }

    #[test]
    fn losses_match_the_formula_by_hand() {
        let logps = [vector(&[-1.0]), vector(&[-1.4])];
        let value = |settings| numbers(&simpo(&pair(&logps), settings).unwrap());
        let smoothed = |z: f64| -0.9 * stats::log_sigmoid(z) - 0.1 * stats::log_sigmoid(-z);
        assert_close(&value(SIMPO), &[smoothed(2.0 * 0.4 - 0.5)]);
        let rewards = [-1.0f64, -1.4].map(|logp| (1.0 - logp.exp().powf(-0.25)) / 0.25);
        assert_close(&value(SimPo { alpha: 0.25, ..SIMPO }), &[smoothed(2.0 * (rewards[0] - rewards[1]) - 0.5)]);
        let (limit, near) = (value(SIMPO)[0], value(SimPo { alpha: 1e-7, ..SIMPO })[0]);
        assert!((limit - near).abs() < 1e-6, "{limit} is the limit of {near}");
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for alpha in [0.0, 0.25, -0.5] {
            let leaves = [vector(&[-0.7, -2.0, -0.1]), vector(&[-1.3, -0.4, -3.0])];
            let graph = |leaves: &[Tensor]| simpo(&pair(leaves), SimPo { alpha, ..SIMPO })?.mean_all();
            assert!(check_gradients(&leaves, 1e-8, graph)[0].iter().all(|g| g.abs() > 1e-4), "{alpha}");
        }
    }

    #[test]
    fn hopeless_pairs_have_finite_losses() {
        for alpha in [0.0, 0.25] {
            for far in [-1e4, 1e4] {
                let graph = |leaves: &[Tensor]| simpo(&pair(leaves), SimPo { alpha, ..SIMPO })?.sum_all();
                assert_finite(&[vector(&[far]), vector(&[-far])], graph);
            }
        }
    }
}
