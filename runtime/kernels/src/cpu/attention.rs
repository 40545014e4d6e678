//! Causal grouped-query attention over packed segments that may share a prefix, forward and backward.
//!
//! Token i of a segment attends to all tokens of the segment's prefix, if it has one, and to tokens 0..=i of its own. With scores
//! `s_ij = q_i·k_j / sqrt(h)`:
//!
//! ```text
//! forward   lse_i = ln Σ_j exp(s_ij)     p_ij = exp(s_ij − lse_i)     o_i = Σ_j p_ij v_j
//! backward  dp_ij = do_i·v_j             ds_ij = p_ij (dp_ij − do_i·o_i)
//!           dq_i = Σ_j ds_ij k_j / sqrt(h)     dk_j += Σ_i ds_ij q_i / sqrt(h)     dv_j += Σ_i p_ij do_i
//! ```
//!
//! As in FlashAttention-2 (Dao 2023), only `lse` is kept, probabilities are recomputed, and `do·o` stands for `Σ_j dp_ij p_ij`.
//! A block of [`QUERIES`] queries sees all its keys at once: its scores, `4·QUERIES·keys` bytes, stay in the L2 cache, and both of
//! its products are large enough for the matrix micro-kernels.
//!
//! Work for t queries on s keys: `4·t·s·h` FLOP a head forward, `10·t·s·h` backward, half of that where causal. Parallel over
//! (segment, query head) forward. Backward, one task owns a key head of a prefix and of all segments that continue it, and adds
//! their contributions to the prefix in the order of the segments.
#![expect(unsafe_code, reason = "heads are bands of shared rows, which workers write through `Disjoint`")]

use rayon::prelude::*;

use super::disjoint::Disjoint;
use super::matmul::{Matrix, MatrixMut, Store, matmul_serial};
use super::vector::{dot, exp, max, sum_lanes, vectorize};

/// Queries of a block.
const QUERIES: usize = 64;

/// Heads, and how a row of `qkv` holds them: all queries, then all keys, then all values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key (and value) heads; query heads `g·i .. g·(i + 1)`, g = query / key, share key head i.
    pub key: usize,
    /// Width of a head, h.
    pub dim: usize,
}

impl Heads {
    /// Elements of a row of `qkv`.
    pub fn qkv_stride(&self) -> usize {
        (self.query + 2 * self.key) * self.dim
    }

    /// Elements of a row of the output.
    pub fn out_stride(&self) -> usize {
        self.query * self.dim
    }

    fn key_offset(&self, head: usize) -> usize {
        (self.query + head) * self.dim
    }

    fn value_offset(&self, head: usize) -> usize {
        (self.query + self.key + head) * self.dim
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.dim as f64).sqrt()) as f32
    }
}

/// A run of rows that attend to themselves, and to those of another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First row.
    pub start: usize,
    /// Number of rows.
    pub len: usize,
    /// Index of an earlier span without a prefix of its own.
    pub prefix: Option<usize>,
}

/// One head's view of the rows.
struct Head<'a> {
    qkv: &'a [f32],
    stride: usize,
    dim: usize,
    query: usize,
    key: usize,
    value: usize,
}

impl<'a> Head<'a> {
    fn new(heads: Heads, qkv: &'a [f32], query_head: usize) -> Self {
        let key_head = query_head / (heads.query / heads.key);
        Head {
            qkv,
            stride: heads.qkv_stride(),
            dim: heads.dim,
            query: query_head * heads.dim,
            key: heads.key_offset(key_head),
            value: heads.value_offset(key_head),
        }
    }

    fn rows(&self, offset: usize, start: usize, len: usize) -> Matrix<'a> {
        Matrix::strided(&self.qkv[start * self.stride + offset..], len, self.dim, self.stride)
    }

    fn queries(&self, start: usize, len: usize) -> Matrix<'a> {
        self.rows(self.query, start, len)
    }

    fn keys(&self, start: usize, len: usize) -> Matrix<'a> {
        self.rows(self.key, start, len)
    }

    fn values(&self, start: usize, len: usize) -> Matrix<'a> {
        self.rows(self.value, start, len)
    }
}

/// A block of queries: rows `first..first + len` of a span, and the keys they see.
#[derive(Clone, Copy)]
struct Block {
    /// The span's first row.
    span: usize,
    /// First query, counted within the span.
    first: usize,
    len: usize,
    /// First row and length of the prefix; (0, 0) without one.
    prefix: (usize, usize),
}

