//! Batches as plugins see them: rows of named columns, grouped by prompt.

use std::collections::BTreeMap;

/// Many texts as one buffer: row `i` is `bytes[ends[i-1]..ends[i]]`, with `ends[-1] = 0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// All rows' bytes, one after the other. UTF-8, except in columns of raw bytes.
    pub bytes: Vec<u8>,
    /// End of each row in `bytes`; never decreasing, the last equals `bytes.len()`.
    pub ends: Vec<u32>,
}

impl Texts {
    /// Adds a row.
    ///
    /// # Panics
    /// When the column passes 4 GiB: ends are 32-bit, as WebAssembly's memory is.
    pub fn push(&mut self, text: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(text.as_ref());
        self.ends.push(u32::try_from(self.bytes.len()).expect("a text column holds at most 4 GiB"));
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of row `row`.
    pub fn bytes_at(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.bytes[start..self.ends[row] as usize]
    }

    /// Row `row` as text; None where it is not UTF-8.
    pub fn get(&self, row: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes_at(row)).ok()
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(rows: I) -> Self {
        let mut texts = Texts::default();
        rows.into_iter().for_each(|row| texts.push(row));
        texts
    }
}

/// One list of values a row: row `i` is `values[ends[i-1]..ends[i]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ragged<T> {
    /// All rows' values, one after the other.
    pub values: Vec<T>,
    /// End of each row in `values`.
    pub ends: Vec<u32>,
}

impl<T: Copy> Ragged<T> {
    /// Adds a row.
    ///
    /// # Panics
    /// When the column passes 2^32 values.
    pub fn push(&mut self, row: &[T]) {
        self.values.extend_from_slice(row);
        self.ends.push(u32::try_from(self.values.len()).expect("a ragged column holds at most 2^32 values"));
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Values of row `row`.
    pub fn row(&self, row: usize) -> &[T] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.values[start..self.ends[row] as usize]
    }
}

/// One column of a [`Batch`].
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// A text per row.
    Text(Texts),
    /// A number per row.
    F64(Vec<f64>),
    /// An integer per row.
    U32(Vec<u32>),
    /// Token ids per row.
    Tokens(Ragged<u32>),
    /// A number per token.
    TokenF32(Ragged<f32>),
    /// Numbers per row.
    F64Lists(Ragged<f64>),
    /// Raw bytes per row; dtype and shape stand in the batch's attributes.
    Bytes(Texts),
}

impl Column {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Column::Text(t) | Column::Bytes(t) => t.len(),
            Column::F64(v) => v.len(),
            Column::U32(v) => v.len(),
            Column::Tokens(r) => r.len(),
            Column::TokenF32(r) => r.len(),
            Column::F64Lists(r) => r.len(),
        }
    }

    /// Rows `start..stop` alone, copied.
    #[must_use]
    pub fn slice(&self, start: usize, stop: usize) -> Column {
        fn ragged<T: Copy + Default>(rows: &Ragged<T>, range: std::ops::Range<usize>) -> Ragged<T> {
            let mut out = Ragged::default();
            range.for_each(|i| out.push(rows.row(i)));
            out
        }
        let texts = |t: &Texts| (start..stop).map(|i| t.bytes_at(i)).collect::<Texts>();
        match self {
            Column::Text(t) => Column::Text(texts(t)),
            Column::Bytes(t) => Column::Bytes(texts(t)),
            Column::F64(v) => Column::F64(v[start..stop].to_vec()),
            Column::U32(v) => Column::U32(v[start..stop].to_vec()),
            Column::Tokens(r) => Column::Tokens(ragged(r, start..stop)),
            Column::TokenF32(r) => Column::TokenF32(ragged(r, start..stop)),
            Column::F64Lists(r) => Column::F64Lists(ragged(r, start..stop)),
        }
    }
}

/// Rows with named columns; the rows of one prompt are adjacent and form a group.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Optimizer step the batch belongs to; 0 outside training.
    pub step: u64,
    /// Stable id of each row: key of seeds, caches and replay.
    pub row_ids: Vec<u64>,
    /// End row of each group; the last equals the number of rows.
    pub group_ends: Vec<u32>,
    /// Facts about the batch or a column, `stage` for example.
    pub attrs: BTreeMap<String, String>,
    columns: BTreeMap<String, Column>,
}

impl Batch {
    /// A batch without columns.
    ///
    /// # Panics
    /// When the groups do not cover the rows exactly.
    pub fn new(step: u64, row_ids: Vec<u64>, group_ends: Vec<u32>) -> Self {
        assert_eq!(group_ends.last().copied().unwrap_or(0) as usize, row_ids.len(), "groups must cover the rows");
        assert!(group_ends.is_sorted(), "group ends must not decrease");
        Batch { step, row_ids, group_ends, attrs: BTreeMap::new(), columns: BTreeMap::new() }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.row_ids.len()
    }

    /// Adds or replaces a column.
    ///
    /// # Panics
    /// When the column's length is not the number of rows.
    pub fn insert(&mut self, name: impl Into<String>, column: Column) {
        let name = name.into();
        assert_eq!(column.rows(), self.rows(), "column `{name}` must have one entry per row");
        self.columns.insert(name, column);
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.get(name)
    }

    /// Columns in the order of their names.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.columns.iter().map(|(name, column)| (name.as_str(), column))
    }

    /// Groups as row ranges.
    pub fn groups(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        (0..self.group_ends.len()).map(|g| {
            let start = if g == 0 { 0 } else { self.group_ends[g - 1] as usize };
            start..self.group_ends[g] as usize
        })
    }

    /// Rows `start..stop` alone; groups that the cut goes through keep their part inside.
    #[must_use]
    pub fn slice(&self, start: usize, stop: usize) -> Batch {
        let group_ends = self
            .groups()
            .filter_map(|g| {
                let (from, to) = (g.start.max(start), g.end.min(stop));
                (from < to).then_some((to - start) as u32)
            })
            .collect();
        Batch {
            step: self.step,
            row_ids: self.row_ids[start..stop].to_vec(),
            group_ends,
            attrs: self.attrs.clone(),
            columns: self.columns.iter().map(|(name, column)| (name.clone(), column.slice(start, stop))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_keeps_the_parts_of_groups_inside_it() {
        let mut batch = Batch::new(3, vec![10, 11, 12, 13, 14], vec![2, 2, 5]);
        batch.insert("completion", Column::Text(["a", "bb", "", "dd", "e"].iter().collect()));
        let part = batch.slice(1, 4);
        assert_eq!(part.row_ids, [11, 12, 13]);
        assert_eq!(part.group_ends, [1, 3]);
        let Some(Column::Text(texts)) = part.column("completion") else { panic!("a text column stays one") };
        assert_eq!((0..3).map(|i| texts.get(i).unwrap()).collect::<Vec<_>>(), ["bb", "", "dd"]);
    }
}
