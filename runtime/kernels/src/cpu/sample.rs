//! Loops over a row of logits, as sampling needs them.
//!
//! A row stands for unnormalized probabilities `e^((logit - max) / temperature)`, its weights. Their sums by blocks of [`BLOCK`]
//! ids make the inverse of the cumulative distribution two short walks: over block sums, then within one block. So where nothing
//! is cut a draw reads the row twice, for the maximum and for the sums, and writes nothing: only one block's weights are made
//! again. Merging the two reads by rescaling sums as the maximum grows (Milakov and Gimelshein 2018) would round them otherwise,
//! and the row comes out of the second-level cache.
#![expect(
    clippy::inline_always,
    reason = "a body that is not inlined into `for_each_isa`'s functions misses their instruction set"
)]

use std::ops::Range;

use super::decode_rows::exp;
use super::isa::for_each_isa;

/// Ids in a block.
pub const BLOCK: usize = 64;

for_each_isa! {
    /// The largest logit; NaN logits are passed over.
    pub fn largest(logits: &[f32]) -> f32 = largest_body;
}

#[inline(always)]
fn largest_body(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

for_each_isa! {
    /// Writes each logit's weight `e^((logit - max) · inverse_temperature)`, `[v]`. A logit that is NaN has a weight that is NaN.
    pub fn exponentiate(logits: &[f32], max: f32, inverse_temperature: f32, weights: &mut [f32]) = exponentiate_body;
}

#[inline(always)]
fn exponentiate_body(logits: &[f32], max: f32, inverse_temperature: f32, weights: &mut [f32]) {
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        *weight = exp((logit - max) * inverse_temperature);
    }
}

for_each_isa! {
    /// Sums of blocks of the weights that [`exponentiate`] would write, `[ceil(v / 64)]`: the same bits as its weights'
    /// [`block_sums`], without a place for the weights.
    pub fn exponential_sums(logits: &[f32], max: f32, inverse_temperature: f32, sums: &mut [f64]) = exponential_sums_body;
}

#[inline(always)]
fn exponential_sums_body(logits: &[f32], max: f32, inverse_temperature: f32, sums: &mut [f64]) {
    let mut weights = [0.0; BLOCK];
    for (block, total) in logits.chunks(BLOCK).zip(sums) {
        let weights = &mut weights[..block.len()];
        exponentiate_body(block, max, inverse_temperature, weights);
        *total = block_sum(weights);
    }
}

for_each_isa! {
    /// Sums of blocks of weights, `[ceil(v / 64)]`, after some weights were set to 0.
    pub fn block_sums(weights: &[f32], sums: &mut [f64]) = block_sums_body;
}

#[inline(always)]
fn block_sums_body(weights: &[f32], sums: &mut [f64]) {
    for (block, total) in weights.chunks(BLOCK).zip(sums) {
        *total = block_sum(block);
    }
}

#[inline(always)]
fn block_sum(block: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    for chunk in block.chunks(8) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(x);
        }
    }
    lanes.iter().sum()
}

/// The first id whose cumulative weight exceeds `uniform` times the total: a draw from the distribution of the weights, in the
/// order of ids. `uniform` is in [0, 1), `sums` are the weights' block sums, and some weight is positive. `weights_of(ids)` are the
/// weights of one block's ids, of as many as there are.
///
/// # Panics
/// When all weights are 0.
pub fn inverse_cdf<'a>(sums: &[f64], uniform: f64, weights_of: impl FnOnce(Range<usize>) -> &'a [f32]) -> (usize, f32) {
    let mut rest = uniform * sums.iter().sum::<f64>();
    let mut last = None;
    for (block, &sum) in sums.iter().enumerate() {
        if sum > 0.0 {
            last = Some(block);
            if rest < sum {
                break;
            }
            rest -= sum;
        }
    }
    // Past the last block only by rounding: then the draw is the last positive weight of all.
    let start = last.expect("some weight is positive") * BLOCK;
    let mut chosen = None;
    for (id, &weight) in weights_of(start..start + BLOCK).iter().enumerate() {
        if weight > 0.0 {
            chosen = Some((start + id, weight));
            if rest < f64::from(weight) {
                break;
            }
            rest -= f64::from(weight);
        }
    }
    chosen.expect("a block with a positive sum has a positive weight")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    fn logits(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) % 1009) as f32 / 50.0 - 10.0).collect()
    }

    #[test]
    fn the_largest_logit_is_found_anywhere_in_every_instruction_set() {
        for at in [0, 3, 17, 40, 290, 299] {
            let mut row = logits(300);
            row[at] = 50.0;
            row[(at + 100) % 300] = f32::NAN;
            for isa in Isa::all() {
                assert_eq!(largest(isa, &row), 50.0, "{at}");
            }
        }
    }

    #[test]
    fn exponentials_and_sums_have_one_value_in_every_instruction_set() {
        let n = 333;
        let row = logits(n);
        let max = largest(Isa::detect(), &row);
        let mut expected: Option<(Vec<f32>, Vec<f64>)> = None;
        for isa in Isa::all() {
            let (mut weights, mut sums) = (vec![f32::NAN; n], vec![f64::NAN; n.div_ceil(BLOCK)]);
            exponentiate(isa, &row, max, 1.0 / 0.7, &mut weights);
            block_sums(isa, &weights, &mut sums);
            for (weight, logit) in weights.iter().zip(&row) {
                let exact = (f64::from(logit - max) / 0.7).exp();
                assert!((f64::from(*weight) - exact).abs() < 2e-6 * exact);
            }
            let mut at_once = vec![0.0; sums.len()];
            exponential_sums(isa, &row, max, 1.0 / 0.7, &mut at_once);
            assert_eq!(sums, at_once);
            assert_eq!(*expected.get_or_insert_with(|| (weights.clone(), sums.clone())), (weights, sums), "{isa:?}");
        }
    }

    #[test]
    fn inverse_cdf_walks_ids_in_order_and_never_lands_on_weight_zero() {
        let mut weights = vec![0.0_f32; 200];
        (weights[5], weights[70], weights[199]) = (1.0, 2.0, 1.0);
        let mut sums = vec![0.0; 4];
        block_sums(Isa::detect(), &weights, &mut sums);
        for (uniform, id) in [(0.0, 5), (0.249, 5), (0.25, 70), (0.749, 70), (0.75, 199), (1.0, 199)] {
            let drawn = inverse_cdf(&sums, uniform, |ids| &weights[ids.start..ids.end.min(200)]);
            assert_eq!(drawn, (id, weights[id]), "{uniform}");
        }
    }
}
