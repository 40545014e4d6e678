//! Rows of a table by index, and back.
//!
//! Gathering copies 8 bytes an element. Scattering adds rows in the order of the indices, on one thread: a token may occur many
//! times, and the sums' order must not depend on threads. It is far below a thousandth of a training step.

/// `y[i] = table[indices[i]]`, rows of `d` elements.
///
/// # Panics
/// When an index is outside the table, or `y` is not `[indices.len(), d]`.
pub fn gather_rows(table: &[f32], indices: &[u32], d: usize, y: &mut [f32]) {
    assert_eq!(y.len(), indices.len() * d, "gather_rows");
    for (y, &index) in y.chunks_exact_mut(d).zip(indices) {
        y.copy_from_slice(&table[index as usize * d..][..d]);
    }
}

/// `dtable[indices[i]] += dy[i]`, in the order of i.
///
/// # Panics
/// As [`gather_rows`].
pub fn scatter_add_rows(dy: &[f32], indices: &[u32], d: usize, dtable: &mut [f32]) {
    assert_eq!(dy.len(), indices.len() * d, "scatter_add_rows");
    for (dy, &index) in dy.chunks_exact(d).zip(indices) {
        for (total, dy) in dtable[index as usize * d..][..d].iter_mut().zip(dy) {
            *total += dy;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_gathered_and_repeated_indices_add_up() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut y = [f32::NAN; 6];
        gather_rows(&table, &[2, 0, 2], 2, &mut y);
        assert_eq!(y, [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        let mut dtable = [10.0; 6];
        scatter_add_rows(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 0, 2], 2, &mut dtable);
        assert_eq!(dtable, [13.0, 14.0, 10.0, 10.0, 16.0, 18.0]);
    }
}
