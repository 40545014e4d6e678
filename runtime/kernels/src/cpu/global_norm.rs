//! The Euclidean norm of all gradients together.
//!
//! Sums of squares of fixed blocks in f64, then the blocks in order: a norm over 10⁸ elements keeps its digits, and its bits do not
//! depend on threads. Bytes: 4 an element.

use rayon::prelude::*;

use super::vector::{LANES, vectorize};

/// Elements of a block.
const BLOCK: usize = 1 << 16;

/// Plain reference of [`global_norm`].
pub fn global_norm_reference(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// `sqrt(Σ x[i]²)`; NaN or infinite when an element is.
pub fn global_norm(x: &[f32]) -> f64 {
    let partial: Vec<f64> = x.par_chunks(BLOCK).map(sum_of_squares).collect();
    partial.iter().sum::<f64>().sqrt()
}

fn sum_of_squares(x: &[f32]) -> f64 {
    vectorize(
        #[inline(always)]
        || {
            let mut lanes = [0.0_f64; LANES];
            let chunks = x.chunks_exact(LANES);
            let rest = chunks.remainder();
            for x in chunks {
                for i in 0..LANES {
                    let x = f64::from(x[i]);
                    lanes[i] = x.mul_add(x, lanes[i]);
                }
            }
            lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{noise, with_threads};

    #[test]
    fn global_norm_equals_reference_for_any_number_of_threads() {
        for len in [0, 1, 17, BLOCK, 3 * BLOCK + 5] {
            let x = noise(len, 1);
            let expected = global_norm_reference(&x);
            let [one, three] = [1, 3].map(|threads| with_threads(threads, || global_norm(&x)));
            assert!((one - expected).abs() <= 1e-12 * expected, "{len}: {one} and {expected}");
            assert_eq!(one.to_bits(), three.to_bits());
        }
    }

    #[test]
    fn global_norm_of_a_vector_with_a_nan_is_nan() {
        assert!(global_norm(&[1.0, f32::NAN, 2.0]).is_nan());
    }
}
