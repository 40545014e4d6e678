//! A few rows of `x` against one panel of `W`, in registers.

use super::PANEL;
use super::element::{Element, place};
use crate::cpu::isa::{Isa, Kind};

/// Rows of `x` in a tile.
pub(super) const MAX_ROWS: usize = 8;

/// Steps of k between which memory is asked for: the least whose bytes are whole cache lines in every format.
const GROUP: usize = 4;

const LINE_BYTES: usize = 64;

/// Which part of the next panel a tile asks the memory for while it computes. All blocks of rows share this work, so that
/// memory and arithmetic overlap at any batch size. For `[49152, 576]` and 16 rows on one core of the build machine it bought
/// 17.9 → 11.5 ms, against asking a few lines ahead within the panel.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "the portable path leaves prefetching to the machine"))]
pub(super) struct Ahead {
    start: *const u8,
    /// Cache lines per [`GROUP`] steps of k.
    lines: usize,
}

impl Ahead {
    pub(super) fn new<E: Element>(panel: &[E], block: usize, blocks: usize) -> Self {
        // Of a panel's lines in a group of steps: 12, 6 or 3.
        let all = GROUP * PANEL * size_of::<E>() / LINE_BYTES;
        let lines = all.div_ceil(blocks);
        let first = (block * lines).min(all);
        // Only ever an address to prefetch, which need not be valid.
        let start = panel.as_ptr().cast::<u8>().wrapping_add(size_of_val(panel) + first * size_of_val(panel) / all);
        Ahead { start, lines: lines.min(all - first) }
    }
}

