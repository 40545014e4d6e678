//! Training and evaluation rows from JSONL and Parquet files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use plumb_core::seed::Stream;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::run::DataFile;
use crate::run::ledger::hex;

/// One row of a data file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its columns.
    pub columns: Map<String, Value>,
    file: Arc<PathBuf>,
    unit: &'static str,
    number: usize,
}

impl Row {
    /// Row `number` (from 1) of a recorded file.
    pub(crate) fn recorded(columns: Map<String, Value>, file: Arc<PathBuf>, number: usize) -> Self {
        Row { columns, file, unit: "row", number }
    }

    /// A column as plugins see it: a string as it is, anything else as compact JSON, nothing where the row lacks it or has null.
    pub fn text(&self, column: &str) -> Cow<'_, str> {
        match self.columns.get(column) {
            None | Some(Value::Null) => Cow::Borrowed(""),
            Some(Value::String(text)) => Cow::Borrowed(text),
            Some(other) => Cow::Owned(other.to_string()),
        }
    }

    /// An error that names the row.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::Row { path: self.file.as_ref().clone(), unit: self.unit, number: self.number, reason: reason.into() }
    }
}

/// Reads files, one after the other; relative paths start at `base`. Parquet is told by the ending `.parquet`; all else is JSONL.
///
/// # Errors
/// [`Error::Io`]; [`Error::Row`] for a line that is no JSON object; [`Error::DataFile`] for a Parquet file that cannot be read,
/// or files without any row.
pub fn read(paths: &[PathBuf], base: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for path in paths {
        let path = base.join(path);
        let before = rows.len();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
            read_parquet(&path, &mut rows)?;
        } else {
            read_jsonl(&path, &mut rows)?;
        }
        if rows.len() == before {
            return Err(Error::DataFile { path, reason: "it has no rows".into() });
        }
    }
    Ok(rows)
}

/// SHA-256 of files, each once, by the paths that the recipe gives; relative paths start at `base`.
///
/// # Errors
/// [`Error::Io`].
pub fn digests<'a>(paths: impl IntoIterator<Item = &'a PathBuf>, base: &Path) -> Result<Vec<DataFile>> {
    let mut files: Vec<DataFile> = Vec::new();
    for path in paths {
        if files.iter().all(|file| file.path != *path) {
            let full = base.join(path);
            let mut digest = Sha256::new();
            std::io::copy(&mut open(&full)?, &mut digest).map_err(|source| Error::Io { action: "read", path: full, source })?;
            files.push(DataFile { path: path.clone(), sha256: hex(&digest.finalize()) });
        }
    }
    Ok(files)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })
}

fn read_jsonl(path: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let file = Arc::new(path.to_owned());
    for (i, line) in BufReader::new(open(path)?).split(b'\n').enumerate() {
        let line = line.map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let broken = |reason: String| Error::Row { path: path.to_owned(), unit: "line", number: i + 1, reason };
        let columns = match serde_json::from_slice(&line) {
            Ok(Value::Object(columns)) => columns,
            Ok(other) => return Err(broken(format!("expected a JSON object, found {}", kind(&other)))),
            Err(e) => return Err(broken(format!("not valid JSON: {e}"))),
        };
        rows.push(Row { columns, file: file.clone(), unit: "line", number: i + 1 });
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn read_parquet(path: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let file = Arc::new(path.to_owned());
    let unusable = |e: parquet::errors::ParquetError| Error::DataFile { path: path.to_owned(), reason: e.to_string() };
    let reader = SerializedFileReader::new(open(path)?).map_err(unusable)?;
    for (i, row) in reader.get_row_iter(None).map_err(unusable)?.enumerate() {
        let columns = row.map_err(unusable)?.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect();
        rows.push(Row { columns, file: file.clone(), unit: "row", number: i + 1 });
    }
    Ok(())
}

/// A Parquet value as JSON: numbers, strings, lists and structs as such, anything else (dates, decimals) as its text.
fn json(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(x) => (*x).into(),
        Field::Byte(x) => (*x).into(),
        Field::Short(x) => (*x).into(),
        Field::Int(x) => (*x).into(),
        Field::Long(x) => (*x).into(),
        Field::UByte(x) => (*x).into(),
        Field::UShort(x) => (*x).into(),
        Field::UInt(x) => (*x).into(),
        Field::ULong(x) => (*x).into(),
        Field::Float(x) => (*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into(),
        Field::Group(row) => Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect()),
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(json).collect()),
        other => other.to_string().into(),
    }
}

/// Which rows are trained on and which are held out, as indices in the files' order: `holdout` rows of a shuffled order are left
/// out, then come at most `max_rows` (0: all) training rows. Depends on `seed` alone, so stages over the same files agree.
pub fn split(rows: usize, holdout: usize, max_rows: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut held_out = Stream::new(seed, "holdout", &[]).permutation(rows);
    let mut train = held_out.split_off(holdout.min(rows));
    if max_rows > 0 {
        train.truncate(max_rows);
    }
    (train, held_out)
}

/// Which rows a step takes: a pure function of the step, so that a resumed run needs no cursor.
///
/// Each epoch is a new shuffle; what does not fill a step at its end is left for the next, so a step never has a row twice.
#[derive(Clone, Debug)]
pub struct Sampler {
    seed: u64,
    stage: u64,
    rows: usize,
    per_step: usize,
}

impl Sampler {
    /// Rows `0..rows`, `per_step` of them a step. None when there are fewer than that.
    pub fn new(seed: u64, stage: u64, rows: usize, per_step: usize) -> Option<Self> {
        (per_step > 0 && rows >= per_step).then_some(Sampler { seed, stage, rows, per_step })
    }

