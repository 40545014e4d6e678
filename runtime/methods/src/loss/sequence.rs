//! Likelihood of whole answers: how a batch of padded sequences is averaged.
//!
//! Reference for the two mappings: Zhou et al. 2024, "Sequence to Sequence Reward Modeling".

use candle_core::Tensor;

/// What a sum over tokens is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Unmasked tokens of the batch: long answers count more.
    #[default]
    TokenMean,
    /// Sequences of the batch, those without tokens included: each counts as the sum over its tokens.
    SequenceMean,
    /// First a sequence's tokens, then the sequences that have any: long and short answers count alike.
    MeanOfMeans,
}

/// Negative log-likelihood of the unmasked tokens, a `[]` scalar; 0 where all are masked.
///
/// # Shapes
/// - `logprobs`: `[B, T]`, nats; gradient flows to them. `mask`: `[B, T]` of the same dtype, 1 on the answer's tokens.
pub fn negative_log_likelihood(logprobs: &Tensor, mask: &Tensor, reduction: Reduction) -> candle_core::Result<Tensor> {
    reduce(logprobs, mask, reduction)?.neg()
}

/// Mean of the unmasked tokens' values by `reduction`, a `[]` scalar; 0 where all are masked. Shapes as in [`negative_log_likelihood`].
pub fn reduce(values: &Tensor, mask: &Tensor, reduction: Reduction) -> candle_core::Result<Tensor> {
    let divisor = match reduction {
        Reduction::TokenMean => mask.sum_all()?.maximum(1.0)?,
        Reduction::SequenceMean => Tensor::new(mask.dim(0)?.max(1) as f64, mask.device())?.to_dtype(mask.dtype())?,
        Reduction::MeanOfMeans => {
            let tokens = mask.sum_keepdim(1)?;
            let sequences = tokens.ne(0.0)?.to_dtype(mask.dtype())?.sum_all()?.maximum(1.0)?;
            tokens.maximum(1.0)?.broadcast_mul(&sequences)?
        }
    };
    // Chosen and not multiplied: a masked token may be impossible, and 0 times minus infinity is no number.
    let values = mask.ne(0.0)?.where_cond(values, &values.zeros_like()?)?;
    (values * mask.broadcast_div(&divisor)?)?.sum_all()
}

/// Parts of a sequence-to-sequence reward model's loss.
#[derive(Clone, Debug)]
pub struct MappingLoss {
    /// `correction + identity_weight · identity`, `[]`.
    pub loss: Tensor,
    /// Of writing the better answer, given the worse one, `[]`.
    pub correction: Tensor,
    /// Of writing the better answer, given itself, `[]`.
    pub identity: Tensor,
}

/// Loss of a reward model that writes the better answer: the two mappings are averaged apart.
///
/// Each mapping is `(logprobs, mask)` as in [`negative_log_likelihood`].
pub fn sequence_mapping(
    correction: (&Tensor, &Tensor),
    identity: (&Tensor, &Tensor),
    identity_weight: f64,
    reduction: Reduction,
) -> candle_core::Result<MappingLoss> {
    let correction = negative_log_likelihood(correction.0, correction.1, reduction)?;
    let identity = negative_log_likelihood(identity.0, identity.1, reduction)?;
    let loss = (&correction + (&identity * identity_weight)?)?;
    Ok(MappingLoss { loss, correction, identity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_float32_agrees, check_gradients, gradients, matrix};

    fn logprobs() -> Tensor {
        matrix([[-1.0, -2.0, f64::NEG_INFINITY], [-4.0, -50.0, f64::NEG_INFINITY]])
    }

    fn mask() -> Tensor {
        matrix([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    }

    #[test]
    fn reductions_divide_by_tokens_or_by_sequences() {
        let value = |reduction| negative_log_likelihood(&logprobs(), &mask(), reduction).unwrap().to_scalar().unwrap();
        assert_close(&[value(Reduction::TokenMean), value(Reduction::SequenceMean)], &[7.0 / 3.0, 3.5]);
        assert_close(&[value(Reduction::MeanOfMeans)], &[2.75]);
    }

    #[test]
    fn masked_tokens_have_no_gradient_and_batches_of_them_no_loss() {
        for reduction in [Reduction::TokenMean, Reduction::SequenceMean, Reduction::MeanOfMeans] {
            let of = |mask: Tensor| gradients(&[logprobs()], |l| negative_log_likelihood(&l[0], &mask, reduction)).unwrap();
            let (_, some) = of(mask());
            assert_eq!([some[0][2], some[0][4], some[0][5]], [0.0; 3]);
            assert_eq!(of(mask().zeros_like().unwrap()), (0.0, vec![vec![0.0; 6]]));
        }
    }

    #[test]
    fn gradients_of_both_mappings_agree_with_finite_differences() {
        let leaves = [matrix([[-1.0, -2.0, -50.0], [-4.0, -50.0, -9.0]]), matrix([[-3.0, -0.5]])];
        let other = matrix([[1.0, 1.0]]);
        check_gradients(&leaves, 1e-8, |l| {
            Ok(sequence_mapping((&l[0], &mask()), (&l[1], &other), 0.3, Reduction::TokenMean)?.loss)
        });
        let leaves = [leaves[0].clone(), mask()];
        assert_float32_agrees(&leaves, |l| negative_log_likelihood(&l[0], &l[1], Reduction::SequenceMean));
    }
}