/// `tile[rows, PANEL] = x[rows, k] · panel[k, PANEL]`, stored values as they are.
pub(super) fn multiply_tile<E: Element>(isa: Isa, x: &[f32], panel: &[E], k: usize, ahead: &Ahead, tile: &mut [[f32; PANEL]]) {
    assert!(x.len() == tile.len() * k && panel.len() == panel_len::<E>(k) && tile.len() <= MAX_ROWS);
    match isa.0 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` is only made after the machine said that it has these instructions; the lengths are checked above.
        Kind::Avx512 => unsafe {
            match tile.len() {
                0 => {}
                1 => x86::avx512::<1, E>(x, panel, k, ahead, tile),
                2 => x86::avx512::<2, E>(x, panel, k, ahead, tile),
                3 => x86::avx512::<3, E>(x, panel, k, ahead, tile),
                4 => x86::avx512::<4, E>(x, panel, k, ahead, tile),
                5 => x86::avx512::<5, E>(x, panel, k, ahead, tile),
                6 => x86::avx512::<6, E>(x, panel, k, ahead, tile),
                7 => x86::avx512::<7, E>(x, panel, k, ahead, tile),
                _ => x86::avx512::<8, E>(x, panel, k, ahead, tile),
            }
        },
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => {
            // 16 registers hold 4 × 24 sums; the panel comes out of the cache for the other half and the other rows.
            for (x, tile) in x.chunks(4 * k).zip(tile.chunks_mut(4)) {
                for half in 0..2 {
                    // SAFETY: as above.
                    unsafe {
                        match tile.len() {
                            1 => x86::avx2::<1, E>(x, panel, k, half, ahead, tile),
                            2 => x86::avx2::<2, E>(x, panel, k, half, ahead, tile),
                            3 => x86::avx2::<3, E>(x, panel, k, half, ahead, tile),
                            _ => x86::avx2::<4, E>(x, panel, k, half, ahead, tile),
                        }
                    }
                }
            }
        }
        Kind::Portable => {
            for (x, sums) in x.chunks_exact(k).zip(tile) {
                sums.fill(0.0);
                for (step, &x) in x.iter().enumerate() {
                    for (lane, sum) in sums.iter_mut().enumerate() {
                        *sum = x.mul_add(panel[place::<E>(step, lane)].widen(), *sum);
                    }
                }
            }
        }
    }
}

/// Stored values of a panel; a last group of steps that k does not fill is zeros to its end.
pub(super) fn panel_len<E: Element>(k: usize) -> usize {
    k.next_multiple_of(E::STEPS) * PANEL
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![expect(clippy::inline_always, reason = "a body that is not inlined into the tile's function misses its instruction set")]

    #[allow(clippy::wildcard_imports)]
    use std::arch::x86_64::*;

    use super::{Ahead, Element, GROUP, LINE_BYTES, PANEL};

    /// Asks for the next lines of another panel.
    #[inline(always)]
    fn prefetch(ahead: &Ahead, group: usize) {
        for i in 0..ahead.lines {
            let line = ahead.start.wrapping_add((group * ahead.lines + i) * LINE_BYTES);
            // SAFETY: a prefetch may name any address; every x86-64 machine has it.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
        }
    }

    /// One step of k, which is the `PHASE`th of its [`Element::STEPS`].
    ///
    /// # Safety
    /// As [`avx512`], and `step < k`.
    #[inline(always)]
    unsafe fn step512<const ROWS: usize, const PHASE: usize, E: Element>(
        sums: &mut [[__m512; 3]; ROWS],
        x: *const f32,
        panel: *const E,
        k: usize,
        step: usize,
    ) {
        // SAFETY: step < k, so the 48 columns of its group and x[row, step] are within their slices.
        unsafe {
            let group = panel.add(step / E::STEPS * E::STEPS * PANEL);
            let w = [
                E::load16::<PHASE>(group),
                E::load16::<PHASE>(group.add(16 * E::STEPS)),
                E::load16::<PHASE>(group.add(32 * E::STEPS)),
            ];
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*x.add(row * k + step));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = _mm512_fmadd_ps(x, w, *sum);
                }
            }
        }
    }

    /// `tile = x[ROWS, k] · panel[k, 48]`, 3 registers a row.
    ///
    /// # Safety
    /// The machine has AVX-512F; `x` has `ROWS · k` floats, `panel` is one of k steps and `tile` has `ROWS` rows.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512<const ROWS: usize, E: Element>(
        x: &[f32],
        panel: &[E],
        k: usize,
        ahead: &Ahead,
        tile: &mut [[f32; PANEL]],
    ) {
        let mut sums = [[_mm512_setzero_ps(); 3]; ROWS];
        let (x, panel) = (x.as_ptr(), panel.as_ptr());
        for group in 0..k / GROUP {
            let step = group * GROUP;
            // SAFETY: these are steps below k.
            unsafe {
                prefetch(ahead, group);
                step512::<ROWS, 0, E>(&mut sums, x, panel, k, step);
                step512::<ROWS, 1, E>(&mut sums, x, panel, k, step + 1);
                step512::<ROWS, 0, E>(&mut sums, x, panel, k, step + 2);
                step512::<ROWS, 1, E>(&mut sums, x, panel, k, step + 3);
            }
        }
        for step in k / GROUP * GROUP..k {
            // SAFETY: as above.
            unsafe {
                if step.is_multiple_of(2) {
                    step512::<ROWS, 0, E>(&mut sums, x, panel, k, step);
                } else {
                    step512::<ROWS, 1, E>(&mut sums, x, panel, k, step);
                }
            }
        }
        for (line, sums) in tile.iter_mut().zip(sums) {
            for (target, sum) in line.chunks_exact_mut(16).zip(sums) {
                // SAFETY: the target has 16 floats.
                unsafe { _mm512_storeu_ps(target.as_mut_ptr(), sum) };
            }
        }
    }

    /// As [`step512`], for the columns from `lane`.
    ///
    /// # Safety
    /// As [`avx2`], and `step < k`, `lane <= 24`.
    #[inline(always)]
    unsafe fn step256<const ROWS: usize, const PHASE: usize, E: Element>(
        sums: &mut [[__m256; 3]; ROWS],
        x: *const f32,
        panel: *const E,
        k: usize,
        step: usize,
        lane: usize,
    ) {
        // SAFETY: step < k, so the 24 columns of its group and x[row, step] are within their slices.
        unsafe {
            let group = panel.add(step / E::STEPS * E::STEPS * PANEL + lane * E::STEPS);
            let w = [
                E::load8::<PHASE>(group),
                E::load8::<PHASE>(group.add(8 * E::STEPS)),
                E::load8::<PHASE>(group.add(16 * E::STEPS)),
            ];
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*x.add(row * k + step));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = _mm256_fmadd_ps(x, w, *sum);
                }
            }
        }
    }

    /// `tile[.., 24 · half ..][..24] = x[ROWS, k] · panel[k, 24 · half ..][..24]`, 3 registers a row.
    ///
    /// # Safety
    /// The machine has AVX2 and FMA; `x` has `ROWS · k` floats, `panel` is one of k steps, `half` is 0 or 1, `tile` has `ROWS`
    /// rows.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2<const ROWS: usize, E: Element>(
        x: &[f32],
        panel: &[E],
        k: usize,
        half: usize,
        ahead: &Ahead,
        tile: &mut [[f32; PANEL]],
    ) {
        let mut sums = [[_mm256_setzero_ps(); 3]; ROWS];
        let (x, panel, lane) = (x.as_ptr(), panel.as_ptr(), half * 24);
        for group in 0..k / GROUP {
            let step = group * GROUP;
            // SAFETY: these are steps below k.
            unsafe {
                if half == 0 {
                    prefetch(ahead, group);
                }
                step256::<ROWS, 0, E>(&mut sums, x, panel, k, step, lane);
                step256::<ROWS, 1, E>(&mut sums, x, panel, k, step + 1, lane);
                step256::<ROWS, 0, E>(&mut sums, x, panel, k, step + 2, lane);
                step256::<ROWS, 1, E>(&mut sums, x, panel, k, step + 3, lane);
            }
        }
        for step in k / GROUP * GROUP..k {
            // SAFETY: as above.
            unsafe {
                if step.is_multiple_of(2) {
                    step256::<ROWS, 0, E>(&mut sums, x, panel, k, step, lane);
                } else {
                    step256::<ROWS, 1, E>(&mut sums, x, panel, k, step, lane);
                }
            }
        }
        for (line, sums) in tile.iter_mut().zip(sums) {
            for (target, sum) in line[lane..][..24].chunks_exact_mut(8).zip(sums) {
                // SAFETY: the target has 8 floats.
                unsafe { _mm256_storeu_ps(target.as_mut_ptr(), sum) };
            }
        }
    }
}