impl Block {
    /// The blocks of a span, in order.
    fn of(spans: &[Span], span: usize) -> impl Iterator<Item = Block> {
        let Span { start, len, prefix } = spans[span];
        let prefix = prefix.map_or((0, 0), |prefix| (spans[prefix].start, spans[prefix].len));
        (0..len).step_by(QUERIES).map(move |first| Block { span: start, first, len: QUERIES.min(len - first), prefix })
    }

    /// Row of the first query.
    fn row(&self) -> usize {
        self.span + self.first
    }

    /// Keys of the own span that some query of the block sees.
    fn own_keys(&self) -> usize {
        self.first + self.len
    }

    /// Columns of the block's score matrix: prefix, then own keys.
    fn keys(&self) -> usize {
        self.prefix.1 + self.own_keys()
    }

    /// Columns that the i-th query of the block sees.
    fn visible(&self, i: usize) -> usize {
        self.prefix.1 + self.first + i + 1
    }

    /// `out[len, keys] = rows[len, h] · [prefix; own][keys, h]ᵀ`.
    fn against_keys(&self, rows: Matrix, prefix: Matrix, own: Matrix, out: &mut [f32]) {
        let (len, keys, split) = (self.len, self.keys(), self.prefix.1);
        if split > 0 {
            matmul_serial(Store::Set, MatrixMut::strided(out, len, split, keys), rows, prefix.t());
        }
        matmul_serial(Store::Set, MatrixMut::strided(&mut out[split..], len, self.own_keys(), keys), rows, own.t());
    }

    /// `out[len, h] = weights[len, keys] · [prefix; own][keys, h]`.
    fn over_keys(&self, weights: &[f32], prefix: Matrix, own: Matrix, mut out: MatrixMut) {
        let (len, keys, split) = (self.len, self.keys(), self.prefix.1);
        let own_weights = Matrix::strided(&weights[split..], len, self.own_keys(), keys);
        if split == 0 {
            return matmul_serial(Store::Set, out, own_weights, own);
        }
        matmul_serial(Store::Set, out.reborrow(), Matrix::strided(weights, len, split, keys), prefix);
        matmul_serial(Store::Add, out, own_weights, own);
    }
}

fn check(heads: Heads, qkv: &[f32], spans: &[Span], out: &[f32], lse: &[f32]) -> usize {
    let n = qkv.len() / heads.qkv_stride();
    assert!(heads.query.is_multiple_of(heads.key), "{} query heads on {} key heads", heads.query, heads.key);
    assert_eq!(qkv.len(), n * heads.qkv_stride(), "attention: qkv");
    assert_eq!(out.len(), n * heads.out_stride(), "attention: out");
    assert_eq!(lse.len(), n * heads.query, "attention: lse");
    let mut next = 0;
    for span in spans {
        assert_eq!(span.start, next, "spans follow each other without gaps");
        assert!(span.prefix.is_none_or(|p| spans[p].prefix.is_none() && spans[p].start < span.start), "prefixes come first");
        next += span.len;
    }
    assert_eq!(next, n, "spans cover all rows");
    n
}

/// Plain reference of [`attention`], in f64.
pub fn attention_reference(heads: Heads, qkv: &[f32], spans: &[Span], out: &mut [f32], lse: &mut [f32]) {
    let n = check(heads, qkv, spans, out, lse);
    let (h, stride, group) = (heads.dim, heads.qkv_stride(), heads.query / heads.key);
    for span in spans {
        let prefix = span.prefix.map_or(0..0, |p| spans[p].start..spans[p].start + spans[p].len);
        for i in span.start..span.start + span.len {
            let visible: Vec<usize> = prefix.clone().chain(span.start..=i).collect();
            for head in 0..heads.query {
                let q = &qkv[i * stride + head * h..][..h];
                let scores: Vec<f64> = visible
                    .iter()
                    .map(|j| {
                        let k = &qkv[j * stride + heads.key_offset(head / group)..][..h];
                        q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() / (h as f64).sqrt()
                    })
                    .collect();
                let log_sum = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
                lse[head * n + i] = log_sum as f32;
                for c in 0..h {
                    let value = |j: usize| f64::from(qkv[j * stride + heads.value_offset(head / group) + c]);
                    let mixed: f64 = visible.iter().zip(&scores).map(|(&j, s)| (s - log_sum).exp() * value(j)).sum();
                    out[i * heads.out_stride() + head * h + c] = mixed as f32;
                }
            }
        }
    }
}

