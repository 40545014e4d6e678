//! RMSNorm over the rows of a matrix (Zhang & Sennrich 2019, equation 4).
//!
//! Forward: `y[i,j] = x[i,j] · r[i] · w[j]` with `r[i] = 1 / sqrt(mean_j x[i,j]² + eps)`.
//! Backward, with `g = dy ∘ w`: `dx[i] += r[i]·g[i] − x[i]·r[i]³/d · (g[i]·x[i])`, `dw[j] += Σ_i dy[i,j]·x[i,j]·r[i]`.
//!
//! Bytes: 8 an element forward, 16 backward; 4 and 9 FLOP.

use rayon::prelude::*;

use super::vector::{dot, vectorize};

/// Rows of a parallel block, and of one partial sum of `dw`.
const ROWS: usize = 32;

/// Plain reference of [`rms_norm`].
pub fn rms_norm_reference(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], r: &mut [f32]) {
    let d = w.len();
    for ((x, y), r) in x.chunks(d).zip(y.chunks_mut(d)).zip(r) {
        let mean_square = x.iter().map(|x| x * x).sum::<f32>() / d as f32;
        *r = 1.0 / (mean_square + eps).sqrt();
        for j in 0..d {
            y[j] = x[j] * *r * w[j];
        }
    }
}

/// Writes `y[n,d]` and the inverse root mean squares `r[n]` of the rows of `x[n,d]`, weighted by `w[d]`.
///
/// # Panics
/// When the shapes disagree.
pub fn rms_norm(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], r: &mut [f32]) {
    let d = w.len();
    assert!(x.len() == y.len() && x.len() == r.len() * d, "rms_norm of {} elements in {} rows of {d}", x.len(), r.len());
    x.par_chunks(ROWS * d).zip(y.par_chunks_mut(ROWS * d)).zip(r.par_chunks_mut(ROWS)).for_each(|((x, y), r)| {
        vectorize(
            #[inline(always)]
            || {
                for ((x, y), r) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(r) {
                    let inverse = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
                    *r = inverse;
                    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                        *y = x * inverse * w;
                    }
                }
            },
        );
    });
}

/// Writes `y` again from the saved `r`, with the bits of [`rms_norm`].
///
/// # Panics
/// When the shapes disagree.
pub fn rms_norm_again(x: &[f32], w: &[f32], r: &[f32], y: &mut [f32]) {
    let d = w.len();
    assert!(x.len() == y.len() && x.len() == r.len() * d, "rms_norm of {} elements in {} rows of {d}", x.len(), r.len());
    x.par_chunks(ROWS * d).zip(y.par_chunks_mut(ROWS * d)).zip(r.par_chunks(ROWS)).for_each(|((x, y), r)| {
        vectorize(
            #[inline(always)]
            || {
                for ((x, y), inverse) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(r) {
                    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                        *y = x * inverse * w;
                    }
                }
            },
        );
    });
}

/// Plain reference of [`rms_norm_backward`].
pub fn rms_norm_backward_reference(dy: &[f32], x: &[f32], w: &[f32], r: &[f32], dx: &mut [f32], dw: &mut [f32]) {
    let d = w.len();
    for (i, &r) in r.iter().enumerate() {
        let (dy, x, dx) = (&dy[i * d..][..d], &x[i * d..][..d], &mut dx[i * d..][..d]);
        let inner: f32 = (0..d).map(|j| dy[j] * w[j] * x[j]).sum();
        for j in 0..d {
            dx[j] += r * dy[j] * w[j] - x[j] * r * r * r / d as f32 * inner;
            dw[j] += dy[j] * x[j] * r;
        }
    }
}

