//! JSONL in and out: one object a line, and messages that say which line.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;

use plumb_core::Batch;
use serde_json::{Map, Value};

use crate::columns::{self, Misfit, Types};
use crate::diagnostic::Diagnostic;

/// Code of a line that cannot be read.
pub const BROKEN_LINE: &str = "input.broken_line";

/// One line of an input file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its number, from 1.
    pub line: usize,
    /// Its columns.
    pub columns: Map<String, Value>,
}

impl Row {
    /// `id` as it stands in the line, or the line's number.
    pub fn id(&self) -> Value {
        self.columns.get("id").filter(|id| !id.is_null()).cloned().unwrap_or_else(|| self.line.into())
    }

    /// A column that must be text.
    pub fn text(&self, column: &str, path: &Path) -> Result<&str, Diagnostic> {
        let wrong = |reason: String| Err(broken(path, self.line, &reason));
        match self.columns.get(column) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => wrong(format!("`{column}` is not text")),
            None => wrong(format!("`{column}` is missing")),
        }
    }
}

/// Reads a JSONL file (`-` is stdin). Empty lines are passed over; they keep their number.
pub fn read(path: &Path) -> Result<Vec<Row>, Diagnostic> {
    let failed = |e: &std::io::Error| Diagnostic::io("read", path, e);
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::new(std::fs::File::open(path).map_err(|e| failed(&e))?))
    };
    let mut rows = Vec::new();
    for (i, line) in reader.split(b'\n').enumerate() {
        let bytes = line.map_err(|e| failed(&e))?;
        let text = std::str::from_utf8(&bytes).map_err(|e| broken(path, i + 1, &format!("not UTF-8: {e}")))?;
        if text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(columns)) => rows.push(Row { line: i + 1, columns }),
            Ok(_) => return Err(broken(path, i + 1, "not a JSON object")),
            Err(e) => return Err(broken(path, i + 1, &format!("not valid JSON: {}", reason(&e)))),
        }
    }
    Ok(rows)
}

/// Rows as plugins get them, in groups with the end rows `group_ends`; each column has the type that `types` says.
///
/// # Errors
/// The name of the first column, in the order of the alphabet, with a value that does not fit its type, and where.
pub fn batch<'a>(
    ids: Vec<u64>,
    group_ends: Vec<u32>,
    rows: impl Iterator<Item = &'a Map<String, Value>> + Clone,
    types: &Types,
) -> Result<Batch, (String, Misfit)> {
    let mut batch = Batch::new(0, ids, group_ends);
    let names: BTreeSet<&String> = rows.clone().flat_map(Map::keys).collect();
    for name in names {
        let cells = rows.clone().map(|row| row.get(name).unwrap_or(&Value::Null));
        batch.insert(name, columns::column(types.of(name), cells).map_err(|misfit| (name.clone(), misfit))?);
    }
    Ok(batch)
}

/// Rows of a file as [`batch`] has them, each a group of its own with its line as id.
pub fn lines_batch(rows: &[&Row], types: &Types, path: &Path) -> Result<Batch, Diagnostic> {
    let ids = rows.iter().map(|row| row.line as u64).collect();
    let ends = (1..=rows.len() as u32).collect();
    let batch = batch(ids, ends, rows.iter().map(|row| &row.columns), types);
    batch.map_err(|(column, misfit)| misplaced(&column, &misfit, rows[misfit.row].line, path))
}

/// A value of a line that does not fit its column's type.
pub fn misplaced(column: &str, misfit: &Misfit, line: usize, path: &Path) -> Diagnostic {
    let message = format!("`{}`, line {line}: {}", path.display(), misfit.reason(column));
    Diagnostic::resource("input.column_type", message)
        .hint(format!("mend the line, or give the column another type: `--type {column}=text`"))
}

/// The first needed column that a row lacks.
pub fn missing<'a>(row: &Map<String, Value>, needs: &'a BTreeSet<String>) -> Option<&'a String> {
    needs.iter().find(|column| row.get(*column).is_none_or(Value::is_null))
}

/// Names of columns, for a message.
pub fn named(row: &Map<String, Value>) -> String {
    let names: Vec<String> = row.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| format!("`{name}`")).collect();
    if names.is_empty() { "no columns".to_owned() } else { names.join(", ") }
}

/// A plugin's configuration from the command line.
pub fn json_object(text: &str) -> Result<Map<String, Value>, Diagnostic> {
    let wrong = |reason: String| Diagnostic::usage("usage.config", format!("`--config` is not a JSON object: {reason}"));
    match serde_json::from_str(text) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(other) => Err(wrong(format!("it is `{other}`"))),
        Err(e) => Err(wrong(e.to_string())),
    }
}

/// Single-precision numbers as JSON, with the digits that single precision has and no more.
pub fn json_f32s(values: &[f32]) -> Value {
    values.iter().map(|value| value.to_string().parse::<f64>().map_or(Value::Null, Value::from)).collect()
}

/// serde_json counts lines too, but each line is its own text here: only the column says something.
fn reason(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column", " at column")
}

fn broken(path: &Path, line: usize, reason: &str) -> Diagnostic {
    Diagnostic::resource(BROKEN_LINE, format!("`{}`, line {line}: {reason}", path.display()))
        .hint("each line must be one JSON object, such as {\"prompt\": \"2+2=\", \"completion\": \"4\"}")
}

#[cfg(test)]
mod tests {
    use plumb_core::Column;

    use super::*;

    #[test]
    fn broken_line_is_named_and_missing_ids_are_line_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, "{\"id\": \"a\"}\n\n{\"prompt\": 3}\n").unwrap();
        let rows = read(&path).unwrap();
        assert_eq!(rows.iter().map(Row::id).collect::<Vec<_>>(), [Value::from("a"), Value::from(3)]);
        assert!(rows[1].text("prompt", &path).unwrap_err().message.ends_with("line 3: `prompt` is not text"));
        std::fs::write(&path, "{\"id\": 1}\n{\"id\": \n").unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.code, "input.broken_line");
        assert!(error.message.contains("line 2: not valid JSON: EOF while parsing a value at column"), "{}", error.message);
    }

    #[test]
    fn columns_reach_the_plugin_as_text_and_missing_ones_are_told() {
        let row = |text: &str| json_object(text).unwrap();
        let rows = [row(r#"{"completion": "4", "answer": 4}"#), row(r#"{"completion": null, "tags": ["a"]}"#)];
        let batch = batch(vec![1, 2], vec![1, 2], rows.iter(), &Types::default()).unwrap();
        let Some(Column::Text(answers)) = batch.column("answer") else { panic!("a text column") };
        assert_eq!((answers.get(0), answers.get(1)), (Some("4"), Some("")));
        assert_eq!((batch.row_ids.as_slice(), batch.group_ends.as_slice()), (&[1, 2][..], &[1, 2][..]));
        let needs = BTreeSet::from(["completion".to_owned()]);
        assert_eq!((missing(&rows[0], &needs), missing(&rows[1], &needs)), (None, Some(&"completion".to_owned())));
    }
}
