//! Normalized exponentials as graphs, over the last dimension.

use candle_core::{D, Tensor};

/// `ln Σ e^x` over the last dimension, which is kept with size 1; without overflow, with the gradient softmax(x).
///
/// Entries of minus infinity count nothing, as long as one of their row is finite.
pub fn log_sum_exp(x: &Tensor) -> candle_core::Result<Tensor> {
    let max = x.detach().max_keepdim(D::Minus1)?;
    x.broadcast_sub(&max)?.exp()?.sum_keepdim(D::Minus1)?.log()? + max
}

/// `x - ln Σ e^x` over the last dimension.
pub fn log_softmax(x: &Tensor) -> candle_core::Result<Tensor> {
    x.broadcast_sub(&log_sum_exp(x)?)
}

/// `e^x / Σ e^x` over the last dimension.
pub fn softmax(x: &Tensor) -> candle_core::Result<Tensor> {
    log_softmax(x)?.exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;
    use crate::testing::{assert_close, assert_finite, check_gradients, matrix, numbers, vector};

    #[test]
    fn rows_are_normalized_as_the_plain_function_does() {
        let x = [[0.5, -1.0, 2.0], [1e4, -1e4, 1e4]];
        let want: Vec<f64> = x.iter().flat_map(|row| stats::softmax(row)).collect();
        assert_close(&numbers(&softmax(&matrix(x)).unwrap()), &want);
        assert_close(&numbers(&log_sum_exp(&matrix(x)).unwrap()), &x.map(|row| stats::log_sum_exp(&row)));
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (x, weights) = (matrix([[0.5, -1.0, 2.0], [0.0, 0.3, -0.7]]), matrix([[1.0, -2.0, 0.5], [0.3, 3.0, -1.0]]));
        check_gradients(&[x], 1e-8, |x| (log_softmax(&x[0])? * &weights)?.sum_all());
    }

    #[test]
    fn extreme_and_equal_logits_have_finite_gradients() {
        for x in [vector(&[1e5, -1e5]), vector(&[0.0, 0.0])] {
            assert_finite(&[x], |x| log_sum_exp(&x[0])?.sum_all());
        }
    }
}
