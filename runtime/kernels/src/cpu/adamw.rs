//! AdamW (Loshchilov & Hutter 2019, algorithm 2), with Adam's bias correction as in PyTorch.
//!
//! ```text
//! g  = scale · grad                      m = β₁ m + (1 − β₁) g        v = β₂ v + (1 − β₂) g²
//! w -= lr · λ · w                        w -= lr · (m / (1 − β₁ᵗ)) / (sqrt(v / (1 − β₂ᵗ)) + eps)
//! ```
//!
//! One pass: 28 bytes and 15 FLOP an element, so memory sets the pace.

use rayon::prelude::*;

use super::vector::vectorize;

/// Elements of a parallel block.
const BLOCK: usize = 1 << 15;

/// Constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the first moment, β₁.
    pub beta1: f64,
    /// Decay of the second moment, β₂.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay λ of these weights; 0 for norms and biases.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// Multiplies the gradients: the clipping factor.
    pub grad_scale: f64,
}

/// Plain reference of [`adamw`], in f64.
pub fn adamw_reference(constants: &AdamW, params: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32]) {
    let c = constants;
    for i in 0..params.len() {
        let g = c.grad_scale * f64::from(grads[i]);
        let m = c.beta1 * f64::from(first[i]) + (1.0 - c.beta1) * g;
        let v = c.beta2 * f64::from(second[i]) + (1.0 - c.beta2) * g * g;
        let m_hat = m / (1.0 - c.beta1.powf(c.step as f64));
        let v_hat = v / (1.0 - c.beta2.powf(c.step as f64));
        let decayed = f64::from(params[i]) * (1.0 - c.learning_rate * c.weight_decay);
        params[i] = (decayed - c.learning_rate * m_hat / (v_hat.sqrt() + c.eps)) as f32;
        (first[i], second[i]) = (m as f32, v as f32);
    }
}

/// One step on a run of weights that share their constants: `params`, `grads`, and the moments `first` and `second`, `[n]` each.
///
/// # Panics
/// When the lengths differ or the step is 0.
pub fn adamw(constants: &AdamW, params: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32]) {
    let n = params.len();
    assert!(grads.len() == n && first.len() == n && second.len() == n, "adamw takes vectors of one length");
    assert!(constants.step > 0, "steps count from 1");
    let c = constants;
    // What does not depend on the element is worked out in f64 and rounded once.
    let keep = (1.0 - c.learning_rate * c.weight_decay) as f32;
    let rate = (c.learning_rate / (1.0 - c.beta1.powf(c.step as f64))) as f32;
    let root_correction = (1.0 / (1.0 - c.beta2.powf(c.step as f64)).sqrt()) as f32;
    let (beta1, beta2, scale, eps) = (c.beta1 as f32, c.beta2 as f32, c.grad_scale as f32, c.eps as f32);
    let (new1, new2) = ((1.0 - c.beta1) as f32, (1.0 - c.beta2) as f32);
    let blocks = params.par_chunks_mut(BLOCK).zip(grads.par_chunks(BLOCK));
    let blocks = blocks.zip(first.par_chunks_mut(BLOCK)).zip(second.par_chunks_mut(BLOCK));
    blocks.for_each(|(((params, grads), first), second)| {
        vectorize(
            #[inline(always)]
            || {
                for (((w, g), m), v) in params.iter_mut().zip(grads).zip(first).zip(second) {
                    let g = g * scale;
                    *m = beta1.mul_add(*m, new1 * g);
                    *v = beta2.mul_add(*v, new2 * g * g);
                    *w = w.mul_add(keep, -(rate * *m / v.sqrt().mul_add(root_correction, eps)));
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, noise, with_threads};

    const CONSTANTS: AdamW =
        AdamW { learning_rate: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 0.5 };

    #[test]
    fn adamw_equals_reference_over_steps() {
        for len in [1, 40, BLOCK + 9] {
            let (mut params, mut first, mut second) = (noise(len, 1), vec![0.0; len], vec![0.0; len]);
            let (mut params_r, mut first_r, mut second_r) = (params.clone(), first.clone(), second.clone());
            for step in 1..6 {
                let grads = noise(len, 10 + step);
                let constants = AdamW { step, ..CONSTANTS };
                adamw(&constants, &mut params, &grads, &mut first, &mut second);
                adamw_reference(&constants, &mut params_r, &grads, &mut first_r, &mut second_r);
            }
            assert_close(&params, &params_r, 1e-6, "params");
            assert_close(&first, &first_r, 1e-6, "first moments");
            assert_close(&second, &second_r, 1e-6, "second moments");
        }
    }

    #[test]
    fn adamw_first_step_moves_each_weight_by_the_learning_rate_against_its_gradient() {
        let mut params = [1.0, 1.0, 1.0];
        let constants = AdamW { weight_decay: 0.0, eps: 0.0, ..CONSTANTS };
        adamw(&constants, &mut params, &[3.0, -1e-3, 7.0], &mut [0.0; 3], &mut [0.0; 3]);
        assert_close(&params, &[0.99, 1.01, 0.99], 1e-6, "params");
    }

    #[test]
    fn adamw_has_the_same_bits_for_any_number_of_threads() {
        let len = 3 * BLOCK + 1;
        let run = |threads| {
            with_threads(threads, || {
                let (mut params, mut first, mut second) = (noise(len, 1), noise(len, 2), vec![0.5; len]);
                adamw(&CONSTANTS, &mut params, &noise(len, 3), &mut first, &mut second);
                (params, first, second)
            })
        };
        assert!(run(1) == run(3));
    }
}
