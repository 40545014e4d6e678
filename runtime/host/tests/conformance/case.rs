//! Cases, one a line of JSON. Numbers that JSON cannot hold are texts (`"NaN"`, `"-0"`, `"1e308"`), bytes are hexadecimal.

use std::collections::BTreeMap;
use std::path::Path;

use plumb_core::{Batch, Column, PluginKind, Ragged};
use serde::Deserialize;
use serde_json::{Map, Value};

/// One line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub kind: PluginKind,
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Whether the configuration is refused.
    #[serde(default)]
    pub fails_to_load: bool,
    /// Called one after the other.
    #[serde(default)]
    pub batches: Vec<Rows>,
}

/// A batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    #[serde(default)]
    pub step: u64,
    #[serde(default)]
    row_ids: Option<Vec<u64>>,
    #[serde(default)]
    groups: Option<Vec<u32>>,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    columns: BTreeMap<String, Cells>,
    /// How often the rows are repeated.
    #[serde(default = "once")]
    times: usize,
    /// What models answer to a judge: for each turn the texts of all its questions, one after the other.
    #[serde(default)]
    pub answers: Vec<Vec<String>>,
    /// Code of the fault with which the whole call fails.
    #[serde(default)]
    pub fails: Option<String>,
}

fn once() -> usize {
    1
}

/// A column's cells by its type.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Cells {
    Text(Vec<String>),
    F64(Vec<Number>),
    U32(Vec<u32>),
    Tokens(Vec<Vec<u32>>),
    TokenF32(Vec<Vec<Number>>),
    F64List(Vec<Vec<Number>>),
    Bytes(Vec<String>),
}

/// A number, or its name.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "Value")]
struct Number(f64);

impl TryFrom<Value> for Number {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.map(Number).ok_or_else(|| format!("{value} is no number"))
    }
}

/// Reads the cases of a file.
pub fn read(path: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate();
    lines.map(|(line, text)| serde_json::from_str(text).unwrap_or_else(|error| panic!("line {}: {error}", line + 1))).collect()
}

impl Rows {
    /// The batch.
    pub fn build(&self) -> Batch {
        let rows = self.columns.values().next().map_or(0, Cells::rows) * self.times;
        let ids = self.row_ids.clone().unwrap_or_else(|| (0..rows as u64).collect());
        let groups = self.groups.clone().unwrap_or_else(|| vec![rows as u32]);
        let mut batch = Batch::new(self.step, ids, groups);
        batch.attrs.extend(self.attrs.clone());
        for (name, cells) in &self.columns {
            batch.insert(name, cells.column(self.times));
        }
        batch
    }
}

impl Cells {
    fn rows(&self) -> usize {
        match self {
            Cells::Text(rows) | Cells::Bytes(rows) => rows.len(),
            Cells::F64(rows) => rows.len(),
            Cells::U32(rows) => rows.len(),
            Cells::Tokens(rows) => rows.len(),
            Cells::TokenF32(rows) | Cells::F64List(rows) => rows.len(),
        }
    }

    fn column(&self, times: usize) -> Column {
        let texts = |rows: &[String], cell: fn(&String) -> Vec<u8>| repeat(rows, times).map(cell).collect();
        match self {
            Cells::Text(rows) => Column::Text(texts(rows, |text| text.clone().into_bytes())),
            Cells::Bytes(rows) => Column::Bytes(texts(rows, |digits| bytes(digits))),
            Cells::F64(rows) => Column::F64(repeat(rows, times).map(|n| n.0).collect()),
            Cells::U32(rows) => Column::U32(repeat(rows, times).copied().collect()),
            Cells::Tokens(rows) => Column::Tokens(ragged(rows, times, |&id| id)),
            Cells::TokenF32(rows) => Column::TokenF32(ragged(rows, times, |n| n.0 as f32)),
            Cells::F64List(rows) => Column::F64Lists(ragged(rows, times, |n| n.0)),
        }
    }
}

fn repeat<T>(rows: &[T], times: usize) -> impl Iterator<Item = &T> {
    (0..times).flat_map(move |_| rows)
}

fn ragged<T, N: Copy + Default>(rows: &[Vec<T>], times: usize, cell: impl Fn(&T) -> N) -> Ragged<N> {
    let mut ragged = Ragged::default();
    repeat(rows, times).for_each(|row| ragged.push(&row.iter().map(&cell).collect::<Vec<_>>()));
    ragged
}

fn bytes(digits: &str) -> Vec<u8> {
    (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
}
