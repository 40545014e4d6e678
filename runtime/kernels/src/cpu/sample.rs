//! Loops over a row of logits, as sampling needs them.
//!
//! A row becomes unnormalized probabilities `e^((logit - max) / temperature)`, and their sums by blocks of [`BLOCK`] ids. The
//! blocks make the inverse of the cumulative distribution two short walks: over block sums, then within one block.
#![expect(
    clippy::inline_always,
    reason = "a body that is not inlined into `for_each_isa`'s functions misses their instruction set"
)]

use super::decode_rows::exp;
use super::isa::for_each_isa;

/// Ids in a block.
pub const BLOCK: usize = 64;

for_each_isa! {
    /// The largest logit and the lowest id that has it; NaN logits are passed over.
    pub fn argmax(logits: &[f32]) -> (f32, usize) = argmax_body;
}

#[inline(always)]
fn argmax_body(logits: &[f32]) -> (f32, usize) {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    (max, logits.iter().position(|&x| x == max).unwrap_or(0))
}

for_each_isa! {
    /// Replaces each logit by `e^((logit - max) · inverse_temperature)` and writes the sums of blocks to `sums`,
    /// `[ceil(v / 64)]`. A logit that is NaN makes its block's sum NaN.
    pub fn exponentiate(logits: &mut [f32], max: f32, inverse_temperature: f32, sums: &mut [f64]) = exponentiate_body;
}

#[inline(always)]
fn exponentiate_body(logits: &mut [f32], max: f32, inverse_temperature: f32, sums: &mut [f64]) {
    for (block, total) in logits.chunks_mut(BLOCK).zip(sums) {
        for x in block.iter_mut() {
            *x = exp((*x - max) * inverse_temperature);
        }
        *total = block_sum(block);
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
/// order of ids. `uniform` is in [0, 1), `sums` are the weights' block sums, and some weight is positive.
///
/// # Panics
/// When all weights are 0.
pub fn inverse_cdf(weights: &[f32], sums: &[f64], uniform: f64) -> usize {
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
    for (id, &weight) in weights[start..].iter().take(BLOCK).enumerate() {
        if weight > 0.0 {
            chosen = Some(id);
            if rest < f64::from(weight) {
                break;
            }
            rest -= f64::from(weight);
        }
    }
    start + chosen.expect("a block with a positive sum has a positive weight")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    fn logits(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) % 1009) as f32 / 50.0 - 10.0).collect()
    }

    #[test]
    fn argmax_takes_the_lowest_id_among_equals_in_every_instruction_set() {
        let mut row = logits(300);
        for (a, b) in [(3, 299), (40, 41), (0, 17), (290, 297)] {
            for x in &mut row {
                *x = x.min(9.0);
            }
            row[a] = 50.0;
            row[b] = 50.0;
            for isa in Isa::all() {
                assert_eq!(argmax(isa, &row), (50.0, a));
            }
        }
    }

    #[test]
    fn exponentials_and_sums_have_one_value_in_every_instruction_set() {
        let n = 333;
        let row = logits(n);
        let (max, _) = argmax(Isa::detect(), &row);
        let mut expected: Option<(Vec<f32>, Vec<f64>)> = None;
        for isa in Isa::all() {
            let (mut weights, mut sums) = (row.clone(), vec![0.0; n.div_ceil(BLOCK)]);
            exponentiate(isa, &mut weights, max, 1.0 / 0.7, &mut sums);
            for (weight, logit) in weights.iter().zip(&row) {
                let exact = (f64::from(logit - max) / 0.7).exp();
                assert!((f64::from(*weight) - exact).abs() < 2e-6 * exact);
            }
            let mut again = vec![0.0; sums.len()];
            block_sums(isa, &weights, &mut again);
            assert_eq!(sums, again);
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
            assert_eq!(inverse_cdf(&weights, &sums, uniform), id, "{uniform}");
        }
    }
}
