//! What the vector loops share: dispatch by instruction set, an exponential, and sums in a fixed order.
//!
//! Loops are written over chunks of [`LANES`] elements, which LLVM turns into AVX-512, AVX2 or NEON instructions inside
//! [`vectorize`]. Multiply-adds are always fused and sums always have [`LANES`] partial sums, so the instruction set changes the
//! speed and not the result.
#![expect(clippy::inline_always, reason = "a function that is not inlined into `vectorize` misses its instruction set")]

/// Partial sums of every reduction: one AVX-512 register of float32.
pub const LANES: usize = 16;

/// Runs `f`, and what is inlined into it, compiled for the best instruction set of this processor.
pub fn vectorize<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// `e^x`: relative error below 2⁻²² against f64 on [-87, 88]; 0 below -87, infinite above 88.4, NaN for NaN.
///
/// `x = n·ln 2 + r` with n whole and |r| <= ln 2 / 2; then `2^n` by bits and `e^r` by its Taylor polynomial of degree 7, whose
/// remainder r⁸/8! is below 6e-9.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5·2²³ leaves the nearest whole number in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let clamped = if clamped > 89.0 { 89.0 } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = r.mul_add(p, coefficient);
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if x < -87.0 { 0.0 } else { p * power }
}

/// The sum of the lanes, as a tree: lane i and lane i + 8, then i + 4, ...
#[inline(always)]
pub fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ term(x[i], y[i], partial sum)` with element i in lane `i % LANES`. `term` returns the new partial sum.
#[inline(always)]
pub fn fold2(x: &[f32], y: &[f32], term: impl Fn(f32, f32, f32) -> f32) -> f32 {
    debug_assert_eq!(x.len(), y.len());
    let mut lanes = [0.0; LANES];
    let (x_chunks, y_chunks) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_rest, y_rest) = (x_chunks.remainder(), y_chunks.remainder());
    for (x, y) in x_chunks.zip(y_chunks) {
        for i in 0..LANES {
            lanes[i] = term(x[i], y[i], lanes[i]);
        }
    }
    for (i, (&x, &y)) in x_rest.iter().zip(y_rest).enumerate() {
        lanes[i] = term(x, y, lanes[i]);
    }
    sum_lanes(lanes)
}

/// `Σ x[i]·y[i]`.
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    fold2(x, y, f32::mul_add)
}

/// The largest element; negative infinity when there is none. NaNs are passed over.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::noise;

    #[test]
    fn exp_stays_within_its_bound_on_the_whole_range() {
        let worst = vectorize(|| {
            (0..1_750_000).fold(0.0_f64, |worst, i| {
                let x = -87.0 + i as f32 * 1e-4;
                let exact = f64::from(x).exp();
                worst.max((f64::from(exp(x)) - exact).abs() / exact)
            })
        });
        assert!(worst < 2.0_f64.powi(-22), "relative error {worst:e}");
    }

    #[test]
    fn exp_keeps_its_limits() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(1e30), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_equal_plain_loops_for_every_tail() {
        for len in 0..70 {
            let (x, y) = (noise(len, 1), noise(len, 2));
            let plain: f64 = x.iter().zip(&y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            assert!((f64::from(dot(&x, &y)) - plain).abs() < 1e-5, "{len}");
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
