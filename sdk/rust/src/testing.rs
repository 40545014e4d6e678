//! Native tests of plugin logic: batches from memory, and a stand-in for the runtime.
//!
//! ```
//! use plumb_sdk::testing::BatchBuilder;
//!
//! let data = BatchBuilder::new().text("completion", ["a", "b"]).f64s("value", [1.0, 2.0]).groups([2]).build();
//! assert_eq!(data.batch().rows(), 2);
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::batch::{Batch, Ragged, Source, Texts};
use crate::fault::{Fault, parse_config};
use crate::reward::BatchReward;
use crate::{filter::Filter, judge::Judge, shaper::Shaper, tool::Tool};

pub(crate) mod capabilities;

pub use self::backend::log::Level;
pub use self::capabilities::{ScriptedModels, judge_with, models, tools};

#[derive(Clone, Debug)]
enum Column {
    Text(Texts),
    F64s(Vec<f64>),
    U32s(Vec<u32>),
    Tokens(Ragged<u32>),
    TokenF32s(Ragged<f32>),
    F64Lists(Ragged<f64>),
    Bytes(Texts),
}

impl Column {
    fn rows(&self) -> usize {
        match self {
            Column::Text(texts) | Column::Bytes(texts) => texts.len(),
            Column::F64s(values) => values.len(),
            Column::U32s(values) => values.len(),
            Column::Tokens(rows) => rows.len(),
            Column::TokenF32s(rows) => rows.len(),
            Column::F64Lists(rows) => rows.len(),
        }
    }
}

/// Collects a batch's columns.
#[derive(Clone, Debug, Default)]
pub struct BatchBuilder {
    columns: BTreeMap<String, Column>,
    attrs: BTreeMap<String, String>,
    groups: Option<Vec<u32>>,
    row_ids: Option<Vec<u64>>,
    step: u64,
}

impl BatchBuilder {
    /// Without columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text column.
    #[must_use]
    pub fn text<T: AsRef<[u8]>>(self, name: &str, rows: impl IntoIterator<Item = T>) -> Self {
        self.column(name, Column::Text(rows.into_iter().collect()))
    }

    /// Adds a column of numbers.
    #[must_use]
    pub fn f64s(self, name: &str, rows: impl IntoIterator<Item = f64>) -> Self {
        self.column(name, Column::F64s(rows.into_iter().collect()))
    }

    /// Adds a column of integers.
    #[must_use]
    pub fn u32s(self, name: &str, rows: impl IntoIterator<Item = u32>) -> Self {
        self.column(name, Column::U32s(rows.into_iter().collect()))
    }

    /// Adds a column of token ids.
    #[must_use]
    pub fn tokens<R: AsRef<[u32]>>(self, name: &str, rows: impl IntoIterator<Item = R>) -> Self {
        self.column(name, Column::Tokens(rows.into_iter().collect()))
    }

    /// Adds a column of numbers per token.
    #[must_use]
    pub fn token_f32s<R: AsRef<[f32]>>(self, name: &str, rows: impl IntoIterator<Item = R>) -> Self {
        self.column(name, Column::TokenF32s(rows.into_iter().collect()))
    }

    /// Adds a column of numbers per row.
    #[must_use]
    pub fn f64_lists<R: AsRef<[f64]>>(self, name: &str, rows: impl IntoIterator<Item = R>) -> Self {
        self.column(name, Column::F64Lists(rows.into_iter().collect()))
    }

    /// Adds a column of raw bytes.
    #[must_use]
    pub fn bytes<T: AsRef<[u8]>>(self, name: &str, rows: impl IntoIterator<Item = T>) -> Self {
        self.column(name, Column::Bytes(rows.into_iter().collect()))
    }

