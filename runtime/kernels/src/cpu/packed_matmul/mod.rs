//! `y = x · Wᵀ` for few rows `x` and weights that are packed once and used thousands of times: the matmul of rollouts.
//!
//! **Invariant.** Each output element is one chain of fused multiply-adds in float32 over k in order, starting at 0, and then
//! multiplied by the scale of its row of `W` where there is one. So it depends on its own row of `x` and its own row of `W`
//! alone: not on the other rows of the batch, the thread count or the instruction set. [`multiply_reference`] over
//! [`stored_reference`] is that sentence as code, and the tests hold every path to it bit by bit.
//!
//! Packing: W's rows are taken [`PANEL`] at a time, and each panel is stored k-major, `[ceil(n / PANEL)][k][PANEL]`. A tile of
//! `rows × PANEL` outputs then reads the panel front to back, one vector of `W` against one broadcast element of `x`: no
//! horizontal sums, which is what lets the chain be sequential and fast at once.
//!
//! Formats: few rows are bound by the memory that `W` comes from, so [`WeightFormat`] says how many bytes a weight takes there.
//! In registers it is a float32 again.
//!
//! With another [`Precision`] than the highest, float32 and bfloat16 weights are multiplied by the machine's matrix unit where it has one
//! ([`super::tiles`]): then an element is that unit's chain ([`super::tiles::dot_reference`]), which depends on its row of `x` and its row of `W` alone as well, but
//! not every machine makes the same bits.

#![expect(unsafe_code, reason = "vector instructions, and threads that write disjoint columns of one matrix")]

mod element;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::aligned::AlignedBuffer;
use super::isa::Isa;
use super::matmul::Precision;
use super::tiles::{PackedB, Planes};
use element::{Element, place};
use tile::{Ahead, MAX_ROWS, multiply_tile, panel_len};

/// Rows of `W` in a panel: three AVX-512 registers. With 8 rows of `x` a tile keeps 24 sums in registers, against 3 loads and
/// 8 broadcasts per step of k.
pub const PANEL: usize = 48;

/// Below this many multiply-adds threads cost more than they save (about 10 µs on the build machine).
const PARALLEL_FROM: usize = 1 << 18;

/// How weights are stored. Sums are in float32 whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightFormat {
    /// float32, as they are.
    #[default]
    F32,
    /// bfloat16, rounded to nearest, ties to even: 8 bits of mantissa, half the memory.
    Bf16,
    /// Integers of 8 bits, symmetric and with one scale per row of `W` (output channel): `w ≈ scale · q` with
    /// `scale = max|w| / 127`. A quarter of the memory.
    Int8,
}

/// A packed matrix `[n, k]`.
#[derive(Debug)]
pub struct PackedMatrix {
    n: usize,
    k: usize,
    panels: Panels,
}

#[derive(Debug)]
enum Panels {
    F32(Packed<f32>),
    Bf16(Packed<bf16>),
    Int8(Packed<i8>),
    /// float32 or bfloat16 for the matrix unit, and how exactly it sees `x`.
    Tiles(PackedB, Planes),
}

