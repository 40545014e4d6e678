//! Matrix products `c = a · b` and `c += a · b` of float32 matrices.
//!
//! On processors with a matrix unit [`Precision`] says whether it is used ([`super::tiles`]). Elsewhere, and with
//! [`Precision::Highest`], the inner loops are the `gemm` crate's (packed panels, AVX-512 or AVX2 or NEON micro-kernels, chosen at run time). It is only
//! ever called single-threaded, on blocks of `c` whose borders follow from the shape, so that the order of every sum, and with it
//! every bit of the result, is the same for any number of threads.
//!
//! Work: `2·m·n·k` FLOP on `4·(m·k + k·n + m·n)` bytes.
#![expect(unsafe_code, reason = "calls gemm, which takes raw pointers, on disjoint blocks of one matrix")]

use rayon::prelude::*;

use super::tiles::{Amx, Planes, matmul_tiles};

/// Most rows and columns of a block. A block packs its own panels of `a` and `b`: `(rows + columns)·k` moves of about a cycle against
/// `rows·columns·k / 32` cycles of multiply-adds, so 512 × 768 loses a tenth of its time to packing and 128 × 128 a third.
const BLOCK_MOST: [usize; 2] = [512, 768];
/// A matrix is cut into this many blocks if they stay above [`BLOCK_LEAST`], for threads to share evenly.
const BLOCKS: usize = 12;
const BLOCK_LEAST: usize = 192;
/// Borders of blocks are multiples of this: no tile of gemm's AVX-512 micro-kernel, 6 × 64, is cut inside a matrix.
const BLOCK_ALIGN: [usize; 2] = [6, 64];

/// What float32 products are made of, by the names of `torch.set_float32_matmul_precision`. Where the machine has no unit that is faster for it,
/// products are float32, whatever is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// float32.
    Highest,
    /// Each number is the sum of two bfloat16: 16 bits of mantissa, sums in float32.
    #[default]
    High,
    /// Each number is one bfloat16: 8 bits of mantissa, sums in float32.
    Medium,
}

impl Precision {
    /// The matrix unit and the planes to use; None for float32 on the vector units.
    pub(super) fn tiles(self) -> Option<(Amx, Planes)> {
        let planes = match self {
            Precision::Highest => return None,
            Precision::High => Planes::Two,
            Precision::Medium => Planes::One,
        };
        Amx::detect().map(|amx| (amx, planes))
    }
}

/// What happens to the old content of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// It is not read: it may be anything, NaN included.
    Set,
    /// The product is added to it.
    Add,
}

/// A matrix to read: element `(i, j)` is `data[i · row_stride + j · column_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A whole row-major matrix, `[rows, columns]`.
    ///
    /// # Panics
    /// When `data` has another length.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} × {columns}");
        Matrix { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Rows of `columns` elements whose first elements are `row_stride` apart, starting with `data[0]`: a band of columns of a
    /// wider matrix, such as one head.
    ///
    /// # Panics
    /// When `data` ends before the last element, or rows overlap.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(columns <= row_stride, "rows overlap");
        assert!(rows == 0 || (rows - 1) * row_stride + columns <= data.len(), "a matrix ends outside its data");
        Matrix { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transposed matrix over the same data.
    #[must_use]
    pub fn t(self) -> Self {
        Matrix { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.data[row * self.row_stride + column * self.column_stride]
    }
}

/// A row-major matrix to write; see [`Matrix::strided`].
#[derive(Debug)]
pub struct MatrixMut<'a> {
    pub(super) data: &'a mut [f32],
    rows: usize,
    columns: usize,
    pub(super) row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// A whole row-major matrix, `[rows, columns]`.
    ///
    /// # Panics
    /// When `data` has another length.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} × {columns}");
        MatrixMut { data, rows, columns, row_stride: columns }
    }

    /// Rows of `columns` elements whose first elements are `row_stride` apart, starting with `data[0]`.
    ///
    /// # Panics
    /// When `data` ends before the last element, or rows overlap.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(columns <= row_stride, "rows overlap");
        assert!(rows == 0 || (rows - 1) * row_stride + columns <= data.len(), "a matrix ends outside its data");
        MatrixMut { data, rows, columns, row_stride }
    }

    /// The same matrix, to be written now and again later.
    pub fn reborrow(&mut self) -> MatrixMut<'_> {
        MatrixMut { data: self.data, rows: self.rows, columns: self.columns, row_stride: self.row_stride }
    }
}

/// `c[m,n] (+)= a[m,k] · b[k,n]`: the plain reference, one dot product per element.
///
/// # Panics
/// When the shapes disagree.
pub fn matmul_reference(store: Store, c: MatrixMut, a: Matrix, b: Matrix) {
    check_shapes(&c, &a, &b);
    let MatrixMut { data, rows, columns, row_stride } = c;
    for i in 0..rows {
        for j in 0..columns {
            let dot: f64 = (0..a.columns).map(|l| f64::from(a.at(i, l)) * f64::from(b.at(l, j))).sum();
            let element = &mut data[i * row_stride + j];
            *element = match store {
                Store::Set => dot as f32,
                Store::Add => *element + dot as f32,
            };
        }
    }
}

