//! Auxiliary heads that name a class, such as how far a text was degraded (Li et al. 2024, "Self-supervised Preference Optimization").

use candle_core::Tensor;

use super::distillation::label_logprobs;
use super::sequence::{Reduction, negative_log_likelihood};
use crate::stats::first_max;

/// Mean cross-entropy of the unmasked examples, `[]`; 0 where all are masked.
///
/// # Shapes
/// - `logits`: `[N, C]`; gradient flows to them. `labels`: `[N]` of u32. `mask`: `[N]` of 0 and 1, of the logits' dtype.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
    if mask.elem_count() == 0 {
        return mask.sum_all();
    }
    negative_log_likelihood(&label_logprobs(logits, labels)?, mask, Reduction::TokenMean)
}

/// Share of the unmasked examples whose greatest logit, the first one on ties, is the label's; 0 without any.
///
/// # Panics
/// When the lists have different lengths.
pub fn accuracy(logits: &[Vec<f64>], labels: &[u32], mask: &[f64]) -> f64 {
    assert!(logits.len() == labels.len() && logits.len() == mask.len(), "each example needs a label and a mask");
    let counted: Vec<usize> = (0..mask.len()).filter(|&i| mask[i] > 0.0).collect();
    let right = counted.iter().filter(|&&i| first_max(&logits[i]) == Some(labels[i] as usize)).count();
    right as f64 / counted.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::testing::{assert_close, assert_finite, check_gradients, matrix, numbers, vector};

    fn loss(logits: &[Tensor], mask: &[f64]) -> candle_core::Result<Tensor> {
        cross_entropy(&logits[0], &Tensor::new(&[1u32, 0], &Device::Cpu)?, &vector(mask))
    }

    #[test]
    fn gradients_agree_with_finite_differences_and_masked_examples_have_none() {
        let gradients = check_gradients(&[matrix([[0.5, -1.0, 0.2], [0.0, 0.3, -0.7]])], 1e-9, |x| loss(x, &[1.0, 0.0]));
        assert!(gradients[0][1] < 0.0);
        assert_eq!(gradients[0][3..], [0.0; 3]);
    }

    #[test]
    fn nothing_unmasked_is_zero_and_extremes_are_finite() {
        assert_eq!(assert_finite(&[matrix([[0.5, -1.0], [0.0, 0.3]])], |x| loss(x, &[0.0, 0.0])), 0.0);
        let nobody = Tensor::new(&[0u32; 0], &Device::Cpu).unwrap();
        assert_eq!(numbers(&cross_entropy(&matrix::<0, 0>([]), &nobody, &vector(&[])).unwrap()), [0.0]);
        assert_close(&[assert_finite(&[matrix([[1e4, -1e4], [-1e4, 1e4]])], |x| loss(x, &[1.0, 1.0]))], &[2e4]);
    }

    #[test]
    fn lowest_class_wins_ties() {
        let logits = [vec![1.0, 1.0], vec![1.0, 1.0], vec![0.0, 2.0]];
        assert_eq!(accuracy(&logits, &[0, 1, 1], &[1.0, 1.0, 0.0]), 0.5);
        assert_eq!(accuracy(&logits, &[0, 1, 1], &[0.0; 3]), 0.0);
    }
}
