//! The batch: rows of named columns, grouped by prompt.

use std::cell::OnceCell;
use std::ops::Range;

use crate::fault::Fault;

/// Many texts as one buffer: row `i` is `bytes[ends[i-1]..ends[i]]`, with `ends[-1] = 0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// All rows' bytes, one after the other. UTF-8, except in columns of raw bytes.
    pub bytes: Vec<u8>,
    /// End of each row in `bytes`.
    pub ends: Vec<u32>,
}

impl Texts {
    /// Adds a row.
    ///
    /// # Panics
    /// When the texts together pass 4 GiB.
    pub fn push(&mut self, text: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(text.as_ref());
        self.ends.push(u32::try_from(self.bytes.len()).expect("texts hold at most 4 GiB"));
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
        &self.bytes[bounds(&self.ends, row)]
    }

    /// Row `row` as text; empty if it is not UTF-8, which the runtime rules out for text columns.
    pub fn get(&self, row: usize) -> &str {
        std::str::from_utf8(self.bytes_at(row)).unwrap_or_default()
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|row| self.get(row))
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
    /// When the rows together pass 2^32 values.
    pub fn push(&mut self, row: &[T]) {
        self.values.extend_from_slice(row);
        self.ends.push(u32::try_from(self.values.len()).expect("ragged rows hold at most 2^32 values"));
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
    pub fn get(&self, row: usize) -> &[T] {
        &self.values[bounds(&self.ends, row)]
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[T]> {
        (0..self.len()).map(|row| self.get(row))
    }
}

impl<T: Copy, R: AsRef<[T]>> FromIterator<R> for Ragged<T> {
    fn from_iter<I: IntoIterator<Item = R>>(rows: I) -> Self {
        let mut ragged = Ragged { values: Vec::new(), ends: Vec::new() };
        rows.into_iter().for_each(|row| ragged.push(row.as_ref()));
        ragged
    }
}

fn bounds(ends: &[u32], row: usize) -> Range<usize> {
    let start = if row == 0 { 0 } else { ends[row - 1] as usize };
    start..ends[row] as usize
}

/// Where a batch's data come from: the host in a guest, memory in native tests.
pub(crate) trait Source {
    fn rows(&self) -> usize;
    fn step(&self) -> u64;
    fn row_ids(&self) -> Vec<u64>;
    fn group_ends(&self) -> Vec<u32>;
    fn columns(&self) -> Vec<String>;
    fn attr(&self, name: &str) -> Option<String>;
    fn text(&self, column: &str) -> Option<Texts>;
    fn f64s(&self, column: &str) -> Option<Vec<f64>>;
    fn u32s(&self, column: &str) -> Option<Vec<u32>>;
    fn tokens(&self, column: &str) -> Option<Ragged<u32>>;
    fn token_f32s(&self, column: &str) -> Option<Ragged<f32>>;
    fn f64_lists(&self, column: &str) -> Option<Ragged<f64>>;
    fn bytes(&self, column: &str) -> Option<Texts>;
}

/// Rows with named columns. The rows of one prompt are adjacent and form a group.
///
/// A column is copied out of the runtime when it is first asked for, and kept until the call ends; asking again is cheap. One
/// name may be asked for as several types.
pub struct Batch<'a> {
    source: &'a dyn Source,
    rows: usize,
    row_ids: OnceCell<Vec<u64>>,
    group_ends: OnceCell<Vec<u32>>,
    text: Cache<Texts>,
    f64s: Cache<Vec<f64>>,
    u32s: Cache<Vec<u32>>,
    tokens: Cache<Ragged<u32>>,
    token_f32s: Cache<Ragged<f32>>,
    f64_lists: Cache<Ragged<f64>>,
    bytes: Cache<Texts>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(source: &'a dyn Source) -> Self {
        Batch {
            source,
            rows: source.rows(),
            row_ids: OnceCell::new(),
            group_ends: OnceCell::new(),
            text: Cache::default(),
            f64s: Cache::default(),
            u32s: Cache::default(),
            tokens: Cache::default(),
            token_f32s: Cache::default(),
            f64_lists: Cache::default(),
            bytes: Cache::default(),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The optimizer step this batch belongs to; 0 outside training.
    pub fn step(&self) -> u64 {
        self.source.step()
    }

    /// Stable ids of the rows, the keys for [`random`](crate::random).
    pub fn row_ids(&self) -> &[u64] {
        self.row_ids.get_or_init(|| self.source.row_ids())
    }

    /// The groups, each the rows of one prompt, as ranges of rows.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = Range<usize>> {
        let ends = self.group_ends.get_or_init(|| self.source.group_ends());
        (0..ends.len()).map(|group| bounds(ends, group))
    }

    /// Names of the columns there are.
    pub fn columns(&self) -> Vec<String> {
        self.source.columns()
    }

    /// A fact about the batch or a column: `recipe_stage` (the stage's name in the recipe), and for shapers and filters `stage`
    /// (what `value` holds).
    pub fn attr(&self, name: &str) -> Option<String> {
        self.source.attr(name)
    }

    /// A text per row: `prompt`, `completion`, `answer`, `finish`, ...
    ///
    /// # Errors
    /// `missing-column`, naming those there are; so for all columns.
    pub fn text(&self, column: &str) -> Result<&Texts, Fault> {
        self.find_text(column).ok_or_else(|| self.missing(column, "text"))
    }

    /// A number per row: `value`, `raw`, `reward/<name>`, ... NaN where the row has none.
    ///
    /// # Errors
    /// As for [`Batch::text`].
    pub fn f64s(&self, column: &str) -> Result<&[f64], Fault> {
        self.find_f64s(column).ok_or_else(|| self.missing(column, "f64"))
    }

    /// An integer per row: `completion_tokens`, ...
    ///
    /// # Errors
    /// As for [`Batch::text`].
    pub fn u32s(&self, column: &str) -> Result<&[u32], Fault> {
        self.find_u32s(column).ok_or_else(|| self.missing(column, "u32"))
    }

    /// Token ids per row: `prompt_ids`, `completion_ids`.
    ///
    /// # Errors
    /// As for [`Batch::text`].
    pub fn tokens(&self, column: &str) -> Result<&Ragged<u32>, Fault> {
        self.find_tokens(column).ok_or_else(|| self.missing(column, "tokens"))
    }

    /// A number per token: `old_logprobs`, ...
    ///
    /// # Errors
    /// As for [`Batch::text`].
    pub fn token_f32s(&self, column: &str) -> Result<&Ragged<f32>, Fault> {
        self.find_token_f32s(column).ok_or_else(|| self.missing(column, "token-f32"))
    }

    /// Numbers per row: `judge/<name>/matrix` holds row i of its group's matrix of verdicts.
    ///
    /// # Errors
    /// As for [`Batch::text`].
    pub fn f64_lists(&self, column: &str) -> Result<&Ragged<f64>, Fault> {
        self.find_f64_lists(column).ok_or_else(|| self.missing(column, "f64-list"))
    }

    /// Raw bytes per row; dtype and shape stand in [`Batch::attr`].
    ///
    /// # Errors
    /// As for [`Batch::text`].
    pub fn bytes(&self, column: &str) -> Result<&Texts, Fault> {
        self.find_bytes(column).ok_or_else(|| self.missing(column, "bytes"))
    }

    /// A text column that may be absent.
    pub fn find_text(&self, column: &str) -> Option<&Texts> {
        self.text.get(column, || self.source.text(column))
    }

    /// A column of numbers that may be absent.
    pub fn find_f64s(&self, column: &str) -> Option<&[f64]> {
        self.f64s.get(column, || self.source.f64s(column)).map(Vec::as_slice)
    }

    /// A column of integers that may be absent.
    pub fn find_u32s(&self, column: &str) -> Option<&[u32]> {
        self.u32s.get(column, || self.source.u32s(column)).map(Vec::as_slice)
    }

    /// A column of token ids that may be absent.
    pub fn find_tokens(&self, column: &str) -> Option<&Ragged<u32>> {
        self.tokens.get(column, || self.source.tokens(column))
    }

    /// A column of numbers per token that may be absent.
    pub fn find_token_f32s(&self, column: &str) -> Option<&Ragged<f32>> {
        self.token_f32s.get(column, || self.source.token_f32s(column))
    }

    /// A column of numbers per row that may be absent.
    pub fn find_f64_lists(&self, column: &str) -> Option<&Ragged<f64>> {
        self.f64_lists.get(column, || self.source.f64_lists(column))
    }

    /// A column of raw bytes that may be absent.
    pub fn find_bytes(&self, column: &str) -> Option<&Texts> {
        self.bytes.get(column, || self.source.bytes(column))
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, index: usize) -> Row<'_> {
        assert!(index < self.rows, "row {index} of a batch of {}", self.rows);
        Row { batch: self, index }
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        (0..self.rows).map(|index| Row { batch: self, index })
    }

    fn missing(&self, column: &str, kind: &str) -> Fault {
        let names = self.columns();
        let there = if names.is_empty() { "no columns at all".to_owned() } else { format!("`{}`", names.join("`, `")) };
        Fault::new(Fault::MISSING_COLUMN, format!("no {kind} column `{column}`; the batch has {there}"))
    }
}

/// One row of a [`Batch`].
#[derive(Clone, Copy)]
pub struct Row<'a> {
    batch: &'a Batch<'a>,
    index: usize,
}