/// `c[m,n] (+)= a[m,k] · b[k,n]`, by all threads of the current rayon pool.
///
/// `a.t()` and `b.t()` give the other products: `x · Wᵀ` forward, `dy · W` and `dyᵀ · x` backward.
///
/// # Panics
/// When the shapes disagree.
pub fn matmul(precision: Precision, store: Store, c: MatrixMut, a: Matrix, b: Matrix) {
    check_shapes(&c, &a, &b);
    if let Some((amx, planes)) = precision.tiles().filter(|_| a.columns > 0) {
        return matmul_tiles(amx, planes, store, c, a, b);
    }
    let MatrixMut { data, rows: c_rows, columns: c_columns, row_stride } = c;
    if c_rows == 0 || c_columns == 0 {
        return;
    }
    let [rows, columns] = block_shape(c_rows, c_columns);
    let (down, across) = (c_rows.div_ceil(rows), c_columns.div_ceil(columns));
    let target = Pointer(data.as_mut_ptr());
    (0..down * across).into_par_iter().with_max_len(1).for_each(|index| {
        // Neighbours in this order share their band of `b`, the weights, which is the larger operand forward.
        let (i, j) = (index % down * rows, index / down * columns);
        let (m, n) = (rows.min(c_rows - i), columns.min(c_columns - j));
        // SAFETY: `check_shapes` and the constructors keep block (i, j) of m × n elements inside all three matrices; blocks of
        // different indices share no element of `c`, and `c` is borrowed mutably for the whole call.
        unsafe {
            let origin = target.get().add(i * row_stride + j);
            multiply_block(store, origin, row_stride, (m, n), &a, i, &b, j);
        }
    });
}

/// [`matmul`] on the calling thread alone, for small products inside a parallel loop.
///
/// # Panics
/// When the shapes disagree.
pub fn matmul_serial(store: Store, c: MatrixMut, a: Matrix, b: Matrix) {
    check_shapes(&c, &a, &b);
    if c.rows == 0 || c.columns == 0 {
        return;
    }
    let MatrixMut { data, rows, columns, row_stride } = c;
    // SAFETY: `check_shapes` and the constructors keep the whole product inside the three matrices; `c` is borrowed mutably.
    unsafe { multiply_block(store, data.as_mut_ptr(), row_stride, (rows, columns), &a, 0, &b, 0) }
}

/// Rows and columns of the blocks of a `[rows, columns]` matrix. Follows from the shape alone.
fn block_shape(rows: usize, columns: usize) -> [usize; 2] {
    let matrix = [rows, columns];
    let mut parts = [0, 1].map(|axis| matrix[axis].div_ceil(BLOCK_MOST[axis]));
    let shape = |parts: [usize; 2]| [0, 1].map(|axis| matrix[axis].div_ceil(parts[axis]).next_multiple_of(BLOCK_ALIGN[axis]));
    while parts[0] * parts[1] < BLOCKS {
        let block = shape(parts);
        let longer = usize::from(block[1] > block[0]);
        if block[longer] < 2 * BLOCK_LEAST {
            break;
        }
        parts[longer] += 1;
    }
    shape(parts)
}

fn check_shapes(c: &MatrixMut, a: &Matrix, b: &Matrix) {
    assert!(
        a.rows == c.rows && b.columns == c.columns && a.columns == b.rows,
        "product of [{}, {}] and [{}, {}] into [{}, {}]",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        c.rows,
        c.columns
    );
}

/// A pointer that rayon's workers may share.
#[derive(Clone, Copy)]
struct Pointer(*mut f32);

impl Pointer {
    fn get(self) -> *mut f32 {
        self.0
    }
}

// SAFETY: only `matmul` makes one, and its workers write disjoint blocks behind it.
unsafe impl Send for Pointer {}
// SAFETY: as above.
unsafe impl Sync for Pointer {}