/// Adds to `dx[n,d]` and `dw[d]`, given `dy[n,d]` and what [`rms_norm`] had and wrote: `x[n,d]`, `w[d]`, `r[n]`.
///
/// `dw` is summed over blocks of rows, then over blocks in order.
///
/// # Panics
/// When the shapes disagree.
pub fn rms_norm_backward(dy: &[f32], x: &[f32], w: &[f32], r: &[f32], dx: &mut [f32], dw: &mut [f32]) {
    let d = w.len();
    assert!(
        dy.len() == x.len() && dx.len() == x.len() && x.len() == r.len() * d && dw.len() == d,
        "rms_norm_backward of {} elements in {} rows of {d}",
        x.len(),
        r.len()
    );
    let blocks = dy.par_chunks(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(r.par_chunks(ROWS)).zip(dx.par_chunks_mut(ROWS * d));
    let partial: Vec<Vec<f32>> = blocks
        .map(|(((dy, x), r), dx)| {
            let mut dw = vec![0.0_f32; d];
            vectorize(
                #[inline(always)]
                || {
                    for (((dy, x), &r), dx) in dy.chunks_exact(d).zip(x.chunks_exact(d)).zip(r).zip(dx.chunks_exact_mut(d)) {
                        backward_row(dy, x, w, r, dx, &mut dw);
                    }
                },
            );
            dw
        })
        .collect();
    for sum in partial {
        for (total, sum) in dw.iter_mut().zip(sum) {
            *total += sum;
        }
    }
}

/// One row of [`rms_norm_backward`].
#[expect(clippy::inline_always, reason = "must be inlined into `vectorize`")]
#[inline(always)]
pub(crate) fn backward_row(dy: &[f32], x: &[f32], w: &[f32], r: f32, dx: &mut [f32], dw: &mut [f32]) {
    let d = w.len();
    let (dy, x, dx, dw) = (&dy[..d], &x[..d], &mut dx[..d], &mut dw[..d]);
    // g ∘ x, to be summed: dw's row divided by r and times w.
    let mut lanes = [0.0_f32; super::vector::LANES];
    for j in 0..d {
        dw[j] = (dy[j] * x[j]).mul_add(r, dw[j]);
    }
    let whole = d - d % lanes.len();
    for start in (0..whole).step_by(lanes.len()) {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = (dy[start + i] * w[start + i]).mul_add(x[start + i], *lane);
        }
    }
    for j in whole..d {
        lanes[j - whole] = (dy[j] * w[j]).mul_add(x[j], lanes[j - whole]);
    }
    let shrink = super::vector::sum_lanes(lanes) * r * r * r / d as f32;
    for j in 0..d {
        dx[j] += r.mul_add(dy[j] * w[j], -(x[j] * shrink));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, noise, with_threads};

    const SHAPES: [(usize, usize); 5] = [(1, 1), (3, 16), (33, 576), (70, 24), (5, 1000)];

    #[test]
    fn rms_norm_equals_reference() {
        for (n, d) in SHAPES {
            let (x, w) = (noise(n * d, 1), noise(d, 2));
            let [mut y, mut again, mut expected] = [vec![f32::NAN; n * d], vec![f32::NAN; n * d], vec![f32::NAN; n * d]];
            let [mut r, mut expected_r] = [vec![f32::NAN; n], vec![f32::NAN; n]];
            rms_norm(&x, &w, 1e-5, &mut y, &mut r);
            rms_norm_again(&x, &w, &r, &mut again);
            rms_norm_reference(&x, &w, 1e-5, &mut expected, &mut expected_r);
            assert_close(&y, &expected, 1e-6, "y");
            assert_close(&r, &expected_r, 1e-6, "r");
            assert_eq!(y, again);
        }
    }

    #[test]
    fn rms_norm_backward_equals_reference_for_any_number_of_threads() {
        for (n, d) in SHAPES {
            let (x, w, dy) = (noise(n * d, 1), noise(d, 2), noise(n * d, 3));
            let (mut y, mut r) = (vec![0.0; n * d], vec![0.0; n]);
            rms_norm(&x, &w, 1e-5, &mut y, &mut r);
            let run = |threads| {
                with_threads(threads, || {
                    let (mut dx, mut dw) = (noise(n * d, 4), noise(d, 5));
                    rms_norm_backward(&dy, &x, &w, &r, &mut dx, &mut dw);
                    (dx, dw)
                })
            };
            let (mut dx, mut dw) = (noise(n * d, 4), noise(d, 5));
            rms_norm_backward_reference(&dy, &x, &w, &r, &mut dx, &mut dw);
            assert_close(&run(1).0, &dx, 1e-5, "dx");
            assert_close(&run(1).1, &dw, 1e-5, "dw");
            assert_eq!(run(1), run(3));
        }
    }

    #[test]
    fn rms_norm_backward_equals_finite_differences_of_the_reference() {
        let (n, d, h) = (3, 20, 1e-2_f32);
        let (x, w, dy) = (noise(n * d, 1), noise(d, 2), noise(n * d, 3));
        let loss = |x: &[f32], w: &[f32]| {
            let (mut y, mut r) = (vec![0.0; n * d], vec![0.0; n]);
            rms_norm_reference(x, w, 1e-5, &mut y, &mut r);
            y.iter().zip(&dy).map(|(y, dy)| f64::from(y * dy)).sum::<f64>()
        };
        let (mut y, mut r, mut dx, mut dw) = (vec![0.0; n * d], vec![0.0; n], vec![0.0; n * d], vec![0.0; d]);
        rms_norm(&x, &w, 1e-5, &mut y, &mut r);
        rms_norm_backward(&dy, &x, &w, &r, &mut dx, &mut dw);
        let moved = |v: &[f32], i: usize, by: f32| {
            let mut v = v.to_vec();
            v[i] += by;
            v
        };
        for i in 0..n * d {
            let slope = (loss(&moved(&x, i, h), &w) - loss(&moved(&x, i, -h), &w)) / (2.0 * f64::from(h));
            assert!((f64::from(dx[i]) - slope).abs() < 2e-3, "dx[{i}] = {}, slope {slope}", dx[i]);
        }
        for j in 0..d {
            let slope = (loss(&x, &moved(&w, j, h)) - loss(&x, &moved(&w, j, -h))) / (2.0 * f64::from(h));
            assert!((f64::from(dw[j]) - slope).abs() < 2e-3, "dw[{j}] = {}, slope {slope}", dw[j]);
        }
    }
}