    /// Sets an attribute.
    #[must_use]
    pub fn attr(mut self, name: &str, value: &str) -> Self {
        self.attrs.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the groups by their end rows; one group of all rows otherwise.
    #[must_use]
    pub fn groups(mut self, ends: impl IntoIterator<Item = u32>) -> Self {
        self.groups = Some(ends.into_iter().collect());
        self
    }

    /// Sets the row ids; 0, 1, ... otherwise.
    #[must_use]
    pub fn row_ids(mut self, ids: impl IntoIterator<Item = u64>) -> Self {
        self.row_ids = Some(ids.into_iter().collect());
        self
    }

    /// Sets the step; 0 otherwise.
    #[must_use]
    pub fn step(mut self, step: u64) -> Self {
        self.step = step;
        self
    }

    /// The batch's data.
    ///
    /// # Panics
    /// When columns, ids and groups do not have the same number of rows.
    pub fn build(self) -> BatchData {
        let rows = self.columns.values().next().map_or(0, Column::rows);
        for (name, column) in &self.columns {
            assert_eq!(column.rows(), rows, "column `{name}` must have as many rows as the others");
        }
        let row_ids = self.row_ids.unwrap_or_else(|| (0..rows as u64).collect());
        assert_eq!(row_ids.len(), rows, "each row must have an id");
        let group_ends = self.groups.unwrap_or_else(|| vec![rows as u32]);
        assert!(group_ends.is_sorted(), "group ends must not decrease");
        assert_eq!(group_ends.last().map_or(0, |&end| end as usize), rows, "groups must cover the rows");
        BatchData { columns: self.columns, attrs: self.attrs, group_ends, row_ids, step: self.step, rows }
    }

    fn column(mut self, name: &str, column: Column) -> Self {
        self.columns.insert(name.to_owned(), column);
        self
    }
}

/// A batch's data in memory.
#[derive(Clone, Debug)]
pub struct BatchData {
    columns: BTreeMap<String, Column>,
    attrs: BTreeMap<String, String>,
    group_ends: Vec<u32>,
    row_ids: Vec<u64>,
    step: u64,
    rows: usize,
}

impl BatchData {
    /// The batch as a plugin sees it.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }
}

/// The column's copy, if it has that type.
macro_rules! column {
    ($self:ident, $name:ident, $variant:ident) => {
        match $self.columns.get($name) {
            Some(Column::$variant(column)) => Some(column.clone()),
            _ => None,
        }
    };
}

impl Source for BatchData {
    fn rows(&self) -> usize {
        self.rows
    }
    fn step(&self) -> u64 {
        self.step
    }
    fn row_ids(&self) -> Vec<u64> {
        self.row_ids.clone()
    }
    fn group_ends(&self) -> Vec<u32> {
        self.group_ends.clone()
    }
    fn columns(&self) -> Vec<String> {
        self.columns.keys().cloned().collect()
    }
    fn attr(&self, name: &str) -> Option<String> {
        self.attrs.get(name).cloned()
    }
    fn text(&self, column: &str) -> Option<Texts> {
        column!(self, column, Text)
    }
    fn f64s(&self, column: &str) -> Option<Vec<f64>> {
        column!(self, column, F64s)
    }
    fn u32s(&self, column: &str) -> Option<Vec<u32>> {
        column!(self, column, U32s)
    }
    fn tokens(&self, column: &str) -> Option<Ragged<u32>> {
        column!(self, column, Tokens)
    }
    fn token_f32s(&self, column: &str) -> Option<Ragged<f32>> {
        column!(self, column, TokenF32s)
    }
    fn f64_lists(&self, column: &str) -> Option<Ragged<f64>> {
        column!(self, column, F64Lists)
    }
    fn bytes(&self, column: &str) -> Option<Texts> {
        column!(self, column, Bytes)
    }
}

/// A reward configured from JSON, as the runtime does it.
///
/// # Errors
/// `bad-config`.
pub fn reward<T: BatchReward>(config: &str) -> Result<T, Fault> {
    T::new(parse_config(config)?)
}

/// A shaper configured from JSON, as the runtime does it.
///
/// # Errors
/// `bad-config`.
pub fn shaper<T: Shaper>(config: &str) -> Result<T, Fault> {
    T::new(parse_config(config)?)
}

/// A filter configured from JSON, as the runtime does it.
///
/// # Errors
/// `bad-config`.
pub fn filter<T: Filter>(config: &str) -> Result<T, Fault> {
    T::new(parse_config(config)?)
}

/// A judge configured from JSON, as the runtime does it.
///
/// # Errors
/// `bad-config`.
pub fn judge<T: Judge>(config: &str) -> Result<T, Fault> {
    T::new(parse_config(config)?)
}

/// A tool configured from JSON, as the runtime does it.
///
/// # Errors
/// `bad-config`.
pub fn tool<T: Tool>(config: &str) -> Result<T, Fault> {
    T::new(parse_config(config)?)
}

/// What a plugin wrote on this thread since the last [`take_output`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Log lines in order.
    pub log: Vec<Line>,
    /// Counters.
    pub counts: BTreeMap<String, u64>,
    /// Observed values.
    pub observed: BTreeMap<String, Vec<f64>>,
}

