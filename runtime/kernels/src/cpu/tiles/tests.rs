use super::*;
use crate::cpu::matmul::{Matrix, MatrixMut, Store, matmul_reference};
use crate::cpu::testing::{assert_close, noise, with_threads};

const SHAPES: [(usize, usize, usize); 8] =
    [(1, 1, 1), (16, 32, 32), (17, 33, 31), (5, 70, 100), (64, 64, 64), (40, 500, 2100), (300, 260, 96), (33, 47, 4097)];

#[test]
fn every_element_is_the_chain_of_the_reference_for_every_layout() {
    let Some(amx) = Amx::detect() else { return };
    for (m, n, k) in SHAPES {
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        for (layout, planes) in (0..4).flat_map(|layout| [(layout, Planes::One), (layout, Planes::Two)]) {
            let a = if layout & 1 == 0 { Matrix::new(&a, m, k) } else { Matrix::new(&a, k, m).t() };
            let b = if layout & 2 == 0 { Matrix::new(&b, k, n) } else { Matrix::new(&b, n, k).t() };
            let mut c = vec![f32::NAN; m * n];
            matmul_tiles(amx, planes, Store::Set, MatrixMut::new(&mut c, m, n), a, b);
            for (i, j) in [(0, 0), (m - 1, n - 1), (m / 2, n / 3), (0, n - 1), (m - 1, 0)] {
                let row: Vec<f32> = (0..k).map(|l| a.data[i * a.row_stride + l * a.column_stride]).collect();
                let column: Vec<f32> = (0..k).map(|l| b.data[l * b.row_stride + j * b.column_stride]).collect();
                let chunks = row.chunks(2048).zip(column.chunks(2048));
                let expected = chunks.map(|(a, b)| dot_reference(a, planes, b, planes)).reduce(|x, y| x + y).unwrap();
                assert_eq!(
                    c[i * n + j].to_bits(),
                    expected.to_bits(),
                    "{m} x {n} x {k}, layout {layout}, {planes:?}, ({i}, {j})"
                );
            }
        }
    }
}

#[test]
fn two_planes_keep_sixteen_bits() {
    let Some(amx) = Amx::detect() else { return };
    for (m, n, k) in SHAPES {
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, n, k).t());
        for (planes, tolerance) in [(Planes::One, 4e-3), (Planes::Two, 2e-5)] {
            let before = noise(m * n, 3);
            let [mut fast, mut exact] = [before.clone(), before];
            matmul_tiles(amx, planes, Store::Add, MatrixMut::new(&mut fast, m, n), a, b);
            matmul_reference(Store::Add, MatrixMut::new(&mut exact, m, n), a, b);
            assert_close(&fast, &exact, tolerance, &format!("{m} x {n} x {k}, {planes:?}"));
        }
    }
}

#[test]
fn packed_products_have_the_bits_of_the_reference_for_any_batch_and_threads() {
    let Some(amx) = Amx::detect() else { return };
    for (n, k) in [(1, 1), (100, 64), (33, 70), (500, 576)] {
        let w = noise(n * k, 5);
        let x = noise(70 * k, 6);
        for (w_planes, x_planes) in [(Planes::One, Planes::One), (Planes::One, Planes::Two), (Planes::Two, Planes::Two)] {
            let mut packed = PackedB::zeros(amx, n, k, w_planes);
            packed.pack(&w.chunks(k).collect::<Vec<_>>());
            let mut all = vec![f32::NAN; 70 * n];
            with_threads(3, || packed.multiply(&x, x_planes, &mut all));
            for (first, count) in [(0, 1), (3, 16), (20, 17), (1, 40), (0, 70)] {
                let mut some = vec![f32::NAN; count * n];
                with_threads(1, || packed.multiply(&x[first * k..][..count * k], x_planes, &mut some));
                assert!(
                    some.iter().zip(&all[first * n..]).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{n} x {k}, {first} + {count}"
                );
            }
            for (i, j) in [(0, 0), (69, n - 1), (40, n / 2)] {
                let expected = dot_reference(&x[i * k..][..k], x_planes, &w[j * k..][..k], w_planes);
                assert_eq!(all[i * n + j].to_bits(), expected.to_bits(), "{n} x {k}, ({i}, {j})");
            }
            let mut row = vec![0.0; k];
            packed.row(n - 1, &mut row);
            assert_close(&row, &w[(n - 1) * k..], if w_planes == Planes::One { 4e-3 } else { 1e-5 }, "row");
        }
    }
}
