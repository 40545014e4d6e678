//! What this machine can do at most: the rates that measured work is held against.
//!
//! A ceiling is the best of a few short samples. Virtual machines drift by a factor of two within minutes, so a ceiling says something
//! only about work that was measured next to it.

#![expect(clippy::inline_always, reason = "loops must be compiled for the instruction set of their caller")]

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use pulp::{Simd, WithSimd};

use super::aligned::AlignedBuffer;
use super::isa::{Isa, for_each_isa};
use super::tiles::{Amx, peak_work};

/// A sample goes on for this long.
const SAMPLE: Duration = Duration::from_millis(80);
/// Samples of which the best counts.
const SAMPLES: usize = 3;
/// Accumulators of [`Sums`], independent of each other: twice 4 cycles of latency on two units need 8; with its two constants AVX2's 16
/// registers hold 12.
const CHAINS: usize = 12;

/// Bytes a second that `threads` threads together read from one array of `bytes` bytes, each its own part of it from end to end.
///
/// An array several times as large as the last-level cache gives the memory's bandwidth; one as large as a model's weights gives
/// what a pass over these weights can reach, caches included.
pub fn read_bandwidth(bytes: usize, threads: usize) -> f64 {
    let isa = Isa::detect();
    let mut array = AlignedBuffer::<f32>::zeros((bytes / size_of::<f32>()).max(64 * threads));
    // Memory that nobody wrote to is one page of zeros, however often it is read.
    array.fill(1.0);
    let part = array.len() / threads;
    let array = &*array;
    best_rate(threads, |thread| {
        let part = &array[thread * part..(thread + 1) * part];
        black_box(sum(isa, black_box(part)));
        size_of_val(part) as f64
    })
}

/// Float32 operations a second that `threads` threads reach together with multiply-adds (two operations each) over registers alone, in the
/// widest vectors there are.
pub fn f32_peak(threads: usize) -> f64 {
    const STEPS: usize = 100_000;
    best_rate(threads, |_| {
        let (sum, lanes) = pulp::Arch::new().dispatch(Sums { steps: STEPS });
        black_box(sum);
        (2 * STEPS * CHAINS * lanes) as f64
    })
}

/// The same for products of bfloat16 numbers summed in float32; None where the machine has no instructions for them that the matrix products
/// of this program use.
pub fn bf16_peak(threads: usize) -> Option<f64> {
    let amx = Amx::detect()?;
    Some(best_rate(threads, |_| peak_work(amx) as f64))
}

/// The best of [`SAMPLES`] rates: units of `work` a second, summed over threads that begin together. `work(thread)` says how many
/// units it did.
fn best_rate(threads: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    let sample = || -> f64 {
        let barrier = Barrier::new(threads);
        let of_thread = |thread| {
            barrier.wait();
            let (start, mut units) = (Instant::now(), 0.0);
            while start.elapsed() < SAMPLE {
                units += work(thread);
            }
            units / start.elapsed().as_secs_f64()
        };
        thread::scope(|scope| {
            let of_thread = &of_thread;
            let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || of_thread(thread))).collect();
            running.into_iter().map(|thread| thread.join().expect("nothing panics in a sample")).sum()
        })
    };
    (0..SAMPLES).map(|_| sample()).fold(0.0, f64::max)
}

for_each_isa! {
    /// The sum, in lanes that any vector width can take.
    pub fn sum(x: &[f32]) -> f32 = sum_lanes;
}

#[inline(always)]
fn sum_lanes(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 64];
    let chunks = x.chunks_exact(64);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// [`CHAINS`] chains of multiply-adds that stay in registers; gives a number that depends on all of them, and the lanes of a register.
struct Sums {
    steps: usize,
}

impl WithSimd for Sums {
    type Output = (f32, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        // Other values in each chain, unknown to the compiler, so that it can fold neither chains nor steps.
        let (factor, term) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(black_box(1e-3)));
        let mut sums: [S::f32s; CHAINS] = [simd.splat_f32s(0.0); CHAINS];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = simd.splat_f32s(black_box(i as f32));
        }
        for _ in 0..self.steps {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, term);
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += simd.reduce_sum_f32s(sum);
        }
        (total, S::F32_LANES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_the_value_of_their_formula() {
        // Each chain converges to the fixed point of s = 0.999 s + 0.001, which is 1.
        let (sum, lanes) = pulp::Arch::new().dispatch(Sums { steps: 20_000 });
        assert!((sum - (CHAINS * lanes) as f32).abs() < 0.05, "{sum} of {lanes} lanes");
    }

    #[test]
    fn read_touches_every_element_in_every_instruction_set() {
        let x: Vec<f32> = (0..1000).map(|i| (i % 7) as f32).collect();
        for isa in Isa::all() {
            assert_eq!(sum(isa, &x), x.iter().sum::<f32>(), "{isa:?}");
        }
    }

    #[test]
    fn ceilings_are_positive_for_arrays_smaller_than_the_threads() {
        assert!(read_bandwidth(0, 3) > 0.0);
        assert!(f32_peak(1) > 0.0);
    }
}