/// Writes the heads' outputs `out[n, query·h]` and their `lse[query, n]`, from `qkv[n, (query + 2·key)·h]`.
///
/// # Panics
/// When shapes disagree, or `spans` leave rows out.
pub fn attention(heads: Heads, qkv: &[f32], spans: &[Span], out: &mut [f32], lse: &mut [f32]) {
    let n = check(heads, qkv, spans, out, lse);
    let (h, scale, out_stride) = (heads.dim, heads.scale(), heads.out_stride());
    let (out, lse) = (Disjoint::new(out), Disjoint::new(lse));
    (0..spans.len() * heads.query).into_par_iter().with_max_len(1).for_each_init(Vec::new, |scores, task| {
        let (span, query_head) = (task / heads.query, task % heads.query);
        let head = Head::new(heads, qkv, query_head);
        let mut mixed = [0.0_f32; QUERIES].repeat(h);
        for block in Block::of(spans, span) {
            let (keys, own) = (block.keys(), block.own_keys());
            scores.resize(block.len * keys, 0.0);
            let queries = head.queries(block.row(), block.len);
            let (prefix_start, prefix_len) = block.prefix;
            block.against_keys(queries, head.keys(prefix_start, prefix_len), head.keys(block.span, own), scores);
            // SAFETY: task (span, head) alone writes these rows of this head, one block after the other.
            let lse = unsafe { lse.slice(query_head * n + block.row()..query_head * n + block.row() + block.len) };
            let mut inverse_sums = [0.0; QUERIES];
            vectorize(
                #[inline(always)]
                || {
                    for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
                        let (seen, hidden) = row.split_at_mut(block.visible(i));
                        let shift = max(seen);
                        let sum = exp_shifted(seen, scale, shift);
                        hidden.fill(0.0);
                        lse[i] = shift * scale + sum.ln();
                        inverse_sums[i] = 1.0 / sum;
                    }
                },
            );
            let (prefix, own) = (head.values(prefix_start, prefix_len), head.values(block.span, own));
            block.over_keys(scores, prefix, own, MatrixMut::new(&mut mixed[..block.len * h], block.len, h));
            for (i, mixed) in mixed.chunks_exact(h).take(block.len).enumerate() {
                let at = (block.row() + i) * out_stride + query_head * h;
                // SAFETY: as above.
                let out = unsafe { out.slice(at..at + h) };
                for (out, mixed) in out.iter_mut().zip(mixed) {
                    *out = mixed * inverse_sums[i];
                }
            }
        }
    });
}

/// `x[i] = exp(scale · (x[i] − shift))`; returns their sum.
#[expect(clippy::inline_always, reason = "must be inlined into `vectorize`")]
#[inline(always)]
fn exp_shifted(x: &mut [f32], scale: f32, shift: f32) -> f32 {
    let mut lanes = [0.0_f32; super::vector::LANES];
    let mut chunks = x.chunks_exact_mut(lanes.len());
    for x in &mut chunks {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *x = exp((*x - shift) * scale);
            *lane += *x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(chunks.into_remainder()) {
        *x = exp((*x - shift) * scale);
        *lane += *x;
    }
    sum_lanes(lanes)
}

/// What [`attention`] had and wrote.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSaved<'a> {
    /// `[n, (query + 2·key)·h]`.
    pub qkv: &'a [f32],
    /// `[n, query·h]`.
    pub out: &'a [f32],
    /// `[query, n]`.
    pub lse: &'a [f32],
}

