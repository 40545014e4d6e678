//! Log-probabilities and entropies of target tokens, straight from hidden states, and back.
//!
//! For a row with hidden state x, `z = W·x / T` and `p = softmax(z)`; a target asks for one token y of a row:
//!
//! ```text
//! lse = ln Σ_v exp(z_v)     logprob = z_y − lse     entropy = lse − Σ_v p_v z_v
//! dz_v = Σ_targets dlogprob·([v = y] − p_v) − dentropy · p_v·(z_v − lse + entropy)
//! dx = dz·W / T             dW += dzᵀ·x / T
//! ```
//!
//! Logits exist for [`CHUNK`] rows at a time, `4·CHUNK·vocab` bytes, and are recomputed by the backward pass: a whole batch's would
//! be the largest tensor of training by far.
//!
//! Work a row: `2·d·v` FLOP forward, `6·d·v` backward, and v exponentials each.

use rayon::prelude::*;

use super::matmul::{Matrix, MatrixMut, Precision, Store, matmul};
use super::vector::{LANES, exp, max, sum_lanes, vectorize};

/// Rows of a chunk. Each chunk reads all of W (and, backward, adds to all of dW), so few rows would be bound by memory.
pub const CHUNK: usize = 256;

/// The output layer of a model, and the targets asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Output matrix W, `[vocab, d]`.
    pub matrix: &'a [f32],
    /// Hidden states of the rows that targets ask for, `[rows, d]`, after the last norm.
    pub hidden: &'a [f32],
    /// Width d of a hidden state.
    pub width: usize,
    /// Logits are divided by this, T.
    pub temperature: f32,
    /// Targets of row i are `row_ends[i - 1]..row_ends[i]`, `[rows]`.
    pub row_ends: &'a [usize],
    /// Token of each target, `[targets]`.
    pub tokens: &'a [u32],
    /// Of the products.
    pub precision: Precision,
}

impl Head<'_> {
    fn vocab(&self) -> usize {
        self.matrix.len() / self.width
    }

    fn rows(&self) -> usize {
        self.row_ends.len()
    }

    fn targets(&self, row: usize) -> std::ops::Range<usize> {
        (if row == 0 { 0 } else { self.row_ends[row - 1] })..self.row_ends[row]
    }

    fn check(&self) {
        let (vocab, width) = (self.vocab(), self.width);
        assert_eq!(self.matrix.len(), vocab * width, "logprob: output matrix");
        assert_eq!(self.hidden.len(), self.rows() * width, "logprob: hidden states");
        assert_eq!(self.row_ends.last().copied().unwrap_or(0), self.tokens.len(), "logprob: every target has a row");
        assert!(self.tokens.iter().all(|&token| (token as usize) < vocab), "logprob: a token is outside the vocabulary");
    }

    /// Undivided logits of rows `first..first + count`.
    fn logits(&self, first: usize, count: usize, out: &mut [f32]) {
        let hidden = Matrix::new(&self.hidden[first * self.width..][..count * self.width], count, self.width);
        let matrix = Matrix::new(self.matrix, self.vocab(), self.width);
        matmul(self.precision, Store::Set, MatrixMut::new(out, count, self.vocab()), hidden, matrix.t());
    }
}

/// What [`logprob`] writes; the backward pass wants the numbers of the rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logprobs {
    /// Log-probability of each target, `[targets]`.
    pub logprobs: Vec<f32>,
    /// Log-sum-exp of each row's logits, `[rows]`.
    pub lse: Vec<f32>,
    /// Entropy of each row's distribution, `[rows]`.
    pub entropies: Vec<f32>,
}

/// Plain reference of [`logprob`], in f64.
pub fn logprob_reference(head: Head) -> Logprobs {
    head.check();
    let mut answer = Logprobs::default();
    for (row, x) in head.hidden.chunks(head.width).enumerate() {
        let z = reference_logits(&head, x);
        let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
        answer.lse.push(lse as f32);
        answer.entropies.push(z.iter().map(|z| (lse - z) * (z - lse).exp()).sum::<f64>() as f32);
        answer.logprobs.extend(head.targets(row).map(|i| (z[head.tokens[i] as usize] - lse) as f32));
    }
    answer
}

fn reference_logits(head: &Head, x: &[f32]) -> Vec<f64> {
    let product = |w: &[f32]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
    head.matrix.chunks(head.width).map(|w| product(w) / f64::from(head.temperature)).collect()
}

