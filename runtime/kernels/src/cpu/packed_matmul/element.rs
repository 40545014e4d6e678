//! What a weight is stored as, and how it becomes a float32 again in registers.
#![expect(clippy::inline_always, reason = "a body that is not inlined into the tile's function misses its instruction set")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _mm_loadl_epi64, _mm_loadu_si128, _mm256_and_si256, _mm256_castsi256_ps, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_slli_epi32, _mm512_and_si512,
    _mm512_castsi512_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_slli_epi32,
};

use half::bf16;

use super::PANEL;

/// A stored weight.
///
/// A panel holds, for each [`Element::STEPS`] steps of k, the steps of each column side by side: `[k / STEPS][PANEL][STEPS]`.
///
/// # Safety
/// [`Element::load16`] and [`Element::load8`] read no further than the 16 or 8 columns of one group of steps.
pub(super) unsafe trait Element: Copy + Default + Send + Sync {
    /// Steps of k that lie side by side.
    const STEPS: usize;
    /// Whether rows have a scale other than 1.
    const SCALED: bool;

    /// What a row's stored values are multiplied by to be its weights.
    fn scale(row: &[f32]) -> f32;
    /// The stored value nearest to `w` in a row of that scale.
    fn narrow(w: f32, scale: f32) -> Self;
    /// As a float32, exactly.
    fn widen(self) -> f32;

    /// Step `PHASE` of a group, 16 columns of it.
    ///
    /// # Safety
    /// The machine has AVX-512F; `group` starts at the first step of one of 16 columns whose steps are all readable.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load16<const PHASE: usize>(group: *const Self) -> __m512;

    /// As [`Element::load16`] for 8 columns.
    ///
    /// # Safety
    /// The machine has AVX2; `group` starts at the first step of one of 8 columns whose steps are all readable.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load8<const PHASE: usize>(group: *const Self) -> __m256;
}

/// Where a weight lies in its panel.
#[inline(always)]
pub(super) fn place<E: Element>(step: usize, lane: usize) -> usize {
    step / E::STEPS * (E::STEPS * PANEL) + lane * E::STEPS + step % E::STEPS
}

// SAFETY: the loads read 16 and 8 floats.
unsafe impl Element for f32 {
    const STEPS: usize = 1;
    const SCALED: bool = false;

    fn scale(_: &[f32]) -> f32 {
        1.0
    }

    fn narrow(w: f32, _: f32) -> Self {
        w
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load16<const PHASE: usize>(group: *const Self) -> __m512 {
        // SAFETY: the caller vouches for 16 floats and the instructions.
        unsafe { _mm512_loadu_ps(group) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load8<const PHASE: usize>(group: *const Self) -> __m256 {
        // SAFETY: the caller vouches for 8 floats and the instructions.
        unsafe { _mm256_loadu_ps(group) }
    }
}

/// Bits of a float32 that bfloat16 keeps.
#[cfg(target_arch = "x86_64")]
const HIGH: i32 = 0xffff_0000_u32.cast_signed();

// SAFETY: the loads read 16 and 8 pairs of a column's two steps.
//
// Two steps share 32 bits: the first is shifted up, the second only masked. That is one operation for a vector of weights, where
// widening 16 neighbours takes a shuffle and a shift, on the ports that the multiply-adds need.
unsafe impl Element for bf16 {
    const STEPS: usize = 2;
    const SCALED: bool = false;

    fn scale(_: &[f32]) -> f32 {
        1.0
    }

    fn narrow(w: f32, _: f32) -> Self {
        bf16::from_f32(w)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load16<const PHASE: usize>(group: *const Self) -> __m512 {
        // SAFETY: the caller vouches for 16 pairs and the instructions.
        unsafe {
            let pairs = _mm512_loadu_si512(group.cast());
            _mm512_castsi512_ps(match PHASE {
                0 => _mm512_slli_epi32::<16>(pairs),
                _ => _mm512_and_si512(pairs, _mm512_set1_epi32(HIGH)),
            })
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load8<const PHASE: usize>(group: *const Self) -> __m256 {
        // SAFETY: the caller vouches for 8 pairs and the instructions.
        unsafe {
            let pairs = _mm256_loadu_si256(group.cast());
            _mm256_castsi256_ps(match PHASE {
                0 => _mm256_slli_epi32::<16>(pairs),
                _ => _mm256_and_si256(pairs, _mm256_set1_epi32(HIGH)),
            })
        }
    }
}

// SAFETY: the loads read 16 and 8 bytes.
unsafe impl Element for i8 {
    const STEPS: usize = 1;
    const SCALED: bool = true;

    /// `max|w| / 127`; 0 for a row with nothing above 1e-30, whose weights are stored as 0. NaN where a weight is NaN.
    fn scale(row: &[f32]) -> f32 {
        let max = row.iter().fold(0.0_f32, |max, &w| if max.is_nan() || w.abs() <= max { max } else { w.abs() });
        if max < 1e-30 { 0.0 } else { max / 127.0 }
    }

    fn narrow(w: f32, scale: f32) -> Self {
        // Adding 1.5 · 2^23 rounds to the nearest integer, ties to even, and leaves its two's complement in the low bits.
        const ROUND: f32 = 12_582_912.0;
        if scale == 0.0 {
            return 0;
        }
        (w / scale + ROUND).to_bits().to_le_bytes()[0].cast_signed()
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load16<const PHASE: usize>(group: *const Self) -> __m512 {
        // SAFETY: the caller vouches for 16 bytes and the instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(group.cast()))) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load8<const PHASE: usize>(group: *const Self) -> __m256 {
        // SAFETY: the caller vouches for 8 bytes and the instructions.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(group.cast()))) }
    }
}