/// Plain reference of [`attention_backward`], in f64.
pub fn attention_backward_reference(heads: Heads, saved: AttentionSaved, spans: &[Span], dout: &[f32], dqkv: &mut [f32]) {
    let n = check(heads, saved.qkv, spans, saved.out, saved.lse);
    let (h, stride, group) = (heads.dim, heads.qkv_stride(), heads.query / heads.key);
    let mut d = vec![0.0_f64; dqkv.len()];
    let at = |row: usize, offset: usize| row * stride + offset;
    for span in spans {
        let prefix = span.prefix.map_or(0..0, |p| spans[p].start..spans[p].start + spans[p].len);
        for i in span.start..span.start + span.len {
            for head in 0..heads.query {
                let (q, k, v) = (head * h, heads.key_offset(head / group), heads.value_offset(head / group));
                let element = |index: usize| f64::from(saved.qkv[index]);
                let dout = |c: usize| f64::from(dout[i * heads.out_stride() + head * h + c]);
                let delta: f64 = (0..h).map(|c| dout(c) * f64::from(saved.out[i * heads.out_stride() + head * h + c])).sum();
                for j in prefix.clone().chain(span.start..=i) {
                    let score: f64 = (0..h).map(|c| element(at(i, q) + c) * element(at(j, k) + c)).sum();
                    let p = (score / (h as f64).sqrt() - f64::from(saved.lse[head * n + i])).exp();
                    let dp: f64 = (0..h).map(|c| dout(c) * element(at(j, v) + c)).sum();
                    let ds = p * (dp - delta) / (h as f64).sqrt();
                    for c in 0..h {
                        d[at(i, q) + c] += ds * element(at(j, k) + c);
                        d[at(j, k) + c] += ds * element(at(i, q) + c);
                        d[at(j, v) + c] += p * dout(c);
                    }
                }
            }
        }
    }
    for (dqkv, d) in dqkv.iter_mut().zip(d) {
        *dqkv = d as f32;
    }
}

/// Scratch of one worker of [`attention_backward`].
#[derive(Default)]
struct Scratch {
    /// Probabilities of a block, `[QUERIES, keys]`.
    probabilities: Vec<f32>,
    /// Their gradients, then those of the scores, `[QUERIES, keys]`.
    dscores: Vec<f32>,
    /// `[QUERIES, h]`.
    dqueries: Vec<f32>,
    /// Gradients of the prefix's keys and values, `[prefix, h]` each.
    prefix: [Vec<f32>; 2],
    /// Gradients of a span's own keys and values, `[len, h]` each.
    own: [Vec<f32>; 2],
}

/// Writes `dqkv[n, (query + 2·key)·h]` from the output's gradient `dout[n, query·h]`.
///
/// # Panics
/// When shapes disagree, or `spans` leave rows out.
pub fn attention_backward(heads: Heads, saved: AttentionSaved, spans: &[Span], dout: &[f32], dqkv: &mut [f32]) {
    check(heads, saved.qkv, spans, saved.out, saved.lse);
    assert!(dout.len() == saved.out.len() && dqkv.len() == saved.qkv.len(), "attention_backward");
    let mut families: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
    for (index, span) in spans.iter().enumerate() {
        families[span.prefix.unwrap_or(index)].push(index);
    }
    families.retain(|family| !family.is_empty());
    let (group, h) = (heads.query / heads.key, heads.dim);
    let dqkv = Disjoint::new(dqkv);
    let run = |scratch: &mut Scratch, task: usize| {
        let (family, key_head) = (&families[task / heads.key], task % heads.key);
        let root = spans[family[0]];
        reset(&mut scratch.prefix, root.len * h);
        for &index in family {
            let is_root = index == family[0];
            if !is_root {
                reset(&mut scratch.own, spans[index].len * h);
            }
            for query_head in key_head * group..(key_head + 1) * group {
                for block in Block::of(spans, index) {
                    backward_block(heads, saved, dout, query_head, block, scratch, is_root);
                    for (i, dquery) in scratch.dqueries.chunks_exact(h).take(block.len).enumerate() {
                        let at = (block.row() + i) * heads.qkv_stride() + query_head * h;
                        // SAFETY: this task alone writes the family's rows of the query heads that share its key head.
                        unsafe { dqkv.slice(at..at + h) }.copy_from_slice(dquery);
                    }
                }
            }
            if !is_root {
                // SAFETY: this task alone writes the family's rows of its key head.
                unsafe { write_keys_and_values(heads, &dqkv, key_head, spans[index].start, &scratch.own) };
            }
        }
        // SAFETY: as above.
        unsafe { write_keys_and_values(heads, &dqkv, key_head, root.start, &scratch.prefix) };
    };
    (0..families.len() * heads.key).into_par_iter().with_max_len(1).for_each_init(Scratch::default, run);
}

