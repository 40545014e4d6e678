//! `y += s·x`, `x *= s` and adding a bias to every row.
//!
//! All are bound by memory: 12 bytes an element for [`axpy`], 8 for the others.

use rayon::prelude::*;

use super::vector::vectorize;

/// Elements of a parallel block: 256 KiB, so that a block's share of rayon's overhead is small.
const BLOCK: usize = 1 << 16;

/// `y[i] += s · x[i]`.
///
/// # Panics
/// When the lengths differ.
pub fn axpy(s: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "axpy adds vectors of one length");
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| {
        vectorize(
            #[inline(always)]
            || {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = s.mul_add(*x, *y);
                }
            },
        );
    });
}

/// `x[i] *= s`.
pub fn scale(s: f32, x: &mut [f32]) {
    x.par_chunks_mut(BLOCK).for_each(|x| {
        vectorize(
            #[inline(always)]
            || {
                for x in x {
                    *x *= s;
                }
            },
        );
    });
}

/// Rows summed by one worker in [`add_bias_backward`].
const ROWS: usize = 64;

/// `y[i, j] += bias[j]` for `y[rows, columns]`.
///
/// # Panics
/// When `y` is not whole rows of `bias.len()` elements.
pub fn add_bias(y: &mut [f32], bias: &[f32]) {
    assert!(y.len().is_multiple_of(bias.len()), "a bias of {} on {} elements", bias.len(), y.len());
    y.par_chunks_mut(ROWS * bias.len()).for_each(|rows| {
        vectorize(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(bias.len()) {
                    for (y, b) in row.iter_mut().zip(bias) {
                        *y += b;
                    }
                }
            },
        );
    });
}

/// `dbias[j] += Σ_i dy[i, j]`: sums of 64 rows each, then the sums in order.
///
/// # Panics
/// When `dy` is not whole rows of `dbias.len()` elements.
pub fn add_bias_backward(dy: &[f32], dbias: &mut [f32]) {
    let columns = dbias.len();
    assert!(dy.len().is_multiple_of(columns), "a bias of {columns} on {} elements", dy.len());
    let partial: Vec<Vec<f32>> = dy
        .par_chunks(ROWS * columns)
        .map(|rows| {
            let mut sum = vec![0.0_f32; columns];
            for row in rows.chunks_exact(columns) {
                for (sum, dy) in sum.iter_mut().zip(row) {
                    *sum += dy;
                }
            }
            sum
        })
        .collect();
    for sum in partial {
        for (total, sum) in dbias.iter_mut().zip(sum) {
            *total += sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, noise, with_threads};

    #[test]
    fn axpy_and_scale_equal_plain_loops() {
        for len in [0, 1, 15, 1000, BLOCK + 3] {
            let (x, before) = (noise(len, 1), noise(len, 2));
            let mut y = before.clone();
            axpy(0.5, &x, &mut y);
            scale(-2.0, &mut y);
            let expected: Vec<f32> = before.iter().zip(&x).map(|(y, x)| -2.0 * (y + 0.5 * x)).collect();
            assert_close(&y, &expected, 1e-6, &format!("{len} elements"));
        }
    }

    #[test]
    fn bias_is_added_to_rows_and_its_gradient_is_the_sum_of_rows() {
        for (rows, columns) in [(1, 1), (3, 7), (64, 5), (200, 33)] {
            let (y, bias, before) = (noise(rows * columns, 1), noise(columns, 2), noise(columns, 3));
            let mut got = y.clone();
            add_bias(&mut got, &bias);
            let expected: Vec<f32> = (0..rows * columns).map(|i| y[i] + bias[i % columns]).collect();
            assert_close(&got, &expected, 1e-6, "forward");

            let sums = |threads| {
                with_threads(threads, || {
                    let mut dbias = before.clone();
                    add_bias_backward(&y, &mut dbias);
                    dbias
                })
            };
            let expected: Vec<f32> =
                (0..columns).map(|j| before[j] + (0..rows).map(|i| y[i * columns + j]).sum::<f32>()).collect();
            assert_close(&sums(1), &expected, 1e-5, "backward");
            assert_eq!(sums(1), sums(3));
        }
    }
}
