//! The batch that a guest holds a handle of: some rows of a shared [`Batch`], sliced when a column is asked for.

use std::ops::Range;
use std::sync::Arc;

use plumb_core::{Batch, Column, Ragged, Texts};

use crate::bindings::types::{RaggedF32, RaggedF64, RaggedU32, Texts as WitTexts};

/// Rows of a batch. Cloning and cutting copies no column.
#[derive(Clone, Debug)]
pub struct BatchView {
    batch: Arc<Batch>,
    rows: Range<usize>,
}

impl BatchView {
    /// All rows.
    pub fn new(batch: Arc<Batch>) -> Self {
        let rows = 0..batch.rows();
        BatchView { batch, rows }
    }

    /// The rows `start..stop` of this view.
    pub(crate) fn part(&self, start: usize, stop: usize) -> Self {
        BatchView { batch: Arc::clone(&self.batch), rows: self.rows.start + start..self.rows.start + stop }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// First row, counted in the whole batch.
    pub(crate) fn start(&self) -> usize {
        self.rows.start
    }

    /// The whole batch.
    pub(crate) fn batch(&self) -> &Batch {
        &self.batch
    }

    pub(crate) fn row_ids(&self) -> Vec<u64> {
        self.batch.row_ids[self.rows.clone()].to_vec()
    }

    /// Groups that the cut goes through keep their part inside; empty ones vanish. Looks at no other groups than those.
    pub(crate) fn group_ends(&self) -> Vec<u32> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let ends = &self.batch.group_ends;
        let first = ends.partition_point(|&end| end as usize <= self.rows.start);
        let last = ends.partition_point(|&end| (end as usize) < self.rows.end);
        let inside = ends.get(first..=last.min(ends.len().saturating_sub(1))).unwrap_or_default();
        let mut cut: Vec<u32> =
            inside.iter().map(|&end| (end as usize).min(self.rows.end) - self.rows.start).map(|end| end as u32).collect();
        cut.dedup();
        cut
    }

    pub(crate) fn text(&self, name: &str) -> Option<WitTexts> {
        match self.batch.column(name)? {
            Column::Text(texts) => Some(cut_texts(texts, &self.rows)),
            _ => None,
        }
    }