fn reset(buffers: &mut [Vec<f32>; 2], len: usize) {
    for buffer in buffers {
        buffer.clear();
        buffer.resize(len, 0.0);
    }
}

/// Copies gradients of keys and values into the rows from `start` on.
///
/// # Safety
/// Nobody else holds these rows' elements of key head `head`.
unsafe fn write_keys_and_values(heads: Heads, dqkv: &Disjoint, head: usize, start: usize, gradients: &[Vec<f32>; 2]) {
    for (gradients, offset) in gradients.iter().zip([heads.key_offset(head), heads.value_offset(head)]) {
        for (i, gradient) in gradients.chunks_exact(heads.dim).enumerate() {
            let at = (start + i) * heads.qkv_stride() + offset;
            // SAFETY: the caller's contract.
            unsafe { dqkv.slice(at..at + heads.dim) }.copy_from_slice(gradient);
        }
    }
}

/// Sets `scratch.dqueries` of a block and adds to the gradients of the keys and values it sees: those of its prefix, and its own,
/// which are the prefix's buffers when its span is the prefix.
fn backward_block(
    heads: Heads,
    saved: AttentionSaved,
    dout: &[f32],
    query_head: usize,
    block: Block,
    scratch: &mut Scratch,
    is_root: bool,
) {
    let (h, scale, out_stride) = (heads.dim, heads.scale(), heads.out_stride());
    let (keys, own, len) = (block.keys(), block.own_keys(), block.len);
    let (prefix_start, split) = block.prefix;
    let head = Head::new(heads, saved.qkv, query_head);
    let Scratch { probabilities, dscores, dqueries, prefix: dprefix, own: down } = scratch;
    probabilities.resize(len * keys, 0.0);
    dscores.resize(len * keys, 0.0);
    dqueries.resize(len * h, 0.0);

    let queries = head.queries(block.row(), len);
    let out_at = block.row() * out_stride + query_head * h;
    let dout_block = Matrix::strided(&dout[out_at..], len, h, out_stride);
    let (prefix_keys, own_keys) = (head.keys(prefix_start, split), head.keys(block.span, own));
    block.against_keys(queries, prefix_keys, own_keys, probabilities);
    block.against_keys(dout_block, head.values(prefix_start, split), head.values(block.span, own), dscores);

    let n = saved.qkv.len() / heads.qkv_stride();
    let lse = &saved.lse[query_head * n + block.row()..][..len];
    vectorize(
        #[inline(always)]
        || {
            let rows = probabilities.chunks_exact_mut(keys).zip(dscores.chunks_exact_mut(keys));
            for (i, (p, ds)) in rows.enumerate() {
                let at = out_at + i * out_stride;
                let delta = dot(&dout[at..at + h], &saved.out[at..at + h]);
                let visible = block.visible(i);
                for (p, ds) in p[..visible].iter_mut().zip(&mut ds[..visible]) {
                    *p = exp(p.mul_add(scale, -lse[i]));
                    *ds = *p * (*ds - delta) * scale;
                }
                p[visible..].fill(0.0);
                ds[visible..].fill(0.0);
            }
        },
    );

    block.over_keys(dscores, prefix_keys, own_keys, MatrixMut::new(dqueries, len, h));
    let add = |gradients: &mut [f32], weights: &[f32], rows: Matrix, first: usize, count: usize| {
        let weights = Matrix::strided(&weights[first..], len, count, keys).t();
        matmul_serial(Store::Add, MatrixMut::new(&mut gradients[..count * h], count, h), weights, rows);
    };
    if split > 0 {
        add(&mut dprefix[0], dscores, queries, 0, split);
        add(&mut dprefix[1], probabilities, dout_block, 0, split);
    }
    let [dkeys, dvalues] = if is_root { dprefix } else { down };
    add(dkeys, dscores, queries, split, own);
    add(dvalues, probabilities, dout_block, split, own);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, noise, with_threads};

    /// A lone sequence, prompts with several continuations (not all beside their prompt), and lengths around block borders.
    fn cases() -> Vec<(Heads, Vec<Span>)> {
        let spans = |parts: &[(usize, Option<usize>)]| {
            let mut start = 0;
            parts
                .iter()
                .map(|&(len, prefix)| {
                    start += len;
                    Span { start: start - len, len, prefix }
                })
                .collect::<Vec<_>>()
        };
        vec![
            (Heads { query: 1, key: 1, dim: 2 }, spans(&[(1, None)])),
            (Heads { query: 2, key: 2, dim: 8 }, spans(&[(5, None), (3, None)])),
            (
                Heads { query: 6, key: 2, dim: 16 },
                spans(&[(70, None), (9, Some(0)), (5, None), (64, Some(2)), (65, Some(0)), (1, Some(2))]),
            ),
            (Heads { query: 3, key: 1, dim: 24 }, spans(&[(130, None), (129, Some(0)), (128, None)])),
        ]
    }

    fn rows(spans: &[Span]) -> usize {
        spans.iter().map(|span| span.len).sum()
    }

    #[test]
    fn attention_and_its_gradient_equal_references() {
        for (heads, spans) in cases() {
            let n = rows(&spans);
            let qkv: Vec<f32> = noise(n * heads.qkv_stride(), 1).iter().map(|x| 2.0 * x).collect();
            let dout = noise(n * heads.out_stride(), 2);
            let [mut out, mut expected] = [vec![f32::NAN; dout.len()], vec![f32::NAN; dout.len()]];
            let [mut lse, mut expected_lse] = [vec![f32::NAN; n * heads.query], vec![f32::NAN; n * heads.query]];
            attention(heads, &qkv, &spans, &mut out, &mut lse);
            attention_reference(heads, &qkv, &spans, &mut expected, &mut expected_lse);
            assert_close(&out, &expected, 2e-6, "out");
            assert_close(&lse, &expected_lse, 2e-6, "lse");

            let saved = AttentionSaved { qkv: &qkv, out: &out, lse: &lse };
            let [mut d, mut expected] = [vec![f32::NAN; qkv.len()], vec![f32::NAN; qkv.len()]];
            attention_backward(heads, saved, &spans, &dout, &mut d);
            attention_backward_reference(heads, saved, &spans, &dout, &mut expected);
            assert_close(&d, &expected, 1e-5, "dqkv");
        }
    }

    #[test]
    fn attention_backward_reference_equals_finite_differences() {
        let heads = Heads { query: 2, key: 1, dim: 4 };
        let spans = [Span { start: 0, len: 3, prefix: None }, Span { start: 3, len: 2, prefix: Some(0) }];
        let (qkv, dout) = (noise(5 * heads.qkv_stride(), 1), noise(5 * heads.out_stride(), 2));
        let forward = |qkv: &[f32]| {
            let (mut out, mut lse) = (vec![0.0; dout.len()], vec![0.0; 5 * heads.query]);
            attention_reference(heads, qkv, &spans, &mut out, &mut lse);
            (out, lse)
        };
        let loss = |qkv: &[f32]| forward(qkv).0.iter().zip(&dout).map(|(x, d)| f64::from(*x) * f64::from(*d)).sum::<f64>();
        let (out, lse) = forward(&qkv);
        let mut d = vec![0.0; qkv.len()];
        attention_backward_reference(heads, AttentionSaved { qkv: &qkv, out: &out, lse: &lse }, &spans, &dout, &mut d);
        for i in 0..qkv.len() {
            let (mut up, mut down) = (qkv.clone(), qkv.clone());
            up[i] += 1e-2;
            down[i] -= 1e-2;
            let slope = (loss(&up) - loss(&down)) / 2e-2;
            assert!((f64::from(d[i]) - slope).abs() < 1e-3, "{i}: {} and {slope}", d[i]);
        }
    }

    #[test]
    fn attention_has_the_same_bits_for_any_number_of_threads() {
        for (heads, spans) in cases() {
            let n = rows(&spans);
            let (qkv, dout) = (noise(n * heads.qkv_stride(), 1), noise(n * heads.out_stride(), 2));
            let run = |threads| {
                with_threads(threads, || {
                    let (mut out, mut lse) = (vec![f32::NAN; dout.len()], vec![f32::NAN; n * heads.query]);
                    attention(heads, &qkv, &spans, &mut out, &mut lse);
                    let mut d = vec![f32::NAN; qkv.len()];
                    attention_backward(heads, AttentionSaved { qkv: &qkv, out: &out, lse: &lse }, &spans, &dout, &mut d);
                    (out, lse, d)
                })
            };
            assert!(run(1) == run(3));
        }
    }
}
