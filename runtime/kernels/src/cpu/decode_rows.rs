//! Row-wise functions of decoding, and the exponential they share. One order of summation, whatever the vector width.
#![expect(
    clippy::inline_always,
    reason = "a body that is not inlined into `for_each_isa`'s functions misses their instruction set"
)]

use super::isa::for_each_isa;

/// `e^x` for `x <= 0` with a relative error below 2e-7; 0 below -87, NaN for NaN.
///
/// Cody-Waite reduction `x = n·ln 2 + r` with `|r| <= ln 2 / 2`, then Cephes' polynomial for `e^r` (Moshier, `expf`). It is
/// written in plain operations so that loops over it become vector code, with the same bits in every width.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 · 2^23 rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(r, c);
    }
    let p = p.mul_add(r * r, r) + 1.0;
    // 2^n; n is at least -126 where the result is kept, so the exponent is in range there.
    let power = f32::from_bits(rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

for_each_isa! {
    /// `row / sqrt(mean(row²) + eps) · weight`, in place (RMSNorm, Zhang and Sennrich 2019). `[n]` each.
    pub fn rms_norm(row: &mut [f32], weight: &[f32], eps: f32) = rms_norm_body;
}

#[inline(always)]
fn rms_norm_body(row: &mut [f32], weight: &[f32], eps: f32) {
    let mut lanes = [0.0_f32; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = x.mul_add(x, *lane);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = x.mul_add(x, *lane);
    }
    let scale = 1.0 / (lanes.iter().sum::<f32>() / row.len() as f32 + eps).sqrt();
    for (x, &weight) in row.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}

for_each_isa! {
    /// `out = silu(gate) · up` with `silu(x) = x / (1 + e^-x)` (SwiGLU, Shazeer 2020). `[n]` each.
    pub fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) = swiglu_body;
}

#[inline(always)]
fn swiglu_body(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        // The exponential of a negative number cannot overflow.
        let e = exp(-gate.abs());
        let numerator = if gate < 0.0 { e } else { 1.0 };
        *out = gate * (numerator / (1.0 + e)) * up;
    }
}

/// Turns the pairs `(x[i], x[i + half])` of each head by the angles whose cosines and sines are given (rotary positions, Su et
/// al. 2021, in Hugging Face's half-split layout).
///
/// # Shapes
/// - `heads`: `[heads, 2 · half]`, in place. `cos`, `sin`: `[half]` at the row's position.
pub fn rotate(heads: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for head in heads.chunks_exact_mut(2 * half) {
        let (low, high) = head.split_at_mut(half);
        for (((low, high), &cos), &sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place_and_flushes_below_minus_87() {
        for i in 0..=870_000 {
            let x = -(i as f32) / 1e4;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 2e-7 * exact, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-87.1), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn every_instruction_set_gives_one_answer_near_the_formulas() {
        let n = 83;
        let gate: Vec<f32> = (0..n).map(|i| (i as f32 - 41.0) * 0.37).collect();
        let up: Vec<f32> = (0..n).map(|i| 1.0 + (i % 7) as f32 * 0.3).collect();
        let mean_square = gate.iter().map(|x| x * x).sum::<f32>() / n as f32;
        for isa in Isa::all() {
            let mut normed = gate.clone();
            rms_norm(isa, &mut normed, &up, 1e-5);
            let mut portable = gate.clone();
            rms_norm_body(&mut portable, &up, 1e-5);
            assert_eq!(normed, portable, "{isa:?}");
            let mut out = vec![0.0; n];
            swiglu(isa, &gate, &up, &mut out);
            let mut portable = vec![0.0; n];
            swiglu_body(&gate, &up, &mut portable);
            assert_eq!(out, portable, "{isa:?}");
            for i in 0..n {
                assert!((normed[i] - gate[i] / (mean_square + 1e-5).sqrt() * up[i]).abs() < 1e-5);
                assert!((out[i] - gate[i] / (1.0 + (-gate[i]).exp()) * up[i]).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn rotation_turns_pairs_half_a_head_apart() {
        let mut heads = [1.0, 2.0, 0.0, 0.0];
        rotate(&mut heads, &[0.0, 0.5], &[1.0, 0.75]);
        assert_eq!(heads, [0.0, 1.0, 1.0, 1.5]);
    }
}