/// Rows `row..row + m` of `a` times columns `column..column + n` of `b`, into `c` with its own row stride.
///
/// # Safety
/// `a` has `row + m` rows, `b` has `column + n` columns and as many rows as `a` has columns; `c` points to `m` rows of `n`
/// elements, `c_stride` apart, that nobody else reads or writes during the call.
#[expect(clippy::too_many_arguments, reason = "a private shim over gemm's nineteen")]
unsafe fn multiply_block(
    store: Store,
    c: *mut f32,
    c_stride: usize,
    (m, n): (usize, usize),
    a: &Matrix,
    row: usize,
    b: &Matrix,
    column: usize,
) {
    let a_start = &raw const a.data[..][if a.columns == 0 { 0 } else { row * a.row_stride }..];
    let b_start = &raw const b.data[..][if b.rows == 0 { 0 } else { column * b.column_stride }..];
    // SAFETY: the caller's contract covers every element that gemm touches: strides are those of the matrices.
    unsafe {
        gemm::gemm(
            m,
            n,
            a.columns,
            c,
            1,
            c_stride as isize,
            store == Store::Add,
            a_start.cast::<f32>(),
            a.column_stride as isize,
            a.row_stride as isize,
            b_start.cast::<f32>(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0_f32,
            1.0_f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, noise, with_threads};

    /// All four ways operands lie in memory, at shapes around the borders of blocks and micro-tiles.
    const SHAPES: [(usize, usize, usize); 9] = [
        (1, 1, 1),
        (1, 576, 64),
        (2, 49, 3),
        (33, 17, 65),
        (48, 512, 1),
        (257, 513, 40),
        (300, 100, 300),
        (64, 64, 64),
        (5, 600, 7),
    ];

    fn operands(m: usize, n: usize, k: usize) -> (Vec<f32>, Vec<f32>) {
        (noise(m * k, 1), noise(k * n, 2))
    }

    #[test]
    fn matmul_equals_reference_for_every_layout_and_store() {
        for (m, n, k) in SHAPES {
            let (a, b) = operands(m, n, k);
            for layout in 0..4 {
                let a = if layout & 1 == 0 { Matrix::new(&a, m, k) } else { Matrix::new(&a, k, m).t() };
                let b = if layout & 2 == 0 { Matrix::new(&b, k, n) } else { Matrix::new(&b, n, k).t() };
                for store in [Store::Set, Store::Add] {
                    let before = if store == Store::Set { vec![f32::NAN; m * n] } else { noise(m * n, 3) };
                    let [mut fast, mut serial, mut reference] = [before.clone(), before.clone(), before];
                    matmul(Precision::Highest, store, MatrixMut::new(&mut fast, m, n), a, b);
                    matmul_serial(store, MatrixMut::new(&mut serial, m, n), a, b);
                    matmul_reference(store, MatrixMut::new(&mut reference, m, n), a, b);
                    assert_close(&fast, &reference, 1e-5, &format!("{m} × {n} × {k}, layout {layout}, {store:?}"));
                    assert_close(&serial, &reference, 1e-5, &format!("serial {m} × {n} × {k}, layout {layout}, {store:?}"));
                }
            }
        }
    }

    #[test]
    fn matmul_into_a_band_of_columns_leaves_the_other_columns_alone() {
        let (m, n, k, stride) = (37, 20, 11, 50);
        let (a, b) = operands(m, n, k);
        let mut c = vec![7.0; m * stride];
        matmul(
            Precision::High,
            Store::Set,
            MatrixMut::strided(&mut c[10..], m, n, stride),
            Matrix::new(&a, m, k),
            Matrix::new(&b, k, n),
        );
        let mut expected = vec![0.0; m * n];
        matmul_reference(Store::Set, MatrixMut::new(&mut expected, m, n), Matrix::new(&a, m, k), Matrix::new(&b, k, n));
        for (row, expected) in c.chunks(stride).zip(expected.chunks(n)) {
            assert_close(&row[10..30], expected, 2e-5, "band");
            assert!(row[..10].iter().chain(&row[30..]).all(|&x| x == 7.0));
        }
    }

    #[test]
    fn matmul_has_the_same_bits_for_any_number_of_threads() {
        for (m, n, k) in [(257, 1100, 300), (1000, 192, 576), (3, 5000, 64)] {
            let (a, b) = operands(m, n, k);
            for precision in [Precision::Highest, Precision::High, Precision::Medium] {
                let run = |threads| {
                    with_threads(threads, || {
                        let mut c = vec![f32::NAN; m * n];
                        let [a, b] = [Matrix::new(&a, m, k), Matrix::new(&b, n, k).t()];
                        matmul(precision, Store::Set, MatrixMut::new(&mut c, m, n), a, b);
                        c.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                    })
                };
                let one = run(1);
                assert!(run(2) == one && run(5) == one, "{m} × {n} × {k}, {precision:?}");
            }
        }
    }

    #[test]
    fn blocks_cover_the_matrix_and_are_many_when_it_is_large() {
        for (rows, columns) in [(1, 1), (7, 49_152), (1536, 576), (1536, 192), (1536, 3072), (49_152, 576), (100_000, 64)] {
            let [down, across] = block_shape(rows, columns);
            assert!(down <= BLOCK_MOST[0] + BLOCK_ALIGN[0] && across <= BLOCK_MOST[1] + BLOCK_ALIGN[1]);
            let blocks = rows.div_ceil(down) * columns.div_ceil(across);
            assert!(blocks >= 8 || rows * columns < 12 * 4 * BLOCK_LEAST * BLOCK_LEAST, "{rows} × {columns}: {blocks} blocks");
        }
    }

    #[test]
    fn matmul_over_an_empty_inner_axis_is_zero() {
        let mut c = vec![f32::NAN; 6];
        matmul(Precision::High, Store::Set, MatrixMut::new(&mut c, 2, 3), Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 3));
        assert_eq!(c, [0.0; 6]);
    }
}
