//! Low-rank adapters beside frozen weights (LoRA).
//!
//! Reference: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3.

use candle_core::Tensor;

/// A change `(alpha / r) · B A` of a weight matrix, r the rank. An adapter of rank 0 changes nothing.
#[derive(Clone, Debug)]
pub struct Adapter<'a> {
    /// `[r, in]`.
    pub a: &'a Tensor,
    /// `[out, r]`; zeros at the start of training, so that the adapter begins as no change.
    pub b: &'a Tensor,
    /// Scale before the division by the rank.
    pub alpha: f64,
}

impl Adapter<'_> {
    /// `alpha / r`.
    fn scale(&self) -> candle_core::Result<f64> {
        Ok(self.alpha / self.a.dim(0)?.max(1) as f64)
    }

    /// `x Wᵀ + (alpha / r) · x Aᵀ Bᵀ`, `[N, out]`: the change is never made a matrix of the weight's size.
    ///
    /// # Shapes
    /// - `x`: `[N, in]`; `weight`: `[out, in]`, frozen. Gradient flows to x, A and B.
    pub fn forward(&self, x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
        let base = x.matmul(&weight.detach().t()?)?;
        if self.a.dim(0)? == 0 {
            return Ok(base);
        }
        base + (x.matmul(&self.a.t()?)?.matmul(&self.b.t()?)? * self.scale()?)?
    }

    /// `W + (alpha / r) · B A`, `[out, in]`: one matrix that does what both do.
    pub fn merged(&self, weight: &Tensor) -> candle_core::Result<Tensor> {
        if self.a.dim(0)? == 0 {
            return Ok(weight.clone());
        }
        weight + (self.b.matmul(self.a)? * self.scale()?)?
    }

    /// Share of the parameters that are trained: the adapter's of its own and the weight's.
    pub fn trainable_share(&self, weight: &Tensor) -> f64 {
        let trained = self.a.elem_count() + self.b.elem_count();
        trained as f64 / (trained + weight.elem_count()).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::testing::{assert_close, assert_float32_agrees, check_gradients, gradients, matrix, numbers};

    fn x() -> Tensor {
        matrix([[1.0, -2.0, 0.5], [0.3, 0.0, -1.0]])
    }

    fn weight() -> Tensor {
        matrix([[0.5, 1.0, 2.0], [-1.0, 0.25, 0.0]])
    }

    fn leaves() -> [Tensor; 4] {
        [x(), matrix([[1.0, 0.5, -0.5], [0.2, -0.3, 0.4]]), matrix([[0.5, 1.0], [-2.0, 0.7]]), weight()]
    }

    fn loss(leaves: &[Tensor]) -> candle_core::Result<Tensor> {
        Adapter { a: &leaves[1], b: &leaves[2], alpha: 8.0 }.forward(&leaves[0], &leaves[3])?.sqr()?.sum_all()
    }

    #[test]
    fn merged_weight_does_what_both_do() {
        let [x, a, b, weight] = leaves();
        let adapter = Adapter { a: &a, b: &b, alpha: 8.0 };
        let merged = adapter.merged(&weight).unwrap();
        // Scale 4: 0.5 + 4 (0.5 · 1 + 1 · 0.2).
        assert_close(&numbers(&merged)[..1], &[3.3]);
        assert_close(&numbers(&x.matmul(&merged.t().unwrap()).unwrap()), &numbers(&adapter.forward(&x, &weight).unwrap()));
        assert_close(&[adapter.trainable_share(&weight)], &[10.0 / 16.0]);
    }

    #[test]
    fn gradients_agree_with_finite_differences_and_the_weight_is_frozen() {
        let [.., weight] = leaves();
        let with_weight = |leaves: &[Tensor]| loss(&[leaves[0].clone(), leaves[1].clone(), leaves[2].clone(), weight.clone()]);
        check_gradients(&leaves()[..3], 1e-5, with_weight);
        let (_, gradients) = gradients(&leaves(), loss).unwrap();
        assert_eq!(gradients[3], [0.0; 6]);
        assert_float32_agrees(&leaves(), loss);
    }

    #[test]
    fn adapters_with_b_of_zeros_or_without_rank_change_nothing() {
        let [x, a, b, weight] = leaves();
        let base = numbers(&x.matmul(&weight.t().unwrap()).unwrap());
        let none = [(0, 3), (2, 0)].map(|shape| Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap());
        for (a, b) in [(&a, &b.zeros_like().unwrap()), (&none[0], &none[1])] {
            let adapter = Adapter { a, b, alpha: 8.0 };
            assert_close(&numbers(&adapter.forward(&x, &weight).unwrap()), &base);
            assert_close(&numbers(&adapter.merged(&weight).unwrap()), &numbers(&weight));
        }
        assert_eq!(Adapter { a: &none[0], b: &none[1], alpha: 8.0 }.trainable_share(&weight), 0.0);
    }
}