/// Panels of one format.
#[derive(Debug)]
struct Packed<E> {
    n: usize,
    k: usize,
    data: AlignedBuffer<E>,
    /// One per row; empty in formats without.
    scales: Vec<f32>,
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

/// What a row of `W` becomes in a format: the values that the chain of multiply-adds sees, and what its sum is multiplied by.
pub fn stored_reference(format: WeightFormat, row: &[f32]) -> (Vec<f32>, f32) {
    match format {
        WeightFormat::F32 => (row.to_vec(), 1.0),
        WeightFormat::Bf16 => (row.iter().map(|&w| bf16::from_f32(w).to_f32()).collect(), 1.0),
        WeightFormat::Int8 => {
            let max = row.iter().fold(0.0_f32, |max, w| max.max(w.abs()));
            let scale = if max < 1e-30 { 0.0 } else { max / 127.0 };
            let value = |&w: &f32| if scale == 0.0 { 0.0 } else { (w / scale).round_ties_even() };
            (row.iter().map(value).collect(), scale)
        }
    }
}

/// Calls `$body` with the matrix's panels under the name `$packed`, whatever their format.
macro_rules! with_packed {
    ($panels:expr, $packed:ident => $body:expr) => {
        match $panels {
            Panels::F32($packed) => $body,
            Panels::Bf16($packed) => $body,
            Panels::Int8($packed) => $body,
            Panels::Tiles($packed, _) => $body,
        }
    };
}

/// Memory of a [`PackedMatrix`] before it is made, bytes.
pub fn packed_bytes(n: usize, k: usize, format: WeightFormat, precision: Precision) -> usize {
    match (format, precision.tiles()) {
        (WeightFormat::F32, Some((_, planes))) => PackedB::bytes_for(n, k, planes),
        (WeightFormat::Bf16, Some(_)) => PackedB::bytes_for(n, k, Planes::One),
        (WeightFormat::F32, None) => Packed::<f32>::bytes_for(n, k),
        (WeightFormat::Bf16, None) => Packed::<bf16>::bytes_for(n, k),
        (WeightFormat::Int8, _) => Packed::<i8>::bytes_for(n, k),
    }
}

impl PackedMatrix {
    /// A matrix of zeros, `[n, k]`, for products of this precision.
    pub fn zeros(n: usize, k: usize, format: WeightFormat, precision: Precision) -> Self {
        let panels = match (format, precision.tiles()) {
            (WeightFormat::F32, Some((amx, planes))) => Panels::Tiles(PackedB::zeros(amx, n, k, planes), planes),
            (WeightFormat::Bf16, Some((amx, planes))) => Panels::Tiles(PackedB::zeros(amx, n, k, Planes::One), planes),
            (WeightFormat::F32, None) => Panels::F32(Packed::zeros(n, k)),
            (WeightFormat::Bf16, None) => Panels::Bf16(Packed::zeros(n, k)),
            (WeightFormat::Int8, _) => Panels::Int8(Packed::zeros(n, k)),
        };
        PackedMatrix { n, k, panels }
    }

    /// Rows, the width of the output.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns, the width of the input.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Memory that a product reads of the matrix, bytes.
    pub fn bytes(&self) -> usize {
        with_packed!(&self.panels, packed => packed.bytes())
    }

    /// Replaces the contents by row-major matrices `[n_i, k]` stacked on top of each other.
    ///
    /// # Panics
    /// When their rows are not `n` together.
    pub fn pack(&mut self, parts: &[&[f32]]) {
        let k = self.k;
        assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), self.n * k, "the parts have other rows than the matrix");
        let rows: Vec<&[f32]> = parts.iter().flat_map(|part| part.chunks_exact(k)).collect();
        with_packed!(&mut self.panels, packed => packed.pack(&rows));
    }

    /// Reads row `i` back as the products see it, `[k]`. (A tied embedding lies here only.)
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.n && out.len() == self.k, "row {i} of [{}, {}] into {}", self.n, self.k, out.len());
        with_packed!(&self.panels, packed => packed.row(i, out));
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
        match &self.panels {
            Panels::F32(packed) => packed.multiply(isa, x, y),
            Panels::Bf16(packed) => packed.multiply(isa, x, y),
            Panels::Int8(packed) => packed.multiply(isa, x, y),
            Panels::Tiles(packed, planes) => packed.multiply(x, *planes, y),
        }
    }
}

impl<E: Element> Packed<E> {
    fn zeros(n: usize, k: usize) -> Self {
        let data = AlignedBuffer::zeros(n.div_ceil(PANEL) * panel_len::<E>(k));
        Packed { n, k, data, scales: if E::SCALED { vec![0.0; n] } else { Vec::new() } }
    }

