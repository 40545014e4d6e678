//! What replaces the reverse KL divergence in direct preference optimization, and weights of pairs by how on-policy they are.
//! f-DPO (Wang et al. 2024) and WPO (Zhou et al. 2024, equation 2), as in TRL 1.16.

use candle_core::{Tensor, bail};
use plumb_core::recipe::Dpo;

use super::dpo::{PairLogps, dpo};
use super::log_sigmoid;

/// Largest exponent of a ratio; the square of its exponential stays finite in float32.
const MAX_EXPONENT: f64 = 40.0;

/// Divergence D_f from the reference, by the derivative of its generator at the ratio u = policy / reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// f'(u) = ln u: plain DPO.
    ReverseKl,
    /// f'(u) = 1 - 1/u.
    ForwardKl,
    /// f'(u) = ln(2u / (u + 1)).
    JensenShannon,
    /// f'(u) = (u^(alpha - 1) - 1) / (alpha - 1): forward KL at 0 (up to a constant), reverse KL at 1.
    Alpha(f64),
}

impl Divergence {
    /// f'(u) of log-ratios ln u, any shape; gradient flows through. Ratios beyond e^40 (or its inverse, by the divergence) are cut
    /// there and have no gradient.
    pub fn score(self, log_ratios: &Tensor) -> candle_core::Result<Tensor> {
        let power = |of: f64| (log_ratios * of)?.minimum(MAX_EXPONENT)?.exp();
        match self {
            Divergence::ReverseKl => Ok(log_ratios.clone()),
            Divergence::ForwardKl => 1.0 - power(-1.0)?,
            Divergence::JensenShannon => log_sigmoid(log_ratios)? + std::f64::consts::LN_2,
            // The limit: the quotient has no digits left.
            Divergence::Alpha(alpha) if (alpha - 1.0).abs() < 1e-6 => Ok(log_ratios.clone()),
            Divergence::Alpha(alpha) => (power(alpha - 1.0)? - 1.0)? / (alpha - 1.0),
        }
    }
}

/// Loss of each pair, `[P]`, with the divergence's scores in place of the log-ratios; shapes as in [`dpo`].
///
/// # Errors
/// Those of [`dpo`]; another divergence than the reverse KL with a loss that is not of the difference of a pair's rewards, from which
/// the partition function does not vanish.
pub fn f_dpo(
    policy: &PairLogps,
    reference: Option<&PairLogps>,
    divergence: Divergence,
    settings: &Dpo,
) -> candle_core::Result<Tensor> {
    if divergence == Divergence::ReverseKl {
        return dpo(policy, reference, settings);
    }
    if !settings.loss_type.is_of_differences() {
        bail!("a loss of single answers' rewards needs the reverse KL divergence");
    }
    let reference = reference.filter(|_| !settings.reference_free);
    let score = |policy: &Tensor, reference: Option<&Tensor>| {
        divergence.score(&reference.map_or_else(|| Ok(policy.clone()), |reference| policy - reference)?)
    };
    let scores = PairLogps {
        chosen: score(&policy.chosen, reference.map(|pairs| &pairs.chosen))?,
        rejected: score(&policy.rejected, reference.map(|pairs| &pairs.rejected))?,
    };
    dpo(&scores, None, settings)
}

/// Weight of an answer by how likely the policy is to write it, without gradient: e to the mean of `logprob_t - ln Σ_v p_v²`, which
/// is 1 for an answer that is as likely as what the policy samples. A pair's loss is multiplied by both its answers'. No token: 1.
///
/// `logprobs` of the answer's tokens and `collision`, ln Σ_v p_v² of the policy's distribution at each of them, nats.
///
/// # Panics
/// When the lists have different lengths.
pub fn on_policy_weight(logprobs: &[f64], collision: &[f64]) -> f64 {
    assert_eq!(logprobs.len(), collision.len(), "each token needs both numbers");
    let sum: f64 = logprobs.iter().zip(collision).map(|(logprob, collision)| logprob - collision).sum();
    (sum / logprobs.len().max(1) as f64).exp()
}

#[cfg(test)]
mod tests {
    use plumb_core::recipe::DpoLoss;

    use super::*;
    use crate::testing::{assert_close, assert_finite, check_gradients, numbers, vector};

    const ALL: [Divergence; 5] =
        [Divergence::ReverseKl, Divergence::ForwardKl, Divergence::JensenShannon, Divergence::Alpha(0.5), Divergence::Alpha(1.0)];

    fn loss(divergence: Divergence, loss_type: DpoLoss) -> impl Fn(&[Tensor]) -> candle_core::Result<Tensor> {
        move |leaves| {
            let half = |all: &Tensor| -> candle_core::Result<PairLogps> {
                let pairs = all.dim(0)? / 2;
                Ok(PairLogps { chosen: all.narrow(0, 0, pairs)?, rejected: all.narrow(0, pairs, pairs)? })
            };
            let reference = half(&vector(&[-5.0, -3.0, -4.0, -2.0]))?;
            let settings = Dpo { loss_type, beta: 0.3, label_smoothing: 0.1, ..Dpo::default() };
            f_dpo(&half(&leaves[0])?, Some(&reference), divergence, &settings)?.mean_all()
        }
    }

    #[test]
    fn scores_match_the_generators_derivatives_by_hand() {
        let u = 1.7f64;
        let score = |divergence: Divergence| numbers(&divergence.score(&vector(&[u.ln()])).unwrap())[0];
        let want = [u.ln(), 1.0 - 1.0 / u, (2.0 * u / (u + 1.0)).ln(), (u.sqrt().recip() - 1.0) / -0.5, u.ln()];
        assert_close(&ALL.map(score), &want);
        assert_close(&[score(Divergence::Alpha(0.0))], &[1.0 - 1.0 / u]);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for divergence in ALL {
            for loss_type in [DpoLoss::Sigmoid, DpoLoss::Ipo] {
                let gradients = check_gradients(&[vector(&[-4.5, -3.5, -4.1, -1.0])], 1e-8, loss(divergence, loss_type));
                assert!(gradients[0].iter().all(|g| g.abs() > 1e-4), "{divergence:?}: {gradients:?}");
            }
        }
    }

    #[test]
    fn answers_far_from_the_reference_have_finite_losses() {
        for divergence in ALL {
            for far in [-1e4, 1e4] {
                assert_finite(&[vector(&[far, far, -far, far])], loss(divergence, DpoLoss::Sigmoid));
            }
        }
    }

    #[test]
    fn losses_of_single_answers_are_refused() {
        let leaves = [vector(&[-4.5, -3.5, -4.1, -1.0])];
        assert!(loss(Divergence::JensenShannon, DpoLoss::BcoPair)(&leaves).is_err());
        assert!(loss(Divergence::ReverseKl, DpoLoss::BcoPair)(&leaves).is_ok());
    }

    #[test]
    fn weights_are_one_where_tokens_are_as_likely_as_samples() {
        let collision = (0.5f64 * 0.5 + 0.5 * 0.5).ln();
        assert_close(&[on_policy_weight(&[0.5f64.ln(); 3], &[collision; 3])], &[1.0]);
        assert_close(&[on_policy_weight(&[0.1f64.ln(), 0.4f64.ln()], &[collision; 2])], &[0.2 * 2.0]);
        assert_eq!(on_policy_weight(&[], &[]), 1.0);
    }
}