/// Log-probabilities of the targets, and log-sum-exp and entropy of each row. `logits` is scratch.
///
/// # Panics
/// When shapes disagree or a token is outside the vocabulary.
pub fn logprob(head: Head, logits: &mut Vec<f32>) -> Logprobs {
    head.check();
    let (vocab, rows) = (head.vocab(), head.rows());
    let mut answer = Logprobs { logprobs: vec![0.0; head.tokens.len()], lse: vec![0.0; rows], entropies: vec![0.0; rows] };
    let inverse_temperature = 1.0 / head.temperature;
    for first in (0..rows).step_by(CHUNK) {
        let count = CHUNK.min(rows - first);
        logits.resize((count * vocab).max(logits.len()), 0.0);
        let logits = &mut logits[..count * vocab];
        head.logits(first, count, logits);
        let numbers = answer.lse[first..].par_iter_mut().zip(&mut answer.entropies[first..]);
        logits.par_chunks_exact(vocab).zip(numbers).for_each(|(row, (lse, entropy))| {
            (*lse, *entropy) = summarize(row, inverse_temperature);
        });
        for (i, row) in logits.chunks_exact(vocab).enumerate() {
            for target in head.targets(first + i) {
                let logit = row[head.tokens[target] as usize];
                answer.logprobs[target] = logit * inverse_temperature - answer.lse[first + i];
            }
        }
    }
    answer
}

/// Log-sum-exp and entropy of the logits `scale · row`.
///
/// With `u_v = z_v − max z` and `S = Σ exp(u_v)`: `lse = max z + ln S`, `entropy = ln S − Σ exp(u_v)·u_v / S`. The maximum goes
/// first, as exp of a logit above 88.7 overflows f32.
fn summarize(row: &[f32], scale: f32) -> (f32, f32) {
    vectorize(
        #[inline(always)]
        || {
            let shift = max(row);
            let (mut sums, mut weighted) = ([0.0_f32; LANES], [0.0_f32; LANES]);
            let mut add = |i: usize, logit: f32| {
                let u = (logit - shift) * scale;
                let e = exp(u);
                sums[i] += e;
                weighted[i] = e.mul_add(u, weighted[i]);
            };
            let chunks = row.chunks_exact(LANES);
            let rest = chunks.remainder();
            for chunk in chunks {
                for (i, &logit) in chunk.iter().enumerate() {
                    add(i, logit);
                }
            }
            for (i, &logit) in rest.iter().enumerate() {
                add(i, logit);
            }
            let (sum, weighted) = (sum_lanes(sums), sum_lanes(weighted));
            let log_sum = sum.ln();
            (shift * scale + log_sum, log_sum - weighted / sum)
        },
    )
}

/// Gradients that come into [`logprob_backward`].
#[derive(Clone, Copy, Debug)]
pub struct LogprobGrads<'a> {
    /// By each target's log-probability, `[targets]`.
    pub logprobs: &'a [f32],
    /// By each row's entropy (the sum over its targets), `[rows]`; None when the loss uses none.
    pub entropies: Option<&'a [f32]>,
}

/// Plain reference of [`logprob_backward`], in f64.
pub fn logprob_backward_reference(head: Head, saved: &Logprobs, grads: LogprobGrads, dhidden: &mut [f32], dmatrix: &mut [f32]) {
    head.check();
    let width = head.width;
    for (row, x) in head.hidden.chunks(width).enumerate() {
        let z = reference_logits(&head, x);
        let (lse, entropy) = (f64::from(saved.lse[row]), f64::from(saved.entropies[row]));
        let dentropy = grads.entropies.map_or(0.0, |d| f64::from(d[row]));
        let mut dx = vec![0.0_f64; width];
        for (v, z) in z.iter().enumerate() {
            let p = (z - lse).exp();
            let mut dz = -dentropy * p * (z - lse + entropy);
            for target in head.targets(row) {
                let hit = f64::from(u8::from(head.tokens[target] as usize == v));
                dz += f64::from(grads.logprobs[target]) * (hit - p);
            }
            dz /= f64::from(head.temperature);
            for c in 0..width {
                dx[c] += dz * f64::from(head.matrix[v * width + c]);
                dmatrix[v * width + c] += (dz * f64::from(x[c])) as f32;
            }
        }
        for (out, dx) in dhidden[row * width..].iter_mut().zip(dx) {
            *out = dx as f32;
        }
    }
}