    /// The rows of batch `index` of the stage, counted from 0.
    pub fn batch(&self, index: u64) -> Vec<usize> {
        let per_epoch = (self.rows / self.per_step) as u64;
        let (epoch, position) = (index / per_epoch, (index % per_epoch) as usize);
        let order = Stream::new(self.seed, "shuffle", &[self.stage, epoch]).permutation(self.rows);
        order[position * self.per_step..(position + 1) * self.per_step].to_vec()
    }

    /// Up to `count` rows beyond those of batch `index`: the epoch's order goes on behind the batch and then from its start, `skip` rows
    /// further on. Never a row of the batch, and none twice; fewer where the epoch has no more.
    pub fn further(&self, index: u64, skip: usize, count: usize) -> Vec<usize> {
        let per_epoch = (self.rows / self.per_step) as u64;
        let (epoch, position) = (index / per_epoch, (index % per_epoch) as usize);
        let order = Stream::new(self.seed, "shuffle", &[self.stage, epoch]).permutation(self.rows);
        let behind = order.iter().cycle().skip((position + 1) * self.per_step).take(self.rows - self.per_step);
        behind.skip(skip).take(count).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::run::{Table, TableColumn};

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        std::fs::write(folder.join(name), text).unwrap();
        name.into()
    }

    #[test]
    fn broken_line_is_named_with_file_number_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "a.jsonl", "{\"prompt\": \"x\"}\n\n{\"prompt\": \"y\"\n");
        let Err(Error::Row { path, unit, number, reason }) = read(&[path], folder.path()) else { panic!("line 3 is broken") };
        assert!(path.ends_with("a.jsonl") && unit == "line" && number == 3 && reason.contains("not valid JSON"), "{reason}");
        let path = write(folder.path(), "b.jsonl", "[1]\n");
        let message = read(&[path], folder.path()).unwrap_err().to_string();
        assert!(message.ends_with("line 1: expected a JSON object, found an array"), "{message}");
        let path = write(folder.path(), "c.jsonl", "\n");
        assert!(matches!(read(&[path], folder.path()), Err(Error::DataFile { .. })));
        assert!(matches!(read(&["none.jsonl".into()], folder.path()), Err(Error::Io { .. })));
    }

    #[test]
    fn columns_reach_plugins_as_text() {
        let folder = tempfile::tempdir().unwrap();
        let path =
            write(folder.path(), "a.jsonl", "{\"s\": \"a \\\"b\\\"\", \"n\": 7, \"l\": [1, {\"k\": null}], \"z\": null}\n");
        let row = read(&[path], folder.path()).unwrap().remove(0);
        assert_eq!(["s", "n", "l", "z", "none"].map(|c| row.text(c).into_owned()), ["a \"b\"", "7", "[1,{\"k\":null}]", "", ""]);
    }

    #[test]
    fn parquet_and_jsonl_give_the_same_rows() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::new(2);
        table.text("prompt", ["a", "b 🙂"]);
        table.int("answer", [3, 4]);
        table.insert("score", TableColumn::Float(vec![Some(0.5), None]));
        table.write(&folder.path().join("a.parquet")).unwrap();
        let text = "{\"prompt\": \"a\", \"answer\": 3, \"score\": 0.5}\n{\"prompt\": \"b 🙂\", \"answer\": 4, \"score\": null}\n";
        let jsonl = write(folder.path(), "a.jsonl", text);
        let columns = |path| read(&[path], folder.path()).unwrap().into_iter().map(|row| row.columns).collect::<Vec<_>>();
        assert_eq!(columns("a.parquet".into()), columns(jsonl));
        let broken = write(folder.path(), "b.parquet", "PAR1 not really");
        assert!(matches!(read(&[broken], folder.path()), Err(Error::DataFile { .. })));
    }

    #[test]
    fn held_out_rows_are_never_trained_on() {
        let (train, held_out) = split(100, 20, 50, 3);
        assert_eq!((train.len(), held_out.len()), (50, 20));
        assert!(held_out.iter().all(|row| !train.contains(row)));
        assert_eq!(split(100, 20, 0, 3).1, held_out);
        assert!(split(10, 20, 0, 3).0.is_empty());
    }

    #[test]
    fn every_epoch_takes_each_row_at_most_once_in_a_new_order() {
        let sampler = Sampler::new(5, 0, 11, 3).unwrap();
        let epoch = |first: u64| (first..first + 3).flat_map(|i| sampler.batch(i)).collect::<Vec<_>>();
        for first in [0, 3] {
            assert_eq!(epoch(first).iter().collect::<BTreeSet<_>>().len(), 9);
        }
        assert_ne!(epoch(0), epoch(3));
        assert_ne!(sampler.batch(0), Sampler::new(6, 0, 11, 3).unwrap().batch(0));
        assert_eq!(sampler.batch(4), sampler.clone().batch(4));
        assert!(Sampler::new(5, 0, 2, 3).is_none());
    }

    #[test]
    fn further_rows_go_on_in_the_epoch_s_order_and_are_never_of_the_batch() {
        let sampler = Sampler::new(5, 0, 11, 3).unwrap();
        assert_eq!(sampler.further(0, 0, 3), sampler.batch(1));
        assert_eq!(sampler.further(0, 3, 3), sampler.batch(2));
        for index in [0, 2, 4] {
            let all: Vec<usize> = [sampler.batch(index), sampler.further(index, 0, 100)].concat();
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 11);
            assert_eq!(sampler.further(index, 5, 2), all[8..10]);
        }
        assert!(sampler.further(0, 8, 4).is_empty());
    }
}
