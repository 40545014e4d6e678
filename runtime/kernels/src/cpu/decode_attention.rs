//! Attention of one query token over cached keys and values, as in decoding.
//!
//! `out = softmax(scale · q Kᵀ) V` for the query heads that share one key and value head (grouped-query attention, Ainslie et
//! al. 2023), with the online softmax of Milakov and Gimelshein 2018, a block of [`KEY_BLOCK`] tokens at a time.
//!
//! The cache is given as spans: a prompt that several completions share, then a completion's own tokens. A span's tokens lie in
//! pages of one block each, anywhere in memory (paged attention, Kwon et al. 2023). Blocks start anew with each span, and all
//! sums have one order, so a result depends on the query and the spans' tokens alone.
#![expect(
    clippy::inline_always,
    reason = "a body that is not inlined into `for_each_isa`'s functions misses their instruction set"
)]

use super::aligned::AlignedBuffer;
use super::decode_rows::exp;
use super::isa::for_each_isa;

/// Tokens in a block of keys: one AVX-512 register holds their scores.
pub const KEY_BLOCK: usize = 16;

/// Lanes that output sums are kept in. Cached values have a row stride of a multiple of this: see [`value_stride`].
const LANES: usize = 16;

/// Floats between the values of one token and the next for heads of that width.
pub fn value_stride(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Floats that a page holds of one head: a block of keys and its values.
pub fn head_block(head_dim: usize) -> usize {
    KEY_BLOCK * (head_dim + value_stride(head_dim))
}

/// Keys and values of one head for consecutive tokens.
#[derive(Clone, Copy, Debug)]
pub struct KvSpan<'a> {
    /// Pages of all sequences. At `offset` in each lie keys, `[head_dim][16]`, transposed, so that the scores of a block are one
    /// vector chain over `head_dim`; and after them values, `[16][value_stride]`, 0 past `head_dim`.
    pub pages: &'a [AlignedBuffer],
    /// The pages of these tokens in order, 16 tokens in each.
    pub table: &'a [u32],
    /// Where this head lies in a page.
    pub offset: usize,
    /// Tokens. What pages hold past them is ignored.
    pub len: usize,
}

impl<'a> KvSpan<'a> {
    /// Without tokens.
    pub const EMPTY: KvSpan<'static> = KvSpan { pages: &[], table: &[], offset: 0, len: 0 };

    /// Keys and values of each block in order, `[head_dim][16]` and `[tokens][value_stride]`.
    #[inline(always)]
    fn blocks(self, head_dim: usize) -> impl Iterator<Item = (&'a [f32], &'a [f32])> {
        let pages = &self.table[..self.len.div_ceil(KEY_BLOCK)];
        pages.iter().enumerate().map(move |(i, &page)| {
            let block = &self.pages[page as usize][self.offset..][..head_block(head_dim)];
            let (keys, values) = block.split_at(KEY_BLOCK * head_dim);
            (keys, &values[..KEY_BLOCK.min(self.len - i * KEY_BLOCK) * value_stride(head_dim)])
        })
    }
}

/// The plain formula: all scores, their softmax, the weighted sum. The fast path is held to it within rounding.
pub fn decode_attention_reference(q: &[f32], spans: &[KvSpan], head_dim: usize, scale: f32, out: &mut [f32]) {
    let stride = value_stride(head_dim);
    for (q, out) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
        let mut scores = Vec::new();
        for span in spans {
            for t in 0..span.len {
                let head = &span.pages[span.table[t / KEY_BLOCK] as usize][span.offset..];
                let t = t % KEY_BLOCK;
                let dot: f64 = (0..head_dim).map(|d| f64::from(q[d]) * f64::from(head[d * KEY_BLOCK + t])).sum();
                scores.push((dot * f64::from(scale), &head[KEY_BLOCK * head_dim + t * stride..][..head_dim]));
            }
        }
        let max = scores.iter().map(|(score, _)| *score).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|(score, _)| (score - max).exp()).sum();
        for (d, out) in out.iter_mut().enumerate() {
            *out = scores.iter().map(|(score, values)| (score - max).exp() / total * f64::from(values[d])).sum::<f64>() as f32;
        }
    }
}

