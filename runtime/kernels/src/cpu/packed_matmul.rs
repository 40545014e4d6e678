//! `y = x · Wᵀ` for few rows `x` and weights that are packed once and used thousands of times: the matmul of rollouts.
//!
//! **Invariant.** Each output element is one chain of fused multiply-adds over k in order, starting at 0. So it depends on its
//! own row of `x` and its own row of `W` alone: not on the other rows of the batch, the thread count or the instruction set.
//! [`multiply_reference`] is that sentence as code, and the tests hold every path to it bit by bit.
//!
//! Packing: W's rows are taken [`PANEL`] at a time, and each panel is stored k-major, `[ceil(n / PANEL)][k][PANEL]`. A tile of
//! `rows × PANEL` outputs then reads the panel front to back, one vector of `W` against one broadcast element of `x`: no
//! horizontal sums, which is what lets the chain be sequential and fast at once.

#![expect(unsafe_code, reason = "vector instructions, and threads that write disjoint columns of one matrix")]

use std::ops::Range;

use rayon::prelude::*;

use super::aligned::AlignedBuffer;
use super::isa::{Isa, Kind};

/// Rows of `W` in a panel: three AVX-512 registers. With 8 rows of `x` a tile keeps 24 sums in registers, against 3 loads and
/// 8 broadcasts per step of k.
pub const PANEL: usize = 48;

/// Below this many multiply-adds threads cost more than they save (about 10 µs on the build machine).
const PARALLEL_FROM: usize = 1 << 18;

/// A packed matrix `[n, k]`.
#[derive(Debug)]
pub struct PackedMatrix {
    n: usize,
    k: usize,
    data: AlignedBuffer,
}

/// `y[m, n] = x[m, k] · w[n, k]ᵀ`, unpacked and one element after the other.
pub fn multiply_reference(x: &[f32], w: &[f32], k: usize, y: &mut [f32]) {
    let n = w.len() / k;
    for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(n)) {
        for (w, y) in w.chunks_exact(k).zip(y) {
            *y = x.iter().zip(w).fold(0.0, |sum, (&x, &w)| x.mul_add(w, sum));
        }
    }
}

impl PackedMatrix {
    /// A matrix of zeros, `[n, k]`.
    pub fn zeros(n: usize, k: usize) -> Self {
        PackedMatrix { n, k, data: AlignedBuffer::zeros(n.div_ceil(PANEL) * PANEL * k) }
    }

    /// Rows, the width of the output.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns, the width of the input.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Replaces the contents by row-major matrices `[n_i, k]` stacked on top of each other.
    ///
    /// # Panics
    /// When their rows are not `n` together.
    pub fn pack(&mut self, parts: &[&[f32]]) {
        let k = self.k;
        assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), self.n * k, "the parts have other rows than the matrix");
        let rows: Vec<&[f32]> = parts.iter().flat_map(|part| part.chunks_exact(k)).collect();
        self.data.par_chunks_exact_mut(PANEL * k).zip(rows.par_chunks(PANEL)).for_each(|(panel, rows)| {
            for (lane, row) in rows.iter().enumerate() {
                for (line, &w) in panel.chunks_exact_mut(PANEL).zip(*row) {
                    line[lane] = w;
                }
            }
        });
    }

    /// Reads row `i` back, `[k]`. (A tied embedding lies here only.)
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.n && out.len() == self.k, "row {i} of [{}, {}] into {}", self.n, self.k, out.len());
        let panel = &self.data[i / PANEL * PANEL * self.k..][..PANEL * self.k];
        for (out, line) in out.iter_mut().zip(panel.chunks_exact(PANEL)) {
            *out = line[i % PANEL];
        }
    }

    /// `y[m, n] = x[m, k] · selfᵀ`, on the current rayon pool.
    ///
    /// # Panics
    /// When `x` or `y` have other shapes.
    pub fn multiply(&self, x: &[f32], y: &mut [f32]) {
        self.multiply_on(Isa::detect(), x, y);
    }

    fn multiply_on(&self, isa: Isa, x: &[f32], y: &mut [f32]) {
        let m = x.len() / self.k;
        assert!(x.len() == m * self.k && y.len() == m * self.n, "x {} and y {} for [{}, {}]", x.len(), y.len(), self.n, self.k);
        let panels = self.n.div_ceil(PANEL);
        let threads = rayon::current_num_threads();
        let output = Output { start: y.as_mut_ptr(), m, n: self.n };
        if threads == 1 || m * self.n * self.k < PARALLEL_FROM {
            // SAFETY: `output` is y, exclusively borrowed, and this is the only call that writes it.
            return unsafe { self.multiply_panels(isa, x, &output, 0..panels) };
        }
        // Twice as many parts as threads: a core that is busy with something else holds up half a part, not half the work.
        let parts = panels.min(2 * threads);
        (0..parts).into_par_iter().with_max_len(1).for_each(|part| {
            let range = part * panels / parts..(part + 1) * panels / parts;
            // SAFETY: y is exclusively borrowed by this function, and the ranges do not overlap.
            unsafe { self.multiply_panels(isa, x, &output, range) };
        });
    }

    /// The columns of y that belong to some panels.
    ///
    /// # Safety
    /// `output` points to `[m, n]` floats, and nobody else accesses these columns meanwhile.
    unsafe fn multiply_panels(&self, isa: Isa, x: &[f32], output: &Output, panels: Range<usize>) {
        for panel in panels {
            let data = &self.data[panel * PANEL * self.k..][..PANEL * self.k];
            let columns = panel * PANEL..self.n.min((panel + 1) * PANEL);
            // Blocks of rows of nearly the same height: 9 rows as 5 + 4, not 8 + 1.
            let blocks = output.m.div_ceil(MAX_ROWS);
            for block in 0..blocks {
                let rows = block * output.m / blocks..(block + 1) * output.m / blocks;
                let mut tile = [[0.0; PANEL]; MAX_ROWS];
                let tile = &mut tile[..rows.len()];
                let ahead = Ahead::new(data, block, blocks);
                multiply_tile(isa, &x[rows.start * self.k..rows.end * self.k], data, self.k, &ahead, tile);
                for (row, line) in rows.zip(tile) {
                    // SAFETY: row < m and the columns end at n, so this is within y; the caller keeps others away from it.
                    let target = unsafe { output.start.add(row * output.n + columns.start) };
                    // SAFETY: as above; a local tile does not overlap y.
                    unsafe { target.copy_from_nonoverlapping(line.as_ptr(), columns.len()) };
                }
            }
        }
    }
}