/// Writes `dhidden[rows, d]` and adds to `dmatrix[vocab, d]`, given what [`logprob`] answered. `logits` is scratch.
///
/// # Panics
/// When shapes disagree.
pub fn logprob_backward(
    head: Head,
    saved: &Logprobs,
    grads: LogprobGrads,
    logits: &mut Vec<f32>,
    dhidden: &mut [f32],
    dmatrix: &mut [f32],
) {
    head.check();
    let (vocab, rows, width) = (head.vocab(), head.rows(), head.width);
    assert!(saved.lse.len() == rows && saved.entropies.len() == rows, "logprob_backward: rows");
    assert!(grads.logprobs.len() == head.tokens.len(), "logprob_backward: targets");
    assert!(grads.entropies.is_none_or(|d| d.len() == rows), "logprob_backward: entropies");
    for first in (0..rows).step_by(CHUNK) {
        let count = CHUNK.min(rows - first);
        logits.resize((count * vocab).max(logits.len()), 0.0);
        let logits = &mut logits[..count * vocab];
        head.logits(first, count, logits);
        logits.par_chunks_exact_mut(vocab).enumerate().for_each(|(i, row)| backward_row(&head, saved, grads, first + i, row));
        let dlogits = Matrix::new(logits, count, vocab);
        let chunk = first * width..(first + count) * width;
        let dhidden = MatrixMut::new(&mut dhidden[chunk.clone()], count, width);
        matmul(head.precision, Store::Set, dhidden, dlogits, Matrix::new(head.matrix, vocab, width));
        let hidden = Matrix::new(&head.hidden[chunk], count, width);
        matmul(head.precision, Store::Add, MatrixMut::new(dmatrix, vocab, width), dlogits.t(), hidden);
    }
}

