//! Products of whole matrices: packing, and who computes which block.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::{Amx, BLOCK, Block, Configured, Form, Operands, Planes, Source, TILE, TILE_K, TILE_LEN, multiply_block, pack_tile};
use crate::cpu::aligned::AlignedBuffer;
use crate::cpu::matmul::{Matrix, MatrixMut, Store};

/// Steps of k that are summed in the unit's registers before the sum goes to the result. A multiple of [`TILE_K`]; part of what a result is.
const CHUNK_K: usize = 2048;
/// Elements of an operand that are packed at a time: 16 MiB in two planes, a part of the last-level cache.
const PACKED_MOST: usize = 4 << 20;
/// Elements of both operands in a task: 1.2 MiB in two planes, which the second-level cache keeps while rows meet columns.
const TASK_MOST: usize = 300 << 10;
/// Below this many multiply-adds threads cost more than they save.
const PARALLEL_FROM: usize = 1 << 18;

thread_local! {
    /// Packed operands of the last product of this thread, for their memory.
    static BUFFERS: Cell<[Buffer; 2]> = Cell::default();
}

#[derive(Default)]
struct Buffer(Option<AlignedBuffer<u16>>);

impl Buffer {
    fn writable(&mut self, len: usize) -> &mut [u16] {
        if self.0.as_ref().is_none_or(|buffer| buffer.len() < len) {
            self.0 = Some(AlignedBuffer::zeros(len));
        }
        &mut self.0.as_mut().expect("it was just made")[..len]
    }
}

/// Runs `f` with buffers that are kept for the next time. A task that this thread takes up while it waits inside gets new ones.
fn with_buffers<R>(f: impl FnOnce(&mut [Buffer; 2]) -> R) -> R {
    let mut buffers = BUFFERS.take();
    let result = f(&mut buffers);
    BUFFERS.set(buffers);
    result
}

/// `c (+)= a · b`, both operands in as many planes. See [`super::super::matmul::matmul`].
pub(in crate::cpu) fn matmul_tiles(amx: Amx, planes: Planes, store: Store, c: MatrixMut, a: Matrix, b: Matrix) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    let target = Target { start: c.data.as_mut_ptr(), row_stride: c.row_stride };
    with_buffers(|[packed_a, packed_b]| {
        for k0 in (0..k).step_by(CHUNK_K) {
            let steps = k0..k.min(k0 + CHUNK_K);
            let k_tiles = steps.len().div_ceil(TILE_K);
            let most = PACKED_MOST / steps.len() / BLOCK * BLOCK;
            for n0 in (0..n).step_by(most) {
                let columns = n0..n.min(n0 + most);
                let panel = k_tiles * 2 * planes.count() * TILE_LEN;
                let packed_b = packed_b.writable(columns.len().div_ceil(BLOCK) * panel);
                pack_columns(b, steps.clone(), columns.clone(), planes, packed_b);
                for m0 in (0..m).step_by(most) {
                    let rows = m0..m.min(m0 + most);
                    let strip = k_tiles * planes.count() * TILE_LEN;
                    let packed_a = packed_a.writable(rows.len().div_ceil(TILE) * strip);
                    // One part of `a` holds all of it: it was packed for the columns before.
                    if n0 == 0 || m > most {
                        pack_rows(a, rows.clone(), steps.clone(), planes, packed_a);
                    }
                    let store = if k0 == 0 { store } else { Store::Add };
                    let product = Product { amx, a: packed_a, a_planes: planes, b: packed_b, b_planes: planes, k_tiles };
                    product.run(store, target.at(m0, n0), rows.len(), columns.len(), steps.len());
                }
            }
        }
    });
}

/// Packs rows of `a`, tile by tile of rows.
fn pack_rows(a: Matrix, rows: Range<usize>, steps: Range<usize>, planes: Planes, packed: &mut [u16]) {
    let strip = steps.len().div_ceil(TILE_K) * planes.count() * TILE_LEN;
    packed.par_chunks_mut(strip).enumerate().for_each(|(i, strip)| {
        let first = rows.start + i * TILE;
        let lanes = TILE.min(rows.end - first);
        for (j, target) in strip.chunks_exact_mut(planes.count() * TILE_LEN).enumerate() {
            let step = steps.start + j * TILE_K;
            let source = Source {
                start: a.data.as_ptr().wrapping_add(first * a.row_stride + step * a.column_stride),
                lane_stride: a.row_stride,
                step_stride: a.column_stride,
                lanes,
                steps: TILE_K.min(steps.end - step),
            };
            // SAFETY: rows and steps are the matrix's; the target has room for its planes; an `Amx` machine has the instructions.
            unsafe { pack_tile(source, Form::Rows, planes, target.as_mut_ptr(), TILE_LEN) };
        }
    });
}