impl<'a> Row<'a> {
    /// Its place in the batch.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its stable id, the key for [`random`](crate::random).
    pub fn id(&self) -> u64 {
        self.batch.row_ids()[self.index]
    }

    /// The batch it belongs to.
    pub fn batch(&self) -> &'a Batch<'a> {
        self.batch
    }

    /// Its text in a column.
    ///
    /// # Errors
    /// `missing-column`, for this and the following ones.
    pub fn text(&self, column: &str) -> Result<&'a str, Fault> {
        Ok(self.batch.text(column)?.get(self.index))
    }

    /// Its number in a column; NaN where it has none.
    ///
    /// # Errors
    /// As for [`Row::text`].
    pub fn f64(&self, column: &str) -> Result<f64, Fault> {
        Ok(self.batch.f64s(column)?[self.index])
    }

    /// Its integer in a column.
    ///
    /// # Errors
    /// As for [`Row::text`].
    pub fn u32(&self, column: &str) -> Result<u32, Fault> {
        Ok(self.batch.u32s(column)?[self.index])
    }

    /// Its token ids in a column.
    ///
    /// # Errors
    /// As for [`Row::text`].
    pub fn tokens(&self, column: &str) -> Result<&'a [u32], Fault> {
        Ok(self.batch.tokens(column)?.get(self.index))
    }

    /// Its numbers per token in a column.
    ///
    /// # Errors
    /// As for [`Row::text`].
    pub fn token_f32s(&self, column: &str) -> Result<&'a [f32], Fault> {
        Ok(self.batch.token_f32s(column)?.get(self.index))
    }
}

