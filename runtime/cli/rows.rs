//! JSONL in and out: one object a line, and messages that say which line.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use crate::diagnostic::Diagnostic;

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

/// Single-precision numbers as JSON, with the digits that single precision has and no more.
pub fn json_f32s(values: &[f32]) -> Value {
    values.iter().map(|value| value.to_string().parse::<f64>().map_or(Value::Null, Value::from)).collect()
}

/// serde_json counts lines too, but each line is its own text here: only the column says something.
fn reason(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column", " at column")
}

fn broken(path: &Path, line: usize, reason: &str) -> Diagnostic {
    Diagnostic::resource("input.broken_line", format!("`{}`, line {line}: {reason}", path.display()))
        .hint("each line must be one JSON object, such as {\"prompt\": \"2+2=\", \"completion\": \"4\"}")
}

#[cfg(test)]
mod tests {
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
}