    fn bytes_for(n: usize, k: usize) -> usize {
        n.div_ceil(PANEL) * panel_len::<E>(k) * size_of::<E>() + if E::SCALED { n * size_of::<f32>() } else { 0 }
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.data[..]) + size_of_val(&self.scales[..])
    }

    fn pack(&mut self, rows: &[&[f32]]) {
        let k = self.k;
        if E::SCALED {
            self.scales.par_iter_mut().zip(rows).for_each(|(scale, row)| *scale = E::scale(row));
        }
        let scales = &self.scales;
        let panels = self.data.par_chunks_exact_mut(panel_len::<E>(k)).zip(rows.par_chunks(PANEL));
        panels.enumerate().for_each(|(i, (panel, rows))| {
            for (lane, row) in rows.iter().enumerate() {
                let scale = scales.get(i * PANEL + lane).copied().unwrap_or(1.0);
                for (step, &w) in row.iter().enumerate() {
                    panel[place::<E>(step, lane)] = E::narrow(w, scale);
                }
            }
        });
    }

    fn row(&self, i: usize, out: &mut [f32]) {
        let len = panel_len::<E>(out.len());
        let panel = &self.data[i / PANEL * len..][..len];
        let scale = self.scales.get(i).copied().unwrap_or(1.0);
        for (step, out) in out.iter_mut().enumerate() {
            *out = panel[place::<E>(step, i % PANEL)].widen() * scale;
        }
    }

    fn multiply(&self, isa: Isa, x: &[f32], y: &mut [f32]) {
        let k = self.k;
        let output = &Output { start: y.as_mut_ptr(), m: x.len() / k, n: self.n };
        let panels = output.n.div_ceil(PANEL);
        let threads = rayon::current_num_threads();
        if threads == 1 || output.m * output.n * k < PARALLEL_FROM {
            // SAFETY: `output` is exclusively the caller's, and this is the only call that writes it.
            return unsafe { self.multiply_panels(isa, x, k, output, 0..panels) };
        }
        // Twice as many parts as threads: a core that is busy with something else holds up half a part, not half the work.
        let parts = panels.min(2 * threads);
        (0..parts).into_par_iter().with_max_len(1).for_each(|part| {
            let range = part * panels / parts..(part + 1) * panels / parts;
            // SAFETY: `output` is exclusively the caller's, and the ranges do not overlap.
            unsafe { self.multiply_panels(isa, x, k, output, range) };
        });
    }

    /// The columns of y that belong to some panels.
    ///
    /// # Safety
    /// `output` points to `[m, n]` floats, and nobody else accesses these columns meanwhile.
    unsafe fn multiply_panels(&self, isa: Isa, x: &[f32], k: usize, output: &Output, panels: Range<usize>) {
        let len = panel_len::<E>(k);
        for panel in panels {
            let data = &self.data[panel * len..][..len];
            let columns = panel * PANEL..output.n.min((panel + 1) * PANEL);
            // Blocks of rows of nearly the same height: 9 rows as 5 + 4, not 8 + 1.
            let blocks = output.m.div_ceil(MAX_ROWS);
            for block in 0..blocks {
                let rows = block * output.m / blocks..(block + 1) * output.m / blocks;
                let mut tile = [[0.0; PANEL]; MAX_ROWS];
                let tile = &mut tile[..rows.len()];
                let ahead = Ahead::new(data, block, blocks);
                multiply_tile(isa, &x[rows.start * k..rows.end * k], data, k, &ahead, tile);
                for (row, line) in rows.zip(tile) {
                    if E::SCALED {
                        line.iter_mut().zip(&self.scales[columns.clone()]).for_each(|(y, scale)| *y *= scale);
                    }
                    // SAFETY: row < m and the columns end at n, so this is within y; the caller keeps others away from it.
                    let target = unsafe { output.start.add(row * output.n + columns.start) };
                    // SAFETY: as above; a local tile does not overlap y.
                    unsafe { target.copy_from_nonoverlapping(line.as_ptr(), columns.len()) };
                }
            }
        }
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