/// Columns that were asked for, found or not. Only ever appended to, so that references stay good as long as the batch.
struct Cache<T>(OnceCell<Box<Entry<T>>>);

struct Entry<T> {
    name: String,
    column: Option<T>,
    next: Cache<T>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Cache(OnceCell::new())
    }
}

impl<T> Cache<T> {
    /// Few names are asked for, so a list is the quickest map.
    fn get(&self, name: &str, fetch: impl FnOnce() -> Option<T>) -> Option<&T> {
        let mut cache = self;
        while let Some(entry) = cache.0.get() {
            if entry.name == name {
                return entry.column.as_ref();
            }
            cache = &entry.next;
        }
        let entry = Entry { name: name.to_owned(), column: fetch(), next: Cache::default() };
        cache.0.get_or_init(|| Box::new(entry)).column.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::BatchBuilder;

    #[test]
    fn missing_column_lists_those_there_are() {
        let data = BatchBuilder::new().text("prompt", ["p"]).text("completion", ["c"]).build();
        let fault = data.batch().text("answer").unwrap_err();
        assert_eq!(fault.code, Fault::MISSING_COLUMN);
        assert_eq!(fault.message, "no text column `answer`; the batch has `completion`, `prompt`");
    }

    #[test]
    fn columns_are_fetched_once_and_references_stay_good() {
        let data = BatchBuilder::new().text("a", ["x", "yy"]).f64s("v", [1.0, 2.0]).build();
        let batch = data.batch();
        let first = batch.text("a").unwrap();
        assert!(batch.find_text("b").is_none());
        assert_eq!(batch.f64s("v").unwrap(), [1.0, 2.0]);
        assert!(std::ptr::eq(first, batch.text("a").unwrap()));
        assert_eq!(first.iter().collect::<Vec<_>>(), ["x", "yy"]);
        assert_eq!(batch.row(1).text("a").unwrap(), "yy");
    }

    #[test]
    fn groups_are_ranges_of_rows_and_may_be_empty() {
        let data = BatchBuilder::new().f64s("v", [1.0, 2.0, 3.0]).groups([2, 2, 3]).build();
        assert_eq!(data.batch().groups().collect::<Vec<_>>(), [0..2, 2..2, 2..3]);
    }
}
