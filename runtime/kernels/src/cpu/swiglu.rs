//! SwiGLU's gate (Shazeer 2020): `h = silu(gate) ∘ up` with `silu(x) = x·σ(x)`.
//!
//! `gate` and `up` lie side by side, `[n, 2f]`, since one product with the stacked matrices makes both.
//! Backward, with `s = σ(gate)`: `dgate = dh ∘ up ∘ s ∘ (1 + gate ∘ (1 − s))`, `dup = dh ∘ gate ∘ s`.
//!
//! Bytes: 12 an element of h forward, 20 backward; an exponential each.
#![expect(clippy::inline_always, reason = "a function that is not inlined into `vectorize` misses its instruction set")]

use rayon::prelude::*;

use super::vector::{exp, vectorize};

/// Rows of a parallel block.
const ROWS: usize = 16;

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Plain reference of [`swiglu`].
pub fn swiglu_reference(gate_up: &[f32], h: &mut [f32], f: usize) {
    for (gate_up, h) in gate_up.chunks(2 * f).zip(h.chunks_mut(f)) {
        for j in 0..f {
            let gate = f64::from(gate_up[j]);
            h[j] = (gate / (1.0 + (-gate).exp()) * f64::from(gate_up[f + j])) as f32;
        }
    }
}

/// Writes `h[n,f]` from `gate_up[n,2f]`.
///
/// # Panics
/// When the shapes disagree.
pub fn swiglu(gate_up: &[f32], h: &mut [f32], f: usize) {
    assert!(gate_up.len() == 2 * h.len() && h.len().is_multiple_of(f), "swiglu of {} into {}", gate_up.len(), h.len());
    gate_up.par_chunks(ROWS * 2 * f).zip(h.par_chunks_mut(ROWS * f)).for_each(|(gate_up, h)| {
        vectorize(
            #[inline(always)]
            || {
                for (gate_up, h) in gate_up.chunks_exact(2 * f).zip(h.chunks_exact_mut(f)) {
                    let (gate, up) = gate_up.split_at(f);
                    for ((h, &gate), up) in h.iter_mut().zip(gate).zip(up) {
                        *h = gate * sigmoid(gate) * up;
                    }
                }
            },
        );
    });
}

/// Plain reference of [`swiglu_backward`].
pub fn swiglu_backward_reference(dh: &[f32], gate_up: &[f32], dgate_up: &mut [f32], f: usize) {
    for ((dh, gate_up), out) in dh.chunks(f).zip(gate_up.chunks(2 * f)).zip(dgate_up.chunks_mut(2 * f)) {
        for j in 0..f {
            let (gate, up, dh) = (f64::from(gate_up[j]), f64::from(gate_up[f + j]), f64::from(dh[j]));
            let s = 1.0 / (1.0 + (-gate).exp());
            out[j] = (dh * up * s * (1.0 + gate * (1.0 - s))) as f32;
            out[f + j] = (dh * gate * s) as f32;
        }
    }
}

/// Writes `dgate_up[n,2f]` from `dh[n,f]` and the forward's `gate_up[n,2f]`.
///
/// # Panics
/// When the shapes disagree.
pub fn swiglu_backward(dh: &[f32], gate_up: &[f32], dgate_up: &mut [f32], f: usize) {
    assert!(gate_up.len() == 2 * dh.len() && dgate_up.len() == gate_up.len() && dh.len().is_multiple_of(f), "swiglu_backward");
    let blocks = dh.par_chunks(ROWS * f).zip(gate_up.par_chunks(ROWS * 2 * f)).zip(dgate_up.par_chunks_mut(ROWS * 2 * f));
    blocks.for_each(|((dh, gate_up), out)| {
        vectorize(
            #[inline(always)]
            || {
                for ((dh, gate_up), out) in dh.chunks_exact(f).zip(gate_up.chunks_exact(2 * f)).zip(out.chunks_exact_mut(2 * f)) {
                    let (gate, up) = gate_up.split_at(f);
                    let (dgate, dup) = out.split_at_mut(f);
                    for ((((dgate, dup), &dh), &gate), &up) in dgate.iter_mut().zip(dup).zip(dh).zip(gate).zip(up) {
                        let s = sigmoid(gate);
                        *dgate = dh * up * s * gate.mul_add(1.0 - s, 1.0);
                        *dup = dh * gate * s;
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, noise};

    #[test]
    fn swiglu_and_its_gradient_equal_references() {
        for (n, f) in [(1, 1), (17, 24), (40, 100)] {
            let mut gate_up = noise(n * 2 * f, 1);
            for x in &mut gate_up {
                *x *= 8.0;
            }
            gate_up[0] = -100.0; // e^100 is infinite in f32; the gate is 0 and not NaN
            let dh = noise(n * f, 2);
            let [mut h, mut expected] = [vec![f32::NAN; n * f], vec![f32::NAN; n * f]];
            swiglu(&gate_up, &mut h, f);
            swiglu_reference(&gate_up, &mut expected, f);
            assert_close(&h, &expected, 1e-6, "h");
            let [mut d, mut expected] = [vec![f32::NAN; n * 2 * f], vec![f32::NAN; n * 2 * f]];
            swiglu_backward(&dh, &gate_up, &mut d, f);
            swiglu_backward_reference(&dh, &gate_up, &mut expected, f);
            assert_close(&d, &expected, 1e-6, "dgate_up");
        }
    }

    #[test]
    fn swiglu_backward_reference_equals_finite_differences() {
        let (f, h) = (9, 1e-2_f32);
        let (gate_up, dh) = (noise(2 * f, 1), noise(f, 2));
        let loss = |gate_up: &[f32]| {
            let mut out = vec![0.0; f];
            swiglu_reference(gate_up, &mut out, f);
            out.iter().zip(&dh).map(|(x, d)| f64::from(x * d)).sum::<f64>()
        };
        let mut d = vec![0.0; 2 * f];
        swiglu_backward_reference(&dh, &gate_up, &mut d, f);
        for i in 0..2 * f {
            let (mut up, mut down) = (gate_up.clone(), gate_up.clone());
            up[i] += h;
            down[i] -= h;
            let slope = (loss(&up) - loss(&down)) / (2.0 * f64::from(h));
            assert!((f64::from(d[i]) - slope).abs() < 1e-3, "{i}: {} and {slope}", d[i]);
        }
    }
}