    pub(crate) fn text_at(&self, name: &str, row: usize) -> Option<String> {
        match self.batch.column(name)? {
            Column::Text(texts) if row < self.rows() => texts.get(self.rows.start + row).map(str::to_owned),
            _ => None,
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<WitTexts> {
        match self.batch.column(name)? {
            Column::Bytes(texts) => Some(cut_texts(texts, &self.rows)),
            _ => None,
        }
    }

    pub(crate) fn f64s(&self, name: &str) -> Option<Vec<f64>> {
        match self.batch.column(name)? {
            Column::F64(values) => Some(values[self.rows.clone()].to_vec()),
            _ => None,
        }
    }

    pub(crate) fn u32s(&self, name: &str) -> Option<Vec<u32>> {
        match self.batch.column(name)? {
            Column::U32(values) => Some(values[self.rows.clone()].to_vec()),
            _ => None,
        }
    }

    pub(crate) fn tokens(&self, name: &str) -> Option<RaggedU32> {
        match self.batch.column(name)? {
            Column::Tokens(ragged) => {
                let (values, ends) = cut_ragged(ragged, &self.rows);
                Some(RaggedU32 { values, ends })
            }
            _ => None,
        }
    }

    pub(crate) fn token_f32s(&self, name: &str) -> Option<RaggedF32> {
        match self.batch.column(name)? {
            Column::TokenF32(ragged) => {
                let (values, ends) = cut_ragged(ragged, &self.rows);
                Some(RaggedF32 { values, ends })
            }
            _ => None,
        }
    }

    pub(crate) fn f64_lists(&self, name: &str) -> Option<RaggedF64> {
        match self.batch.column(name)? {
            Column::F64Lists(ragged) => {
                let (values, ends) = cut_ragged(ragged, &self.rows);
                Some(RaggedF64 { values, ends })
            }
            _ => None,
        }
    }

    /// Cuts the view into parts of at most `rows` rows and `bytes` bytes; a row larger than that is a part of its own.
    pub(crate) fn parts(&self, rows: usize, bytes: usize) -> Vec<Self> {
        let mut parts = Vec::new();
        let (mut start, mut size) = (0, 0);
        for row in 0..self.rows() {
            let row_bytes: usize = self.batch.columns().map(|(_, column)| bytes_at(column, self.rows.start + row)).sum();
            if row > start && (row - start == rows || size + row_bytes > bytes) {
                parts.push(self.part(start, row));
                (start, size) = (row, 0);
            }
            size += row_bytes;
        }
        if start < self.rows() {
            parts.push(self.part(start, self.rows()));
        }
        parts
    }
}

/// The stretch of the values that belongs to `rows`, and the ends rebased to it.
fn cut_ends(ends: &[u32], rows: &Range<usize>) -> (Range<usize>, Vec<u32>) {
    if rows.is_empty() {
        return (0..0, Vec::new());
    }
    let first = if rows.start == 0 { 0 } else { ends[rows.start - 1] };
    (first as usize..ends[rows.end - 1] as usize, ends[rows.clone()].iter().map(|end| end - first).collect())
}

fn cut_texts(texts: &Texts, rows: &Range<usize>) -> WitTexts {
    let (stretch, ends) = cut_ends(&texts.ends, rows);
    WitTexts { bytes: texts.bytes[stretch].to_vec(), ends }
}

fn cut_ragged<T: Copy>(ragged: &Ragged<T>, rows: &Range<usize>) -> (Vec<T>, Vec<u32>) {
    let (stretch, ends) = cut_ends(&ragged.ends, rows);
    (ragged.values[stretch].to_vec(), ends)
}

fn bytes_at(column: &Column, row: usize) -> usize {
    match column {
        Column::Text(texts) | Column::Bytes(texts) => texts.bytes_at(row).len() + 4,
        Column::F64(_) => 8,
        Column::U32(_) => 4,
        Column::Tokens(ragged) => 4 * ragged.row(row).len() + 4,
        Column::TokenF32(ragged) => 4 * ragged.row(row).len() + 4,
        Column::F64Lists(ragged) => 8 * ragged.row(row).len() + 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::new(1, vec![10, 11, 12, 13, 14], vec![2, 2, 5]);
        batch.insert("completion", Column::Text(["a", "bb", "", "dd", "eeeeeeee"].iter().collect()));
        batch.insert("value", Column::F64(vec![0.0, 1.0, 2.0, 3.0, 4.0]));
        batch
    }

    #[test]
    fn view_gives_what_a_slice_of_the_batch_gives() {
        let part = BatchView::new(Arc::new(batch())).part(1, 5).part(0, 3);
        let slice = batch().slice(1, 4);
        assert_eq!((part.row_ids(), part.group_ends()), (slice.row_ids.clone(), slice.group_ends.clone()));
        let texts = part.text("completion").unwrap();
        let Some(Column::Text(expected)) = slice.column("completion") else { panic!("a text column stays one") };
        assert_eq!((&texts.bytes, &texts.ends), (&expected.bytes, &expected.ends));
        assert_eq!(part.f64s("value").unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(part.text_at("completion", 2).as_deref(), Some("dd"));
        assert_eq!(part.text_at("completion", 3), None, "rows beyond the view stay hidden");
        assert!(part.f64s("completion").is_none(), "a column of another type is none");
    }

    #[test]
    fn parts_keep_to_rows_and_bytes_and_cover_all() {
        let view = BatchView::new(Arc::new(batch()));
        let sizes = |rows, bytes| view.parts(rows, bytes).iter().map(BatchView::rows).collect::<Vec<_>>();
        assert_eq!(sizes(2, 1 << 20), [2, 2, 1]);
        // Rows take 13, 14, 12, 14 and 20 bytes.
        assert_eq!(sizes(10, 27), [2, 2, 1]);
        assert_eq!(sizes(10, 1), [1; 5]);
        assert_eq!(sizes(10, 1 << 20), [5]);
    }
}