/// Packs columns of `b`, panel by panel.
fn pack_columns(b: Matrix, steps: Range<usize>, columns: Range<usize>, planes: Planes, packed: &mut [u16]) {
    let panel = steps.len().div_ceil(TILE_K) * 2 * planes.count() * TILE_LEN;
    packed.par_chunks_mut(panel).enumerate().for_each(|(i, panel)| {
        for (j, target) in panel.chunks_exact_mut(2 * planes.count() * TILE_LEN).enumerate() {
            let step = steps.start + j * TILE_K;
            for tile in 0..2 {
                let first = columns.start + i * BLOCK + tile * TILE;
                let lanes = TILE.min(columns.end.saturating_sub(first));
                let source = Source {
                    start: b.data.as_ptr().wrapping_add(step * b.row_stride + first * b.column_stride),
                    lane_stride: b.column_stride,
                    step_stride: b.row_stride,
                    lanes,
                    steps: TILE_K.min(steps.end - step),
                };
                // SAFETY: as in `pack_rows`; without lanes nothing is read.
                unsafe { pack_tile(source, Form::Pairs, planes, target[tile * TILE_LEN..].as_mut_ptr(), 2 * TILE_LEN) };
            }
        }
    });
}

/// Where results go.
#[derive(Clone, Copy)]
struct Target {
    start: *mut f32,
    row_stride: usize,
}

// SAFETY: tasks write disjoint blocks behind it.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    fn at(self, row: usize, column: usize) -> Self {
        Target { start: self.start.wrapping_add(row * self.row_stride + column), ..self }
    }
}

/// Two packed operands.
#[derive(Clone, Copy)]
struct Product<'a> {
    amx: Amx,
    a: &'a [u16],
    a_planes: Planes,
    b: &'a [u16],
    b_planes: Planes,
    k_tiles: usize,
}

impl Product<'_> {
    /// All of the result, in tasks of about equal sides.
    fn run(&self, store: Store, target: Target, rows: usize, columns: usize, steps: usize) {
        if rows * columns * steps < PARALLEL_FROM || rayon::current_num_threads() == 1 {
            return self.task(store, target, 0..rows, 0..columns);
        }
        let side = (TASK_MOST / 2 / steps / BLOCK * BLOCK).clamp(2 * BLOCK, 16 * BLOCK);
        // Small results are cut smaller, for all threads to have some of it.
        let side = if rows * columns >= 16 * side * side { side } else { (side / 2).next_multiple_of(BLOCK) };
        let (down, across) = (rows.div_ceil(side), columns.div_ceil(side));
        (0..down * across).into_par_iter().with_max_len(1).for_each(|task| {
            let (i, j) = (task % down * side, task / down * side);
            self.task(store, target, i..rows.min(i + side), j..columns.min(j + side));
        });
    }

    /// The part of the result in these rows and columns, which begin at whole blocks.
    fn task(&self, store: Store, target: Target, rows: Range<usize>, columns: Range<usize>) {
        let configured = Configured::new(self.amx);
        let strip = self.k_tiles * self.a_planes.count() * TILE_LEN;
        let panel = self.k_tiles * 2 * self.b_planes.count() * TILE_LEN;
        let mut block = [[0.0; BLOCK]; BLOCK];
        for column in columns.clone().step_by(BLOCK) {
            let width = BLOCK.min(columns.end - column);
            let b = &self.b[column / BLOCK * panel..][..panel];
            for row in rows.clone().step_by(BLOCK) {
                let height = BLOCK.min(rows.end - row);
                let row_tiles = height.div_ceil(TILE);
                let a = &self.a[row / TILE * strip..][..row_tiles * strip];
                let operands = Operands {
                    a: [a.as_ptr(), a[(row_tiles - 1) * strip..].as_ptr()],
                    a_planes: self.a_planes,
                    b: b.as_ptr(),
                    b_planes: self.b_planes,
                    k_tiles: self.k_tiles,
                };
                // SAFETY: the slices hold the strips and the panel; there is a step of k, or there would be no chunk.
                unsafe { multiply_block(&configured, operands, row_tiles, &mut block) };
                // SAFETY: the caller gives this task the rows and columns to itself.
                unsafe { write_block(store, &block, target.at(row, column), height, width) };
            }
        }
    }
}

/// # Safety
/// `target` leads to `height` rows of `width` floats that nobody else uses.
unsafe fn write_block(store: Store, block: &Block, target: Target, height: usize, width: usize) {
    for (i, line) in block[..height].iter().enumerate() {
        // SAFETY: row i of the target.
        let target = unsafe { std::slice::from_raw_parts_mut(target.at(i, 0).start, width) };
        match store {
            Store::Set => target.copy_from_slice(&line[..width]),
            Store::Add => target.iter_mut().zip(line).for_each(|(target, x)| *target += x),
        }
    }
}

/// Multiplies small operands out of the first-level cache for a while, on this thread, and says how many operations that were.
pub(in crate::cpu) fn peak_work(amx: Amx) -> usize {
    const K_TILES: usize = 12;
    const TIMES: usize = 2000;
    let operands = AlignedBuffer::<u16>::zeros(2 * K_TILES * TILE_LEN);
    let operands = Operands {
        a: [operands.as_ptr(); 2],
        a_planes: Planes::One,
        b: operands.as_ptr(),
        b_planes: Planes::One,
        k_tiles: K_TILES,
    };
    let configured = Configured::new(amx);
    let mut block = [[0.0; BLOCK]; BLOCK];
    for _ in 0..TIMES {
        // SAFETY: both operands are `K_TILES` tiles of one plane, those of `b` twice as many.
        unsafe { multiply_block(&configured, operands, 2, &mut block) };
    }
    TIMES * 2 * BLOCK * BLOCK * K_TILES * TILE_K
}

