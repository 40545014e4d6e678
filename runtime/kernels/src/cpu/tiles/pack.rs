//! From float32 matrices to tiles of bfloat16.

#[cfg(target_arch = "x86_64")]
#[allow(clippy::wildcard_imports)]
use std::arch::x86_64::*;

use super::{Planes, TILE, TILE_K};

/// How a tile lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cpu) enum Form {
    /// Of `a`: `[TILE lanes][TILE_K]`.
    Rows,
    /// Of `b`: `[TILE_K / 2][TILE lanes][2]`, two steps of k side by side.
    Pairs,
}

/// A part of a matrix to become one tile: `lanes` rows of `a` (or columns of `b`) and `steps` of k. The rest of the tile is zeros.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Source {
    pub start: *const f32,
    /// Elements from one lane to the next.
    pub lane_stride: usize,
    /// Elements from one step to the next. One of the strides is 1.
    pub step_stride: usize,
    pub lanes: usize,
    pub steps: usize,
}

/// Writes a tile; its second plane, where there is one, `plane_stride` elements behind the first.
///
/// # Safety
/// The source is readable; at `target` there is room for the planes' tiles; the machine has AVX-512 with BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in crate::cpu) unsafe fn pack_tile(source: Source, form: Form, planes: Planes, target: *mut u16, plane_stride: usize) {
    let Source { start, lane_stride, step_stride, lanes, steps } = source;
    debug_assert!(lanes <= TILE && steps <= TILE_K && (lane_stride == 1 || step_stride == 1));
    let mut high = [_mm512_setzero_si512(); TILE];
    let mut low = [_mm512_setzero_si512(); TILE];
    // SAFETY: reads stay within the source's lanes and steps by the masks and bounds, writes within the tile.
    unsafe {
        let natural = if step_stride == 1 {
            let masks = [mask(steps), mask(steps.saturating_sub(TILE))];
            for lane in 0..lanes {
                let row = start.add(lane * lane_stride);
                let [x0, x1] = [_mm512_maskz_loadu_ps(masks[0], row), _mm512_maskz_loadu_ps(masks[1], row.wrapping_add(TILE))];
                high[lane] = as_integers(_mm512_cvtne2ps_pbh(x1, x0));
                if planes == Planes::Two {
                    let rest = |x: __m512| _mm512_sub_ps(x, widen(_mm512_cvtneps_pbh(x)));
                    low[lane] = as_integers(_mm512_cvtne2ps_pbh(rest(x1), rest(x0)));
                }
            }
            Form::Rows
        } else {
            let lanes = mask(lanes);
            for pair in 0..steps.div_ceil(2) {
                let row = start.wrapping_add(2 * pair * step_stride);
                let x0 = _mm512_maskz_loadu_ps(lanes, row);
                let x1 = _mm512_maskz_loadu_ps(if 2 * pair + 1 < steps { lanes } else { 0 }, row.wrapping_add(step_stride));
                high[pair] = interleave(x0, x1);
                if planes == Planes::Two {
                    let rest = |x: __m512| _mm512_sub_ps(x, widen(_mm512_cvtneps_pbh(x)));
                    low[pair] = interleave(rest(x0), rest(x1));
                }
            }
            Form::Pairs
        };
        if natural != form {
            transpose(&mut high);
        }
        for (i, high) in high.iter().enumerate() {
            _mm512_storeu_si512(target.add(i * TILE_K).cast(), *high);
        }
        if planes == Planes::Two {
            if natural != form {
                transpose(&mut low);
            }
            for (i, low) in low.iter().enumerate() {
                _mm512_storeu_si512(target.add(plane_stride + i * TILE_K).cast(), *low);
            }
        }
    }
}

/// No machine without x86-64 has tiles.
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::cpu) unsafe fn pack_tile(_: Source, _: Form, _: Planes, _: *mut u16, _: usize) {
    unreachable!("there are no tiles");
}

/// The first `n` of 16.
#[cfg(target_arch = "x86_64")]
fn mask(n: usize) -> __mmask16 {
    if n >= TILE { !0 } else { (1 << n) - 1 }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn as_integers(x: __m512bh) -> __m512i {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(x) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn halves(x: __m256bh) -> __m512i {
    // SAFETY: both are 32 bytes without invalid values.
    _mm512_cvtepu16_epi32(unsafe { std::mem::transmute::<__m256bh, __m256i>(x) })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn widen(x: __m256bh) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves(x)))
}

/// bfloat16 of x0 in the low and of x1 in the high half of each 32 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn interleave(x0: __m512, x1: __m512) -> __m512i {
    let [x0, x1] = [halves(_mm512_cvtneps_pbh(x0)), halves(_mm512_cvtneps_pbh(x1))];
    _mm512_or_si512(x0, _mm512_slli_epi32::<16>(x1))
}

/// Transposes 16 × 16 elements of 32 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transpose(x: &mut [__m512i; TILE]) {
    let mut y = [_mm512_setzero_si512(); TILE];
    // 2 × 2 blocks of 32 bits, then of 64, then of 128, then of 256.
    for i in 0..8 {
        y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    for i in 0..4 {
        for half in 0..2 {
            x[4 * i + 2 * half] = _mm512_unpacklo_epi64(y[4 * i + half], y[4 * i + 2 + half]);
            x[4 * i + 2 * half + 1] = _mm512_unpackhi_epi64(y[4 * i + half], y[4 * i + 2 + half]);
        }
    }
    for i in 0..4 {
        for (pair, base) in [(0, 0), (2, 8)] {
            let (upper, lower) = (x[4 * pair + i], x[4 * pair + 4 + i]);
            y[base + i] = _mm512_shuffle_i32x4::<0x88>(upper, lower);
            y[base + 4 + i] = _mm512_shuffle_i32x4::<0xdd>(upper, lower);
        }
    }
    for i in 0..8 {
        x[i] = _mm512_shuffle_i32x4::<0x88>(y[i], y[8 + i]);
        x[8 + i] = _mm512_shuffle_i32x4::<0xdd>(y[i], y[8 + i]);
    }
}