for_each_isa! {
    /// One query token against two spans (the second may be empty).
    ///
    /// # Shapes
    /// - `q`, `out`: `[heads of the group, head_dim]`; queries and keys are rotated already.
    /// - `scale`: multiplies the dot products, `1 / sqrt(head_dim)`.
    ///
    /// # Panics
    /// When `head_dim` is above 256, or a span has fewer pages than its tokens need.
    pub fn decode_attention(q: &[f32], spans: [KvSpan<'_>; 2], head_dim: usize, scale: f32, out: &mut [f32]) = decode_attention_body;
}

const MAX_HEAD_DIM: usize = 256;

#[inline(always)]
fn decode_attention_body(q: &[f32], spans: [KvSpan<'_>; 2], head_dim: usize, scale: f32, out: &mut [f32]) {
    assert!(head_dim <= MAX_HEAD_DIM, "heads of {head_dim} are wider than {MAX_HEAD_DIM}");
    let heads = q.len() / head_dim;
    let mut done = 0;
    while done < heads {
        let here = (heads - done).min(4);
        let (q, out) = (&q[done * head_dim..][..here * head_dim], &mut out[done * head_dim..][..here * head_dim]);
        match here {
            1 => attend::<1>(q, spans, head_dim, scale, out),
            2 => attend::<2>(q, spans, head_dim, scale, out),
            3 => attend::<3>(q, spans, head_dim, scale, out),
            _ => attend::<4>(q, spans, head_dim, scale, out),
        }
        done += here;
    }
}

/// `N` heads side by side: each waits for its own sums most of the time, and together they keep the machine busy.
#[inline(always)]
fn attend<const N: usize>(q: &[f32], spans: [KvSpan<'_>; 2], head_dim: usize, scale: f32, out: &mut [f32]) {
    let stride = value_stride(head_dim);
    let (mut max, mut total) = ([f32::NEG_INFINITY; N], [0.0_f32; N]);
    let mut sums = [[[0.0_f32; LANES]; MAX_HEAD_DIM / LANES]; N];
    for span in spans {
        for (keys, values) in span.blocks(head_dim) {
            let mut weights = [[0.0; KEY_BLOCK]; N];
            for (q, scores) in q.chunks_exact(head_dim).zip(&mut weights) {
                *scores = block_scores(q, keys, scale, values.len() / stride);
            }
            for h in 0..N {
                let block_max = largest(&weights[h]);
                if block_max > max[h] {
                    let rescale = exp(max[h] - block_max);
                    max[h] = block_max;
                    total[h] *= rescale;
                    sums[h][..stride / LANES].iter_mut().flatten().for_each(|sum| *sum *= rescale);
                }
            }
            for h in 0..N {
                // A loop, as `map` on an array is a function of its own, compiled without this instruction set.
                for weight in &mut weights[h] {
                    *weight = exp(*weight - max[h]);
                }
            }
            for h in 0..N {
                total[h] += weights[h].iter().sum::<f32>();
            }
            for (sums, weights) in sums.iter_mut().zip(&weights) {
                for (chunk, sums) in sums[..stride / LANES].iter_mut().enumerate() {
                    let mut sum = *sums;
                    for (weight, value) in weights.iter().zip(values.chunks_exact(stride)) {
                        let value: &[f32; LANES] = value[chunk * LANES..][..LANES].try_into().expect("a chunk has 16 values");
                        for (sum, &value) in sum.iter_mut().zip(value) {
                            *sum = weight.mul_add(value, *sum);
                        }
                    }
                    *sums = sum;
                }
            }
        }
    }
    for ((out, sums), total) in out.chunks_exact_mut(head_dim).zip(&sums).zip(total) {
        for (out, sum) in out.iter_mut().zip(sums.iter().flatten()) {
            *out = sum / total;
        }
    }
}

/// By halves, which takes fewer steps than one after the other and is the same number.
#[inline(always)]
fn largest(scores: &[f32; KEY_BLOCK]) -> f32 {
    let mut halves = *scores;
    let mut width = KEY_BLOCK / 2;
    while width > 0 {
        for i in 0..width {
            halves[i] = halves[i].max(halves[i + width]);
        }
        width /= 2;
    }
    halves[0]
}

/// `scale · q · K` for a block, with -inf past its last token. Four chains over `head_dim` hide the latency of the adds.
#[inline(always)]
fn block_scores(q: &[f32], keys: &[f32], scale: f32, len: usize) -> [f32; KEY_BLOCK] {
    let mut chains = [[0.0_f32; KEY_BLOCK]; 4];
    let mut groups = q.chunks_exact(4).zip(keys.chunks_exact(4 * KEY_BLOCK));
    for (q, keys) in &mut groups {
        for (chain, (&q, keys)) in chains.iter_mut().zip(q.iter().zip(keys.chunks_exact(KEY_BLOCK))) {
            for (sum, &key) in chain.iter_mut().zip(keys) {
                *sum = q.mul_add(key, *sum);
            }
        }
    }
    let whole = q.len() / 4 * 4;
    for (&q, keys) in q[whole..].iter().zip(keys[whole * KEY_BLOCK..].chunks_exact(KEY_BLOCK)) {
        for (sum, &key) in chains[0].iter_mut().zip(keys) {
            *sum = q.mul_add(key, *sum);
        }
    }
    let mut scores = [f32::NEG_INFINITY; KEY_BLOCK];
    for (t, score) in scores.iter_mut().enumerate().take(len) {
        *score = ((chains[0][t] + chains[1][t]) + (chains[2][t] + chains[3][t])) * scale;
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    fn noise(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    /// Memory of pages that hold two heads, and a table of every other page in it, from the last to the first. The second head has
    /// noise for `len` tokens; all else is NaN, as nothing may read it into a sum.
    fn pages(len: usize, head_dim: usize, seed: usize) -> (Vec<AlignedBuffer>, Vec<u32>) {
        let (stride, offset, blocks) = (value_stride(head_dim), head_block(head_dim), len.div_ceil(KEY_BLOCK));
        let mut pages: Vec<AlignedBuffer> = (0..2 * blocks).map(|_| AlignedBuffer::zeros(2 * offset)).collect();
        pages.iter_mut().for_each(|page| page.fill(f32::NAN));
        let table: Vec<u32> = (0..blocks as u32).rev().map(|page| 2 * page + 1).collect();
        let (keys, values) = (noise(len * head_dim, seed), noise(len * head_dim, seed + 1));
        for (t, (key, value)) in keys.chunks(head_dim).zip(values.chunks(head_dim)).enumerate() {
            let head = &mut pages[table[t / KEY_BLOCK] as usize][offset..];
            let t = t % KEY_BLOCK;
            for (d, key) in key.iter().enumerate() {
                head[d * KEY_BLOCK + t] = *key;
            }
            let row = &mut head[KEY_BLOCK * head_dim + t * stride..][..stride];
            row.fill(0.0);
            row[..head_dim].copy_from_slice(value);
        }
        (pages, table)
    }

    fn span((pages, table): &(Vec<AlignedBuffer>, Vec<u32>), head_dim: usize, len: usize) -> KvSpan<'_> {
        KvSpan { pages, table, offset: head_block(head_dim), len }
    }

    #[test]
    fn every_instruction_set_gives_one_answer_near_the_plain_formula() {
        for (head_dim, heads, lens) in [(64, 3, [37, 18]), (8, 1, [1, 0]), (80, 2, [16, 1]), (30, 4, [5, 40]), (256, 1, [70, 33])]
        {
            let q: Vec<f32> = noise(heads * head_dim, 5).iter().map(|x| x * 3.0).collect();
            let data = lens.map(|len| pages(len, head_dim, 11 + len));
            let spans: [KvSpan; 2] = std::array::from_fn(|i| span(&data[i], head_dim, lens[i]));
            let scale = (head_dim as f32).sqrt().recip();
            let mut expected = vec![0.0; q.len()];
            decode_attention_reference(&q, &spans, head_dim, scale, &mut expected);
            let answers: Vec<Vec<f32>> = Isa::all()
                .into_iter()
                .map(|isa| {
                    let mut out = vec![f32::NAN; q.len()];
                    decode_attention(isa, &q, spans, head_dim, scale, &mut out);
                    out
                })
                .collect();
            for answer in &answers {
                assert_eq!(*answer, answers[0], "instruction sets differ");
                assert!(answer.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{head_dim} {lens:?}");
            }
        }
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let mut data = pages(20, 16, 3);
        for &page in &data.1 {
            data.0[page as usize][head_block(16)..][..KEY_BLOCK * 16].iter_mut().for_each(|key| *key *= 1e4);
        }
        let spans = [span(&data, 16, 20), KvSpan::EMPTY];
        let mut out = [0.0; 16];
        decode_attention(Isa::detect(), &noise(16, 9), spans, 16, 1.0, &mut out);
        assert!(out.iter().all(|x| x.abs() <= 1.0), "a mean of values within [-1, 1]: {out:?}");
    }
}