/// A matrix `[n, k]` packed once, as the right operand of many products `x · wᵀ`.
#[derive(Debug)]
pub(in crate::cpu) struct PackedB {
    amx: Amx,
    n: usize,
    k: usize,
    planes: Planes,
    data: AlignedBuffer<u16>,
}

impl PackedB {
    pub fn zeros(amx: Amx, n: usize, k: usize, planes: Planes) -> Self {
        PackedB { amx, n, k, planes, data: AlignedBuffer::zeros(Self::bytes_for(n, k, planes) / size_of::<u16>()) }
    }

    pub fn bytes_for(n: usize, k: usize, planes: Planes) -> usize {
        n.div_ceil(BLOCK) * k.div_ceil(TILE_K) * 2 * planes.count() * TILE_LEN * size_of::<u16>()
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }

    /// Elements of a panel of columns.
    fn panel(&self) -> usize {
        self.k.div_ceil(TILE_K) * 2 * self.planes.count() * TILE_LEN
    }

    /// Replaces the contents by these rows, `k` elements each.
    pub fn pack(&mut self, rows: &[&[f32]]) {
        let (k, planes, panel) = (self.k, self.planes, self.panel());
        self.data.par_chunks_exact_mut(panel).zip(rows.par_chunks(BLOCK)).for_each(|(panel, rows)| {
            // Rows come from several matrices: they are brought together first.
            let mut lanes = [0.0; TILE_LEN];
            for (j, target) in panel.chunks_exact_mut(2 * planes.count() * TILE_LEN).enumerate() {
                let steps = j * TILE_K..k.min((j + 1) * TILE_K);
                let target = target.as_mut_ptr();
                for (tile, target) in [target, target.wrapping_add(TILE_LEN)].into_iter().enumerate() {
                    let rows = rows.get(tile * TILE..).unwrap_or_default();
                    let rows = &rows[..rows.len().min(TILE)];
                    for (lane, row) in lanes.chunks_exact_mut(TILE_K).zip(rows) {
                        lane[..steps.len()].copy_from_slice(&row[steps.clone()]);
                    }
                    let source = Source {
                        start: lanes.as_ptr(),
                        lane_stride: TILE_K,
                        step_stride: 1,
                        lanes: rows.len(),
                        steps: steps.len(),
                    };
                    // SAFETY: `lanes` holds the source; the target has room for the tile's planes; the machine has the instructions.
                    unsafe { pack_tile(source, Form::Pairs, planes, target, 2 * TILE_LEN) };
                }
            }
        });
    }

    /// Row `i` as products see it.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        let panel = &self.data[i / BLOCK * self.panel()..][..self.panel()];
        let (tile, lane) = (i % BLOCK / TILE, i % TILE);
        for (step, out) in out.iter_mut().enumerate() {
            let block = &panel[step / TILE_K * 2 * self.planes.count() * TILE_LEN..];
            let at = tile * TILE_LEN + step % TILE_K / 2 * TILE_K + lane * 2 + step % 2;
            let plane = |plane: usize| f32::from_bits(u32::from(block[plane * 2 * TILE_LEN + at]) << 16);
            *out = (0..self.planes.count()).map(plane).sum();
        }
    }

    /// `y[m, n] = x[m, k] · selfᵀ`, x in `x_planes`.
    pub fn multiply(&self, x: &[f32], x_planes: Planes, y: &mut [f32]) {
        let (n, k) = (self.n, self.k);
        let m = x.len() / k;
        if m == 0 || n == 0 {
            return;
        }
        let k_tiles = k.div_ceil(TILE_K);
        let target = Target { start: y.as_mut_ptr(), row_stride: n };
        with_buffers(|[packed_x, _]| {
            let packed_x = packed_x.writable(m.div_ceil(TILE) * k_tiles * x_planes.count() * TILE_LEN);
            pack_rows(Matrix::new(x, m, k), 0..m, 0..k, x_planes, packed_x);
            let product =
                Product { amx: self.amx, a: packed_x, a_planes: x_planes, b: &self.data, b_planes: self.planes, k_tiles };
            let threads = rayon::current_num_threads();
            if threads == 1 || m * n * k < PARALLEL_FROM {
                return product.task(Store::Set, target, 0..m, 0..n);
            }
            // Twice as many parts as threads: a core that is busy with something else holds up half a part, not half the work.
            let panels = n.div_ceil(BLOCK);
            let parts = panels.min(2 * threads);
            (0..parts).into_par_iter().with_max_len(1).for_each(|part| {
                let columns = part * panels / parts * BLOCK..n.min((part + 1) * panels / parts * BLOCK);
                product.task(Store::Set, target, 0..m, columns);
            });
        });
    }
}
