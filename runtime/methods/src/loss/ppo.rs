//! Proximal policy optimization: the clipped losses of policy and critic, and targets for the entropy.
//!
//! Reference: Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equation 7; the clipped value loss as in the public baselines.

use candle_core::Tensor;

/// A loss, and what is reported of it.
#[derive(Clone, Debug)]
pub struct Clipped {
    /// The loss, `[]`.
    pub loss: Tensor,
    /// Share of the tokens that count whose clipped term is the larger one; 0 without such tokens.
    pub clip_fraction: f64,
    /// Share of them whose ratio is beyond the bounds, whatever that does to the loss; 0 without bounds, and for values.
    pub outside: f64,
    /// Mean of `ratio - 1 - ln ratio` over them, an estimate of KL(old ‖ policy), nats; 0 for values.
    pub approx_kl: f64,
}

/// Mean of `max(-A ratio, -A clamp(ratio, 1 - clip, 1 + clip))` over the tokens that count; 0 without any.
///
/// # Shapes
/// - `logprobs`, `old`, `advantages`, `mask`: `[M]` or `[B, T]`, one dtype; log-probabilities in nats, the mask 1 on tokens that count. Gradient flows to
///   `logprobs`; where both terms are equal it is that of the unclipped one.
/// - `clip`: None takes ratios as they are.
pub fn policy_loss(
    logprobs: &Tensor,
    old: &Tensor,
    advantages: &Tensor,
    mask: &Tensor,
    clip: Option<f64>,
) -> candle_core::Result<Clipped> {
    let seen = mask.ne(0.0)?;
    // Chosen before the exponential: what is masked may be anything, and infinity times 0 is no number.
    let log_ratio = seen.where_cond(&(logprobs - old)?, &logprobs.zeros_like()?)?;
    let ratio = log_ratio.exp()?;
    let plain = (&ratio * advantages)?.neg()?;
    let clamped = match clip {
        Some(clip) => (ratio.clamp(1.0 - clip, 1.0 + clip)? * advantages)?.neg()?,
        None => plain.detach(),
    };
    let larger = clamped.gt(&plain)?;
    let divergence = ((ratio.detach() - 1.0)? - log_ratio.detach())?;
    let clipped = summed(&larger.where_cond(&clamped, &plain)?, &larger, Some(&divergence), mask)?;
    let outside = match clip {
        Some(clip) => mean_where(&(ratio.detach() - 1.0)?.abs()?.gt(clip)?, mask)?,
        None => 0.0,
    };
    Ok(Clipped { outside, ..clipped })
}

/// Half the mean of `max((V - R)², (clamp(V, old ± clip) - R)²)` over the tokens that count; 0 without any.
///
/// # Shapes
/// - `values`, `old`, `returns`, `mask`: `[M]` or `[B, T]`, one dtype; gradient flows to `values`.
pub fn value_loss(
    values: &Tensor,
    old: &Tensor,
    returns: &Tensor,
    mask: &Tensor,
    clip: Option<f64>,
) -> candle_core::Result<Clipped> {
    let plain = (values - returns)?.sqr()?;
    let clamped = match clip {
        Some(clip) => ((old + (values - old)?.clamp(-clip, clip)?)? - returns)?.sqr()?,
        None => plain.detach(),
    };
    let larger = clamped.gt(&plain)?;
    let clipped = summed(&larger.where_cond(&clamped, &plain)?, &larger, None, mask)?;
    Ok(Clipped { loss: (clipped.loss * 0.5)?, ..clipped })
}

fn summed(losses: &Tensor, larger: &Tensor, divergence: Option<&Tensor>, mask: &Tensor) -> candle_core::Result<Clipped> {
    let count = mask.sum_all()?.maximum(1.0)?;
    let mean = |x: &Tensor| (x * mask)?.sum_all()?.div(&count);
    let number = |x: &Tensor| mean(x)?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>();
    Ok(Clipped {
        loss: mean(losses)?,
        clip_fraction: mean_where(larger, mask)?,
        outside: 0.0,
        approx_kl: divergence.map_or(Ok(0.0), number)?,
    })
}

/// Share of the tokens that count for which something holds; 0 without such tokens.
fn mean_where(holds: &Tensor, mask: &Tensor) -> candle_core::Result<f64> {
    let share = (holds.to_dtype(mask.dtype())? * mask)?.sum_all()?.div(&mask.sum_all()?.maximum(1.0)?)?;
    share.to_dtype(candle_core::DType::F64)?.to_scalar()
}

