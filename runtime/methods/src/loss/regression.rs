//! Squared errors of predicted scores.

use candle_core::Tensor;

/// Mean of `(prediction - label)²` over the labels that are there, `[]`; 0 without any.
///
/// # Shapes
/// - `predictions`, `labels`: `[N, attributes]` or any one shape; gradient flows to the predictions.
/// - `present`: 1 where there is a label, else 0; what stands in `labels` there is not read into anything as long as it is finite.
///
/// Reference: Wang et al. 2024, "Directional Preference Alignment", and the attribute heads of Wang et al. 2023, "HelpSteer".
pub fn masked_squared_error(predictions: &Tensor, labels: &Tensor, present: &Tensor) -> candle_core::Result<Tensor> {
    let errors = ((predictions - labels)? * present)?;
    errors.sqr()?.sum_all()?.div(&present.sum_all()?.maximum(1.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, gradients, vector};

    #[test]
    fn missing_labels_are_not_zeros() {
        let (labels, present) = (vector(&[1.0, 0.0, 3.0]), vector(&[1.0, 0.0, 1.0]));
        let (loss, gradient) =
            gradients(&[vector(&[2.0, 9.0, 3.0])], |x| masked_squared_error(&x[0], &labels, &present)).unwrap();
        assert_close(&[loss], &[0.5]);
        assert_close(&gradient[0], &[1.0, 0.0, 0.0]);
        check_gradients(&[vector(&[0.3, -2.0, 1.0])], 1e-7, |x| masked_squared_error(&x[0], &labels, &present));
    }

    #[test]
    fn without_labels_there_is_no_loss() {
        let none = vector(&[0.0, 0.0]);
        let got = gradients(&[vector(&[2.0, 9.0])], |x| masked_squared_error(&x[0], &none, &none)).unwrap();
        assert_eq!(got, (0.0, vec![vec![0.0, 0.0]]));
    }
}
