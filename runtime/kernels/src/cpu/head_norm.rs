//! RMSNorm over each query and key head, as Qwen3 has it: [`super::rms_norm`] with rows that are heads inside wider rows.
//!
//! A row of `qkv` holds `query_heads` heads, `key_heads` heads, and then values, which are not normalized.
//!
//! Bytes: 8 an element of queries and keys forward, 12 backward.

use rayon::prelude::*;

use super::rms_norm::backward_row;
use super::vector::{dot, vectorize};

/// Rows of a parallel block, and of one partial sum of the weights' gradients.
const ROWS: usize = 32;

/// Where the heads lie in a row of `stride` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormedHeads {
    /// Elements of a row.
    pub stride: usize,
    /// Query heads, first in the row.
    pub query_heads: usize,
    /// Key heads, next in the row.
    pub key_heads: usize,
}

impl NormedHeads {
    fn count(&self) -> usize {
        self.query_heads + self.key_heads
    }
}

/// Normalizes heads in place: `x = x · r · w` with w = `query_weight[h]` or `key_weight[h]`; writes the inverse root mean squares
/// `r[n, query_heads + key_heads]`.
///
/// # Panics
/// When shapes disagree.
pub fn head_norm(heads: NormedHeads, qkv: &mut [f32], query_weight: &[f32], key_weight: &[f32], eps: f32, r: &mut [f32]) {
    let (h, count) = (query_weight.len(), heads.count());
    assert!(h == key_weight.len() && count * h <= heads.stride && qkv.len() * count == r.len() * heads.stride, "head_norm");
    qkv.par_chunks_mut(ROWS * heads.stride).zip(r.par_chunks_mut(ROWS * count)).for_each(|(rows, r)| {
        vectorize(
            #[inline(always)]
            || {
                for (row, r) in rows.chunks_exact_mut(heads.stride).zip(r.chunks_exact_mut(count)) {
                    for (i, (x, r)) in row.chunks_exact_mut(h).zip(r).enumerate() {
                        let w = if i < heads.query_heads { query_weight } else { key_weight };
                        let inverse = 1.0 / (dot(x, x) / h as f32 + eps).sqrt();
                        *r = inverse;
                        for (x, w) in x.iter_mut().zip(w) {
                            *x *= inverse * w;
                        }
                    }
                }
            },
        );
    });
}

/// What [`head_norm`] had and wrote.
#[derive(Clone, Copy, Debug)]
pub struct HeadNormSaved<'a> {
    /// The rows before the norm, `[n, stride]`.
    pub qkv: &'a [f32],
    /// Weights of query heads, `[head_dim]`.
    pub query_weight: &'a [f32],
    /// Weights of key heads, `[head_dim]`.
    pub key_weight: &'a [f32],
    /// Inverse root mean squares, `[n, query_heads + key_heads]`.
    pub r: &'a [f32],
}

/// Turns the gradient by normalized heads, `dqkv[n, stride]`, into that by the heads before the norm, in place; adds to the
/// weights' gradients. Formula as in [`super::rms_norm`].
///
/// # Panics
/// When shapes disagree.
pub fn head_norm_backward(heads: NormedHeads, saved: HeadNormSaved, dqkv: &mut [f32], dquery: &mut [f32], dkey: &mut [f32]) {
    let (h, count, stride) = (dquery.len(), heads.count(), heads.stride);
    assert!(h == dkey.len() && count * h <= stride && dqkv.len() == saved.qkv.len(), "head_norm_backward");
    let blocks =
        dqkv.par_chunks_mut(ROWS * stride).zip(saved.qkv.par_chunks(ROWS * stride)).zip(saved.r.par_chunks(ROWS * count));
    let partial: Vec<[Vec<f32>; 2]> = blocks
        .map(|((dqkv, qkv), r)| {
            let mut dweights = [vec![0.0_f32; h], vec![0.0_f32; h]];
            let mut dx = vec![0.0_f32; h];
            vectorize(
                #[inline(always)]
                || {
                    for ((dqkv, qkv), r) in dqkv.chunks_exact_mut(stride).zip(qkv.chunks_exact(stride)).zip(r.chunks_exact(count))
                    {
                        for (i, ((dy, x), &r)) in dqkv.chunks_exact_mut(h).zip(qkv.chunks_exact(h)).zip(r).enumerate() {
                            let is_key = usize::from(i >= heads.query_heads);
                            dx.fill(0.0);
                            backward_row(
                                dy,
                                x,
                                [saved.query_weight, saved.key_weight][is_key],
                                r,
                                &mut dx,
                                &mut dweights[is_key],
                            );
                            dy.copy_from_slice(&dx);
                        }
                    }
                },
            );
            dweights
        })
        .collect();
    for [query, key] in partial {
        for (total, sum) in dquery.iter_mut().zip(query).chain(dkey.iter_mut().zip(key)) {
            *total += sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::rms_norm::{rms_norm_backward_reference, rms_norm_reference};
    use crate::cpu::testing::{assert_close, noise};

    #[test]
    fn head_norm_and_its_gradient_equal_rms_norm_of_each_head() {
        let (n, h) = (40, 24);
        let heads = NormedHeads { stride: 6 * h, query_heads: 3, key_heads: 2 };
        let (qkv, dy) = (noise(n * heads.stride, 1), noise(n * heads.stride, 2));
        let weights = [noise(h, 3), noise(h, 4)];

        let mut normed = qkv.clone();
        let mut r = vec![f32::NAN; n * 5];
        head_norm(heads, &mut normed, &weights[0], &weights[1], 1e-6, &mut r);
        let mut dqkv = dy.clone();
        let [mut dquery, mut dkey] = [noise(h, 5), noise(h, 6)];
        let saved = HeadNormSaved { qkv: &qkv, query_weight: &weights[0], key_weight: &weights[1], r: &r };
        head_norm_backward(heads, saved, &mut dqkv, &mut dquery, &mut dkey);

        let mut expected_dw = [noise(h, 5), noise(h, 6)];
        for row in 0..n {
            for head in 0..6 {
                let at = row * heads.stride + head * h..row * heads.stride + (head + 1) * h;
                if head == 5 {
                    assert_eq!(normed[at.clone()], qkv[at.clone()], "values stay");
                    assert_eq!(dqkv[at.clone()], dy[at], "gradients of values stay");
                    continue;
                }
                let is_key = usize::from(head >= 3);
                let (mut y, mut dx, mut inverse) = (vec![0.0; h], vec![0.0; h], [0.0]);
                rms_norm_reference(&qkv[at.clone()], &weights[is_key], 1e-6, &mut y, &mut inverse);
                let dw = &mut expected_dw[is_key];
                rms_norm_backward_reference(&dy[at.clone()], &qkv[at.clone()], &weights[is_key], &inverse, &mut dx, dw);
                assert_close(&normed[at.clone()], &y, 1e-6, "y");
                assert_close(&dqkv[at], &dx, 1e-5, "dx");
            }
        }
        assert_close(&dquery, &expected_dw[0], 1e-5, "query weights");
        assert_close(&dkey, &expected_dw[1], 1e-5, "key weights");
    }
}