/// `|mean entropy - target|` over the tokens that count, nats: keeps a policy from collapsing or dissolving. 0 without tokens.
///
/// Returns the mean entropy, 0 without tokens, and the loss, `[]` each; gradient flows to the entropies.
pub fn entropy_target(entropies: &Tensor, mask: &Tensor, target: f64) -> candle_core::Result<(Tensor, Tensor)> {
    let count = mask.sum_all()?;
    let any = count.ne(0.0)?.to_dtype(mask.dtype())?;
    let mean = (entropies * mask)?.sum_all()?.div(&count.maximum(1.0)?)?;
    Ok((mean.clone(), ((mean - target)?.abs()? * any)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, check_gradients, gradients, vector};

    fn old() -> Tensor {
        vector(&[-1.0, -1.0, -2.0, -0.5, -3.0])
    }

    fn advantages() -> Tensor {
        vector(&[1.0, -2.0, 0.5, -1.0, 4.0])
    }

    fn mask() -> Tensor {
        vector(&[1.0, 1.0, 1.0, 1.0, 0.0])
    }

    #[test]
    fn ratios_are_clipped_where_that_is_worse_for_the_policy() {
        // Ratios e^0.5 (clipped, A > 0), e^0.5 (kept, A < 0), 1, e^-0.5 (clipped, A < 0).
        let leaf = [vector(&[-0.5, -0.5, -2.0, -1.0, -9.0])];
        let got = policy_loss(&leaf[0], &old(), &advantages(), &mask(), Some(0.2)).unwrap();
        let want = (-1.2 + 2.0 * 0.5f64.exp() - 0.5 + 0.8) / 4.0;
        assert_close(&[got.loss.to_scalar().unwrap(), got.clip_fraction, got.outside], &[want, 0.5, 0.75]);
        let (_, gradient) =
            gradients(&leaf, |l| Ok(policy_loss(&l[0], &old(), &advantages(), &mask(), Some(0.2))?.loss)).unwrap();
        assert_close(&gradient[0], &[0.0, 2.0 * 0.5f64.exp() / 4.0, -0.125, 0.0, 0.0]);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let leaf = [vector(&[-0.5, -0.6, -2.05, -0.45, -9.0])];
        for clip in [Some(0.2), None] {
            check_gradients(&leaf, 1e-7, |l| Ok(policy_loss(&l[0], &old(), &advantages(), &mask(), clip)?.loss));
            check_gradients(&leaf, 1e-7, |v| Ok(value_loss(&v[0], &old(), &advantages(), &mask(), clip)?.loss));
        }
        check_gradients(&leaf, 1e-7, |h| Ok(entropy_target(&h[0], &mask(), 0.3)?.1));
    }

    #[test]
    fn nothing_that_counts_is_no_loss() {
        let none = mask().zeros_like().unwrap();
        let wild = vector(&[f64::NEG_INFINITY, -1e6, 0.0, 1e6, -3.0]);
        let policy = policy_loss(&wild, &old(), &advantages(), &none, Some(0.2)).unwrap();
        assert_eq!((policy.loss.to_scalar::<f64>().unwrap(), policy.clip_fraction, policy.approx_kl), (0.0, 0.0, 0.0));
        assert_eq!(value_loss(&old(), &old(), &advantages(), &none, None).unwrap().loss.to_scalar::<f64>().unwrap(), 0.0);
        assert_eq!(entropy_target(&old(), &none, 3.0).unwrap().1.to_scalar::<f64>().unwrap(), 0.0);
    }

    #[test]
    fn policies_far_from_the_old_one_have_finite_losses() {
        assert_finite(&[vector(&[-500.0, -300.0, -90.0, -60.0, -3.0])], |l| {
            Ok(policy_loss(&l[0], &old(), &advantages(), &mask(), Some(0.2))?.loss)
        });
    }

    #[test]
    fn values_may_not_improve_by_leaving_the_bounds() {
        // V moves from 0 to 2 towards 3: at most to 0.5, where the error is larger.
        let got = value_loss(&vector(&[2.0]), &vector(&[0.0]), &vector(&[3.0]), &vector(&[1.0]), Some(0.5)).unwrap();
        assert_close(&[got.loss.to_scalar().unwrap(), got.clip_fraction], &[3.125, 1.0]);
    }
}