/// Rows of `x` in a tile.
const MAX_ROWS: usize = 8;

/// Which part of the next panel a tile asks the memory for while it computes. All blocks of rows share this work, so that
/// memory and arithmetic overlap at any batch size. For `[49152, 576]` and 16 rows on one core of the build machine it bought
/// 17.9 → 11.5 ms, against asking a few lines ahead within the panel.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "the portable path leaves prefetching to the machine"))]
struct Ahead {
    start: *const f32,
    /// Cache lines per step of k; a panel has 3.
    lines: usize,
}

impl Ahead {
    fn new(panel: &[f32], block: usize, blocks: usize) -> Self {
        let lines = 3_usize.div_ceil(blocks);
        let first = block * lines;
        // Only ever an address to prefetch, which need not be valid.
        let start = panel.as_ptr().wrapping_add(panel.len() + first * panel.len() / 3);
        Ahead { start, lines: lines.min(3_usize.saturating_sub(first)) }
    }
}

/// The output matrix, shared by threads that write disjoint columns.
struct Output {
    start: *mut f32,
    m: usize,
    n: usize,
}

// SAFETY: a pointer and two numbers; writes through it are promised to be disjoint by the callers of `multiply_panels`.
unsafe impl Sync for Output {}

/// `tile[rows, PANEL] = x[rows, k] · panel[k, PANEL]`.
fn multiply_tile(isa: Isa, x: &[f32], panel: &[f32], k: usize, ahead: &Ahead, tile: &mut [[f32; PANEL]]) {
    assert!(x.len() == tile.len() * k && panel.len() == k * PANEL && tile.len() <= MAX_ROWS);
    match isa.0 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` is only made after the machine said that it has these instructions; the lengths are checked above.
        Kind::Avx512 => unsafe {
            match tile.len() {
                0 => {}
                1 => x86::avx512::<1>(x, panel, k, ahead, tile),
                2 => x86::avx512::<2>(x, panel, k, ahead, tile),
                3 => x86::avx512::<3>(x, panel, k, ahead, tile),
                4 => x86::avx512::<4>(x, panel, k, ahead, tile),
                5 => x86::avx512::<5>(x, panel, k, ahead, tile),
                6 => x86::avx512::<6>(x, panel, k, ahead, tile),
                7 => x86::avx512::<7>(x, panel, k, ahead, tile),
                _ => x86::avx512::<8>(x, panel, k, ahead, tile),
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
                            1 => x86::avx2::<1>(x, panel, k, half, ahead, tile),
                            2 => x86::avx2::<2>(x, panel, k, half, ahead, tile),
                            3 => x86::avx2::<3>(x, panel, k, half, ahead, tile),
                            _ => x86::avx2::<4>(x, panel, k, half, ahead, tile),
                        }
                    }
                }
            }
        }
        Kind::Portable => {
            for (x, sums) in x.chunks_exact(k).zip(tile) {
                sums.fill(0.0);
                for (&x, line) in x.iter().zip(panel.chunks_exact(PANEL)) {
                    for (sum, &w) in sums.iter_mut().zip(line) {
                        *sum = x.mul_add(w, *sum);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)]
    use std::arch::x86_64::*;

    use super::{Ahead, PANEL};

    const LINE: usize = 16;

    /// `tile = x[ROWS, k] · panel[k, 48]`, 3 registers a row.
    ///
    /// # Safety
    /// The machine has AVX-512F; `x` has `ROWS · k` floats, `panel` has `48 · k` and `tile` has `ROWS` rows.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512<const ROWS: usize>(x: &[f32], panel: &[f32], k: usize, ahead: &Ahead, tile: &mut [[f32; PANEL]]) {
        let mut sums = [[_mm512_setzero_ps(); 3]; ROWS];
        let (x, panel) = (x.as_ptr(), panel.as_ptr());
        for step in 0..k {
            // SAFETY: step < k, so the 48 floats of the line and x[row, step] are within their slices. A prefetch may name any
            // address, which is why it is computed by `wrapping_add`.
            unsafe {
                let line = panel.add(step * PANEL);
                for i in 0..ahead.lines {
                    _mm_prefetch::<_MM_HINT_T1>(ahead.start.wrapping_add((step * ahead.lines + i) * LINE).cast());
                }
                let w = [_mm512_loadu_ps(line), _mm512_loadu_ps(line.add(16)), _mm512_loadu_ps(line.add(32))];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*x.add(row * k + step));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm512_fmadd_ps(x, w, *sum);
                    }
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

    /// `tile[.., 24 · half ..][..24] = x[ROWS, k] · panel[k, 24 · half ..][..24]`, 3 registers a row.
    ///
    /// # Safety
    /// The machine has AVX2 and FMA; `x` has `ROWS · k` floats, `panel` has `48 · k`, `half` is 0 or 1, `tile` has `ROWS` rows.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2<const ROWS: usize>(
        x: &[f32],
        panel: &[f32],
        k: usize,
        half: usize,
        ahead: &Ahead,
        tile: &mut [[f32; PANEL]],
    ) {
        let mut sums = [[_mm256_setzero_ps(); 3]; ROWS];
        let (x, panel) = (x.as_ptr(), panel.as_ptr());
        for step in 0..k {
            // SAFETY: step < k, so the 24 floats of the half line and x[row, step] are within their slices. A prefetch may name
            // any address, which is why it is computed by `wrapping_add`.
            unsafe {
                let line = panel.add(step * PANEL + half * 24);
                if half == 0 {
                    for i in 0..ahead.lines {
                        _mm_prefetch::<_MM_HINT_T1>(ahead.start.wrapping_add((step * ahead.lines + i) * LINE).cast());
                    }
                }
                let w = [_mm256_loadu_ps(line), _mm256_loadu_ps(line.add(8)), _mm256_loadu_ps(line.add(16))];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*x.add(row * k + step));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm256_fmadd_ps(x, w, *sum);
                    }
                }
            }
        }
        for (line, sums) in tile.iter_mut().zip(sums) {
            for (target, sum) in line[half * 24..][..24].chunks_exact_mut(8).zip(sums) {
                // SAFETY: the target has 8 floats.
                unsafe { _mm256_storeu_ps(target.as_mut_ptr(), sum) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers whose sums round differently in every order: a linear congruential generator over [-1, 1).
    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    fn packed(parts: &[&[f32]], k: usize) -> PackedMatrix {
        let mut matrix = PackedMatrix::zeros(parts.iter().map(|part| part.len()).sum::<usize>() / k, k);
        matrix.pack(parts);
        matrix
    }

    #[test]
    fn every_instruction_set_gives_the_reference_bits_for_1_to_40_rows_and_odd_shapes() {
        for (n, k) in [(1, 1), (47, 5), (48, 64), (49, 33), (100, 17), (131, 96), (288, 7)] {
            let w = noise(n * k, 1);
            let matrix = packed(&[&w], k);
            for m in 1..=40 {
                let x = noise(m * k, 2 + m as u32);
                let mut expected = vec![0.0; m * n];
                multiply_reference(&x, &w, k, &mut expected);
                for isa in Isa::all() {
                    let mut y = vec![f32::NAN; m * n];
                    matrix.multiply_on(isa, &x, &mut y);
                    assert!(y.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa:?} {m} {n} {k}");
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch_on_any_number_of_threads() {
        let (n, k, m) = (1000, 301, 23);
        let (w, x) = (noise(n * k, 3), noise(m * k, 4));
        let matrix = packed(&[&w], k);
        assert!(n * k * m > PARALLEL_FROM, "too small to be split among threads");
        let mut alone = vec![0.0; m * n];
        for (x, y) in x.chunks(k).zip(alone.chunks_mut(n)) {
            matrix.multiply(x, y);
        }
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            let mut together = vec![0.0; m * n];
            pool.install(|| matrix.multiply(&x, &mut together));
            assert_eq!(alone, together, "{threads} threads");
        }
    }

    #[test]
    fn rows_come_back_as_they_were_packed_and_repacking_replaces_them() {
        let k = 10;
        let (a, b) = (noise(60 * k, 5), noise(37 * k, 6));
        let mut matrix = packed(&[&a, &b], k);
        let mut row = vec![0.0; k];
        for (i, expected) in a.chunks(k).chain(b.chunks(k)).enumerate() {
            matrix.row(i, &mut row);
            assert_eq!(row, expected);
        }
        matrix.pack(&[&b, &a]);
        matrix.row(0, &mut row);
        assert_eq!(row, b[..k]);
    }
}
