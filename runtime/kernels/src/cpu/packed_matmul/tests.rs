use super::*;

const FORMATS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8];

/// Numbers whose sums round differently in every order: a linear congruential generator over [-1, 1).
fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn packed(parts: &[&[f32]], k: usize, format: WeightFormat) -> PackedMatrix {
    let mut matrix = PackedMatrix::zeros(parts.iter().map(|part| part.len()).sum::<usize>() / k, k, format, Precision::Highest);
    matrix.pack(parts);
    matrix
}

/// The product as the module's documentation defines it.
fn plain(format: WeightFormat, x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let n = w.len() / k;
    let (stored, scales): (Vec<_>, Vec<_>) = w.chunks(k).map(|row| stored_reference(format, row)).unzip();
    let mut y = vec![0.0; x.len() / k * n];
    multiply_reference(x, &stored.concat(), k, &mut y);
    y.chunks_mut(n).for_each(|y| y.iter_mut().zip(&scales).for_each(|(y, scale)| *y *= scale));
    y
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn every_instruction_set_gives_the_reference_bits_for_1_to_40_rows_and_odd_shapes_in_every_format() {
    for (n, k) in [(1, 1), (47, 5), (48, 64), (49, 33), (100, 18), (131, 95), (288, 7)] {
        let w = noise(n * k, 1);
        for format in FORMATS {
            let matrix = packed(&[&w], k, format);
            for m in (1..=17).chain([24, 31, 40]) {
                let x = noise(m * k, 2 + m as u32);
                let expected = plain(format, &x, &w, k);
                for isa in Isa::all() {
                    let mut y = vec![f32::NAN; m * n];
                    matrix.multiply_on(isa, &x, &mut y);
                    assert!(same_bits(&y, &expected), "{format:?} {isa:?} {m} {n} {k}");
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_on_any_number_of_threads() {
    let (n, k, m) = (1000, 301, 23);
    let (w, x) = (noise(n * k, 3), noise(m * k, 4));
    assert!(n * k * m > PARALLEL_FROM, "too small to be split among threads");
    for format in FORMATS {
        let matrix = packed(&[&w], k, format);
        let mut alone = vec![0.0; m * n];
        for (x, y) in x.chunks(k).zip(alone.chunks_mut(n)) {
            matrix.multiply(x, y);
        }
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            let mut together = vec![0.0; m * n];
            pool.install(|| matrix.multiply(&x, &mut together));
            assert_eq!(alone, together, "{format:?}, {threads} threads");
        }
    }
}

#[test]
fn rows_come_back_as_the_products_see_them_and_repacking_replaces_them() {
    let k = 11;
    let (a, b) = (noise(60 * k, 5), noise(37 * k, 6));
    for format in FORMATS {
        let expected = |row: &[f32]| -> Vec<f32> {
            let (values, scale) = stored_reference(format, row);
            values.iter().map(|w| w * scale).collect()
        };
        let mut matrix = packed(&[&a, &b], k, format);
        let mut row = vec![0.0; k];
        for (i, original) in a.chunks(k).chain(b.chunks(k)).enumerate() {
            matrix.row(i, &mut row);
            assert_eq!(row, expected(original), "{format:?}");
        }
        matrix.pack(&[&b, &a]);
        matrix.row(0, &mut row);
        assert_eq!(row, expected(&b[..k]), "{format:?}");
    }
}

#[test]
fn stored_weights_are_the_nearest_ones_of_their_format() {
    let row = noise(1000, 7);
    let max = row.iter().fold(0.0_f32, |max, w| max.max(w.abs()));
    for (format, bound) in [
        (WeightFormat::F32, &(|_: f32| 0.0_f32) as &dyn Fn(f32) -> f32),
        // 8 bits of mantissa: half a unit in the last place is at most 2^-8 of the number.
        (WeightFormat::Bf16, &|w: f32| w.abs() / 256.0),
        (WeightFormat::Int8, &|_| max / 127.0 * 0.5001),
    ] {
        let matrix = packed(&[&row], row.len(), format);
        let mut stored = vec![0.0; row.len()];
        matrix.row(0, &mut stored);
        assert!(stored.iter().zip(&row).all(|(stored, &w)| (stored - w).abs() <= bound(w)), "{format:?}");
    }
    // Ties go to even, and the largest weight is kept to the last bit of its scale.
    let matrix = packed(&[&[127.0, 0.5, 1.5, -2.5, -127.0]], 5, WeightFormat::Int8);
    let mut stored = [0.0; 5];
    matrix.row(0, &mut stored);
    assert_eq!(stored, [127.0, 0.0, 2.0, -2.0, -127.0]);
}

#[test]
fn rows_of_zeros_are_zeros_and_weights_that_are_not_finite_show_in_their_outputs_alone() {
    let w = [[0.0; 3], [1.0, f32::NAN, 2.0], [f32::INFINITY, 1.0, 1.0], [1.0, -1.0, 0.5]].concat();
    for format in FORMATS {
        let mut y = [1.0; 4];
        packed(&[&w], 3, format).multiply(&[1.0, 1.0, 1.0], &mut y);
        assert_eq!(y[0], 0.0, "{format:?}");
        assert!(!y[1].is_finite() && !y[2].is_finite(), "{format:?} hides them: {y:?}");
        assert!((y[3] - 0.5).abs() < 0.01, "{format:?}");
    }
}

#[test]
fn narrower_formats_take_a_half_and_a_quarter_of_the_memory() {
    let bytes = FORMATS.map(|format| PackedMatrix::zeros(480, 64, format, Precision::Highest).bytes());
    assert_eq!(bytes, [480 * 64 * 4, 480 * 64 * 2, 480 * 64 + 480 * 4]);
}
