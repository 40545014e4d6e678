//! Fine-tuning on the best completions with a prior to the start model.
//!
//! Reference: Mukobi et al. 2023, "SuperHF: Supervised Iterative Learning from Human Feedback".

use candle_core::{D, Tensor};

use crate::kl::divergence;
use crate::rectify::positive_part;
use crate::softmax::log_softmax;

/// Which way the divergence goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// KL(reference ‖ policy), forward.
    #[default]
    RefPolicy,
    /// KL(policy ‖ reference), reverse.
    PolicyRef,
}

/// How samples' divergences become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregate {
    /// Their sum, as released: the prior's weight then grows with the batch.
    #[default]
    Sum,
    /// Their mean over the batch.
    Mean,
}

/// Constants of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Weight of the divergence.
    pub kl_coefficient: f64,
    /// Its direction.
    pub direction: Direction,
    /// How samples' divergences become one.
    pub aggregate: Aggregate,
    /// c of the term `c / nll` against collapse to completions of low entropy; 0 leaves it out.
    pub inverse_loss_penalty: f64,
}

/// Parts of [`superhf`].
#[derive(Clone, Debug)]
pub struct SuperHf {
    /// `nll + kl_coefficient · KL + c / nll`, `[]`.
    pub loss: Tensor,
    /// Mean negative log-likelihood of all unmasked tokens of the batch, `[]`.
    pub nll: Tensor,
    /// Mean divergence over each sample's tokens, floored at 0, `[B]`; 0 without tokens.
    pub kl: Tensor,
}

/// Cross-entropy of kept completions plus a divergence over the whole vocabulary.
///
/// # Shapes
/// - `logits`, `ref_logits`: `[B, T, V]`, aligned with the targets (already shifted). Gradient flows to the first.
/// - `targets`: `[B, T]` u32, below V where masked too. `mask`: `[B, T]` of the logits' dtype.
pub fn superhf(
    logits: &Tensor,
    ref_logits: &Tensor,
    targets: &Tensor,
    mask: &Tensor,
    settings: Settings,
) -> candle_core::Result<SuperHf> {
    let (policy, reference) = (log_softmax(logits)?, log_softmax(&ref_logits.detach())?);
    let logprobs = policy.gather(&targets.unsqueeze(2)?, 2)?.squeeze(2)?;
    let tokens = mask.sum_all()?.maximum(1.0)?;
    let nll = (logprobs * mask)?.sum_all()?.neg()?.div(&tokens)?;
    let by_token = match settings.direction {
        Direction::RefPolicy => divergence(&reference, &policy)?,
        Direction::PolicyRef => divergence(&policy, &reference)?,
    };
    // A divergence is not negative; rounding can make it so, and then its gradient is noise.
    let kl = ((by_token * mask)?.sum(D::Minus1)? / mask.sum(D::Minus1)?.maximum(1.0)?)?;
    let kl = positive_part(&kl)?;
    let prior = match settings.aggregate {
        Aggregate::Sum => kl.sum_all()?,
        Aggregate::Mean => kl.mean_all()?,
    };
    let mut loss = (&nll + (prior * settings.kl_coefficient)?)?;
    let likelihood = nll.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
    if settings.inverse_loss_penalty != 0.0 && likelihood > 0.0 {
        loss = (loss + (nll.recip()? * settings.inverse_loss_penalty)?)?;
    }
    Ok(SuperHf { loss, nll, kl })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::testing::{assert_finite, assert_float32_agrees, check_gradients, gradients, matrix, numbers};

    const ALL: [Settings; 4] = [
        Settings { kl_coefficient: 0.35, direction: Direction::RefPolicy, aggregate: Aggregate::Sum, inverse_loss_penalty: 0.0 },
        Settings { kl_coefficient: 0.35, direction: Direction::PolicyRef, aggregate: Aggregate::Mean, inverse_loss_penalty: 0.1 },
        Settings { kl_coefficient: 0.0, direction: Direction::RefPolicy, aggregate: Aggregate::Sum, inverse_loss_penalty: 0.1 },
        Settings { kl_coefficient: 1.0, direction: Direction::RefPolicy, aggregate: Aggregate::Mean, inverse_loss_penalty: 0.0 },
    ];

    fn logits(scale: f64) -> Tensor {
        let values: Vec<f64> = (0..18).map(|i| scale * f64::from((i * 7) % 11 - 5)).collect();
        Tensor::from_vec(values, (2, 3, 3), &Device::Cpu).unwrap()
    }

    fn batch() -> (Tensor, Tensor, Tensor) {
        let reference = (logits(0.1).flip(&[0]).unwrap() + 0.2).unwrap();
        let targets = Tensor::new(&[[0u32, 2, 1], [1, 0, 0]], &Device::Cpu).unwrap();
        (reference, targets, matrix([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]))
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (reference, targets, mask) = batch();
        for settings in ALL {
            check_gradients(&[logits(0.2)], 1e-8, |l| Ok(superhf(&l[0], &reference, &targets, &mask, settings)?.loss));
        }
    }

    #[test]
    fn masked_tokens_have_no_gradient_and_samples_without_tokens_no_divergence() {
        let (reference, targets, mask) = batch();
        let graph = |l: &[Tensor]| Ok(superhf(&l[0], &reference, &targets, &mask, ALL[0])?.loss);
        let (_, gradient) = gradients(&[logits(0.2)], graph).unwrap();
        assert_eq!(gradient[0][12..], [0.0; 6]);
        let empty = mask.zeros_like().unwrap();
        for settings in ALL {
            let parts = superhf(&logits(0.2), &reference, &targets, &empty, settings).unwrap();
            assert_eq!(numbers(&parts.kl), [0.0, 0.0]);
            let value = assert_finite(&[logits(0.2)], |l| Ok(superhf(&l[0], &reference, &targets, &empty, settings)?.loss));
            assert_eq!(value, 0.0);
        }
    }

    #[test]
    fn policy_equal_to_its_reference_diverges_by_nothing() {
        let (_, targets, mask) = batch();
        let parts = superhf(&logits(0.2), &logits(0.2), &targets, &mask, ALL[0]).unwrap();
        assert!(numbers(&parts.kl).iter().all(|kl| kl.abs() < 1e-15));
    }

    #[test]
    fn float32_agrees() {
        let (reference, targets, mask) = batch();
        for settings in ALL {
            let leaves = [logits(0.2), reference.clone(), mask.clone()];
            assert_float32_agrees(&leaves, |l| Ok(superhf(&l[0], &l[1], &targets, &l[2], settings)?.loss));
        }
    }

    #[test]
    fn extreme_logits_have_finite_losses_and_gradients() {
        let (reference, targets, mask) = batch();
        for settings in ALL {
            assert_finite(&[logits(1e3)], |l| Ok(superhf(&l[0], &reference, &targets, &mask, settings)?.loss));
        }
    }
}