/// A line that a plugin wrote to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// Its text.
    pub message: String,
    /// Named values.
    pub fields: Vec<(String, String)>,
}

/// Takes what was written to [`log`](crate::log) and [`metrics`](crate::metrics) on this thread.
pub fn take_output() -> Output {
    OUTPUT.take()
}

/// Empties the [`kv`](crate::kv) of this thread.
pub fn clear_kv() {
    KV.take();
}

thread_local! {
    static OUTPUT: RefCell<Output> = RefCell::default();
    static KV: RefCell<BTreeMap<String, Vec<u8>>> = RefCell::default();
}

/// The runtime's imports, per thread; with the same signatures as the bindings, which `runtime` takes in a guest.
#[allow(clippy::unnecessary_wraps)]
pub(crate) mod backend {
    pub mod log {
        use crate::testing::{Line, OUTPUT};

        /// How much a line matters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Level {
            /// Every detail.
            Trace,
            /// Helps to understand a run in detail.
            Debug,
            /// Worth knowing.
            Info,
            /// May make results wrong.
            Warn,
            /// Makes results wrong.
            Error,
        }

        pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
            let line = Line { level, message: message.to_owned(), fields: fields.to_vec() };
            OUTPUT.with_borrow_mut(|output| output.log.push(line));
        }
    }

    pub mod metrics {
        use crate::testing::OUTPUT;

        pub fn count(name: &str, delta: u64) {
            OUTPUT.with_borrow_mut(|output| *output.counts.entry(name.to_owned()).or_default() += delta);
        }

        pub fn observe(name: &str, values: &[f64]) {
            OUTPUT.with_borrow_mut(|output| output.observed.entry(name.to_owned()).or_default().extend(values));
        }
    }

    pub mod random {
        /// As pure as the runtime's function, though with other numbers: FNV-1a of the name, then `SplitMix64`.
        pub fn draw(stream: &str, row_id: u64, count: u32) -> Vec<u64> {
            let name = stream
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            let key = split_mix(name ^ split_mix(row_id));
            (0..u64::from(count)).map(|n| split_mix(key ^ split_mix(n))).collect()
        }

        fn split_mix(x: u64) -> u64 {
            let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        }
    }

    pub mod kv {
        use crate::fault::Fault;
        use crate::testing::KV;

        pub fn get(key: &str) -> Option<Vec<u8>> {
            KV.with_borrow(|kv| kv.get(key).cloned())
        }

        pub fn set(key: &str, value: &[u8]) -> Result<(), Fault> {
            KV.with_borrow_mut(|kv| kv.insert(key.to_owned(), value.to_vec()));
            Ok(())
        }

        pub fn delete(key: &str) {
            KV.with_borrow_mut(|kv| kv.remove(key));
        }

        pub fn keys(prefix: &str) -> Vec<String> {
            KV.with_borrow(|kv| kv.keys().filter(|key| key.starts_with(prefix)).cloned().collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_output_is_taken_once() {
        take_output();
        crate::log::warn("odd");
        crate::metrics::count("seen", 2);
        crate::metrics::count("seen", 3);
        let output = take_output();
        assert_eq!(output.log, [Line { level: Level::Warn, message: "odd".to_owned(), fields: vec![] }]);
        assert_eq!(output.counts["seen"], 5);
        assert_eq!(take_output(), Output::default());
    }

    #[test]
    fn random_numbers_depend_on_their_key_alone_and_extend_their_prefix() {
        let four = crate::random::draw("noise", 7, 4);
        assert_eq!(four[..2], crate::random::draw("noise", 7, 2));
        assert_ne!(four, crate::random::draw("noise", 8, 4));
        assert_ne!(four, crate::random::draw("other", 7, 4));
        assert!(crate::random::uniform("noise", 7, 64).iter().all(|x| (0.0..1.0).contains(x)));
    }

    #[test]
    fn kv_keys_are_found_by_prefix_until_deleted() {
        clear_kv();
        crate::kv::set("a/1", b"x").unwrap();
        crate::kv::set("b/1", b"y").unwrap();
        assert_eq!(crate::kv::keys("a/"), ["a/1"]);
        crate::kv::delete("a/1");
        assert_eq!(crate::kv::get("a/1"), None);
        assert_eq!(crate::kv::get("b/1").unwrap(), b"y");
    }
}
