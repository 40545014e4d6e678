//! Functions with a kink, with the gradients there that other frameworks give: candle's own are 1 at the kink of a rectifier and one
//! half at the bounds of a clamp.

use candle_core::Tensor;

/// `max(x, 0)`, with gradient 1 above 0 and none at 0 or below.
pub fn positive_part(x: &Tensor) -> candle_core::Result<Tensor> {
    x.gt(0.0)?.where_cond(x, &x.zeros_like()?)
}

/// x cut to `low ..= high`, with gradient 1 from bound to bound, bounds included, and none beyond.
pub fn clamp(x: &Tensor, low: f64, high: f64) -> candle_core::Result<Tensor> {
    let inside = (x.ge(low)? * x.le(high)?)?;
    inside.where_cond(x, &x.detach().clamp(low, high)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{gradients, numbers, vector};

    fn of(f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> (Vec<f64>, Vec<f64>) {
        let x = vector(&[f64::NEG_INFINITY, -1.0, 0.0, 1.0, 2.0]);
        let (_, gradient) = gradients(std::slice::from_ref(&x), |l| f(&l[0])?.sum_all()).unwrap();
        (numbers(&f(&x).unwrap()), gradient[0].clone())
    }

    #[test]
    fn rectifier_has_no_gradient_at_its_kink() {
        assert_eq!(of(positive_part), (vec![0.0, 0.0, 0.0, 1.0, 2.0], vec![0.0, 0.0, 0.0, 1.0, 1.0]));
    }

    #[test]
    fn clamp_has_its_whole_gradient_at_its_bounds() {
        assert_eq!(of(|x| clamp(x, -1.0, 1.0)), (vec![-1.0, -1.0, 0.0, 1.0, 1.0], vec![0.0, 1.0, 1.0, 1.0, 0.0]));
    }
}