/// Turns a row of undivided logits into their gradients.
fn backward_row(head: &Head, saved: &Logprobs, grads: LogprobGrads, row: usize, logits: &mut [f32]) {
    let scale = 1.0 / head.temperature;
    let (lse, entropy) = (saved.lse[row], saved.entropies[row]);
    let total: f32 = head.targets(row).map(|i| grads.logprobs[i]).sum();
    let dentropy = grads.entropies.map_or(0.0, |d| d[row]);
    // dz_v = −p_v · (total + dentropy · (ln p_v + entropy)), and the targets' own terms afterwards.
    let constant = dentropy.mul_add(entropy, total);
    vectorize(
        #[inline(always)]
        || {
            for logit in logits.iter_mut() {
                let log_p = logit.mul_add(scale, -lse);
                *logit = -exp(log_p) * dentropy.mul_add(log_p, constant) * scale;
            }
        },
    );
    for target in head.targets(row) {
        logits[head.tokens[target] as usize] += grads.logprobs[target] * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, noise, with_threads};

    struct Case {
        matrix: Vec<f32>,
        hidden: Vec<f32>,
        width: usize,
        temperature: f32,
        row_ends: Vec<usize>,
        tokens: Vec<u32>,
        precision: Precision,
    }

    impl Case {
        /// Rows have 1, 2, 3, 1, ... targets.
        fn new(rows: usize, width: usize, vocab: usize, temperature: f32) -> Self {
            let row_ends: Vec<usize> = (0..rows).scan(0, |end, row| Some((*end += 1 + row % 3, *end).1)).collect();
            let tokens = (0..row_ends.last().copied().unwrap_or(0)).map(|i| (i * 31 % vocab) as u32).collect();
            let matrix = noise(vocab * width, 1).iter().map(|x| x * 3.0).collect();
            let precision = Precision::Highest;
            Case { matrix, hidden: noise(rows * width, 2), width, temperature, row_ends, tokens, precision }
        }

        fn head(&self) -> Head<'_> {
            Head {
                matrix: &self.matrix,
                hidden: &self.hidden,
                width: self.width,
                temperature: self.temperature,
                row_ends: &self.row_ends,
                tokens: &self.tokens,
                precision: self.precision,
            }
        }
    }

    fn cases() -> Vec<Case> {
        vec![Case::new(0, 4, 5, 1.0), Case::new(1, 3, 2, 1.0), Case::new(CHUNK + 7, 8, 50, 0.7), Case::new(20, 33, 1000, 1.3)]
    }

    #[test]
    fn logprobs_entropies_and_gradients_equal_references() {
        for case in cases() {
            let head = case.head();
            let expected = logprob_reference(head);
            let mut scratch = vec![f32::NAN; 10];
            let got = logprob(head, &mut scratch);
            assert_close(&got.logprobs, &expected.logprobs, 2e-6, "logprobs");
            assert_close(&got.lse, &expected.lse, 2e-6, "lse");
            assert_close(&got.entropies, &expected.entropies, 1e-5, "entropies");

            let (dlogprobs, dentropies) = (noise(case.tokens.len(), 3), noise(case.row_ends.len(), 4));
            for entropies in [None, Some(&dentropies[..])] {
                let grads = LogprobGrads { logprobs: &dlogprobs, entropies };
                let [mut dhidden, mut expected_dhidden] = [vec![f32::NAN; case.hidden.len()], vec![f32::NAN; case.hidden.len()]];
                let [mut dmatrix, mut expected_dmatrix] = [noise(case.matrix.len(), 5), noise(case.matrix.len(), 5)];
                scratch.fill(f32::NAN);
                logprob_backward(head, &got, grads, &mut scratch, &mut dhidden, &mut dmatrix);
                logprob_backward_reference(head, &expected, grads, &mut expected_dhidden, &mut expected_dmatrix);
                assert_close(&dhidden, &expected_dhidden, 1e-5, "dhidden");
                assert_close(&dmatrix, &expected_dmatrix, 1e-5, "dmatrix");
            }
        }
    }

    #[test]
    fn logprob_backward_reference_equals_finite_differences() {
        let mut case = Case::new(4, 5, 7, 0.8);
        let (dlogprobs, dentropies) = (noise(case.tokens.len(), 3), noise(4, 4));
        let loss = |case: &Case| {
            let answer = logprob_reference(case.head());
            let terms = answer.logprobs.iter().zip(&dlogprobs).chain(answer.entropies.iter().zip(&dentropies));
            terms.map(|(x, d)| f64::from(*x) * f64::from(*d)).sum::<f64>()
        };
        let (mut dhidden, mut dmatrix) = (vec![0.0; case.hidden.len()], vec![0.0; case.matrix.len()]);
        let grads = LogprobGrads { logprobs: &dlogprobs, entropies: Some(&dentropies) };
        logprob_backward_reference(case.head(), &logprob_reference(case.head()), grads, &mut dhidden, &mut dmatrix);
        let h = 1e-2_f32;
        for i in 0..dhidden.len() + dmatrix.len() {
            let mut moved = |by: f32| {
                let parameter = if i < dhidden.len() { &mut case.hidden[i] } else { &mut case.matrix[i - dhidden.len()] };
                let before = std::mem::replace(parameter, *parameter + by);
                let loss = loss(&case);
                *(if i < dhidden.len() { &mut case.hidden[i] } else { &mut case.matrix[i - dhidden.len()] }) = before;
                loss
            };
            let slope = (moved(h) - moved(-h)) / (2.0 * f64::from(h));
            let got = if i < dhidden.len() { dhidden[i] } else { dmatrix[i - dhidden.len()] };
            assert!((f64::from(got) - slope).abs() < 5e-3, "{i}: {got} and {slope}");
        }
    }

    #[test]
    fn logprob_has_the_same_bits_for_any_number_of_threads() {
        let mut case = Case::new(40, 24, 1100, 0.9);
        for precision in [Precision::Highest, Precision::High] {
            case.precision = precision;
            let run = |threads| {
                with_threads(threads, || {
                    let mut scratch = Vec::new();
                    let got = logprob(case.head(), &mut scratch);
                    let (mut dhidden, mut dmatrix) = (vec![0.0; case.hidden.len()], vec![0.0; case.matrix.len()]);
                    let dlogprobs = noise(case.tokens.len(), 3);
                    let grads = LogprobGrads { logprobs: &dlogprobs, entropies: None };
                    logprob_backward(case.head(), &got, grads, &mut scratch, &mut dhidden, &mut dmatrix);
                    (got, dhidden, dmatrix)
                })
            };
            assert!(run(1) == run(3), "{precision:?}");
        }
    }

    #[test]
    fn logprob_of_huge_logits_is_finite() {
        let matrix = [1e4, -1e4, 0.0];
        let head = Head {
            matrix: &matrix,
            hidden: &[1.0],
            width: 1,
            temperature: 1.0,
            row_ends: &[2],
            tokens: &[0, 2],
            precision: Precision::Highest,
        };
        let got = logprob(head, &mut Vec::new());
        assert_eq!(got.logprobs, [0.0, -1e4]);
        assert_eq!(got.entropies, [0.0]);
    }
}
