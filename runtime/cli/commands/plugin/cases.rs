//! Test cases in JSONL: rows, a configuration, and the answer that is expected.
//!
//! ```json
//! {"name": "...", "rows": [{"completion": "4", "answer": "4"}], "config": {}, "expect": [1.0]}
//! ```
//! Further keys: `groups` (end row of each group; one group otherwise), `step`, `attrs`, `tolerance` (1e-9, relative beyond 1)
//! `models`, what models say to a judge (`[{"prompt": "part of the prompt", "text": "answer"}]`), and `types`, which gives columns a type (see [`crate::columns::Type`]) that
//! their name does not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use plumb_core::Batch;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::verdicts::Scripted;
use crate::columns::{self, Types};
use crate::diagnostic::Diagnostic;
use crate::rows;

/// One line of a file of cases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case says; its line's number when there is none.
    #[serde(default)]
    pub name: String,
    /// The rows.
    pub rows: Vec<Map<String, Value>>,
    /// The plugin's configuration.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// The answer, one entry per row, or `{"error": CODE}`.
    #[serde(default)]
    pub expect: Value,
    /// What models say to a judge.
    #[serde(default)]
    pub models: Vec<Scripted>,
    #[serde(default)]
    groups: Option<Vec<u32>>,
    #[serde(default)]
    step: u64,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    #[serde(default)]
    types: Types,
    /// How far a number may be off, relative beyond 1.
    #[serde(default = "tolerance")]
    pub tolerance: f64,
}

fn tolerance() -> f64 {
    1e-9
}

/// What a line looks like.
const SHAPE: &str = r#"a case is {"rows": [{"completion": "4", "answer": "4"}], "config": {}, "expect": [1.0]}"#;

/// Reads the cases of a file.
pub fn read(path: &Path) -> Result<Vec<Case>, Diagnostic> {
    let mut cases = Vec::new();
    let shape = |error: Diagnostic| if error.code == rows::BROKEN_LINE { error.hint(SHAPE) } else { error };
    for row in rows::read(path).map_err(shape)? {
        let line = row.line;
        let mut case: Case = serde_json::from_value(Value::Object(row.columns)).map_err(|error| {
            Diagnostic::usage("case.malformed", format!("`{}`, line {line}: {error}", path.display())).hint(SHAPE)
        })?;
        if case.name.is_empty() {
            case.name = format!("line {line}");
        }
        cases.push(case);
    }
    Ok(cases)
}

impl Case {
    /// The rows as a batch, `times` over.
    pub fn batch(&self, times: usize) -> Result<Batch, Diagnostic> {
        let rows = self.rows.len();
        let ends = self.groups.clone().unwrap_or_else(|| vec![rows as u32]);
        if ends.last().map_or(0, |&end| end as usize) != rows || !ends.is_sorted() {
            return Err(self.wrong(&format!("`groups` {ends:?} must rise to the number of rows, {rows}")));
        }
        let group_ends = (0..times).flat_map(|time| ends.iter().map(move |end| end + (time * rows) as u32)).collect();
        let mut batch = Batch::new(self.step, (0..(rows * times) as u64).collect(), group_ends);
        batch.attrs.extend(self.attrs.clone());
        let names: BTreeSet<&String> = self.rows.iter().flat_map(Map::keys).collect();
        for name in names {
            let cells = (0..times).flat_map(|_| self.rows.iter().map(|row| row.get(name).unwrap_or(&Value::Null)));
            let column = columns::column(self.types.of(name), cells);
            batch.insert(name, column.map_err(|misfit| self.wrong(&format!("row {}: {}", misfit.row, misfit.reason(name))))?);
        }
        Ok(batch)
    }

    /// The same case with other rows, as one group.
    pub fn with_rows(&self, rows: Vec<Map<String, Value>>) -> Case {
        Case { rows, groups: None, ..self.clone() }
    }

    fn wrong(&self, reason: &str) -> Diagnostic {
        Diagnostic::usage("case.malformed", format!("case `{}`: {reason}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_core::Column;
    use serde_json::json;

    fn case(value: Value) -> Case {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn columns_get_the_type_that_runs_give_them() {
        let case = case(json!({
            "rows": [{"answer": 12, "value": 1, "completion_tokens": 3, "old_logprobs": [-0.5]}, {"value": null, "completion_tokens": 4, "x": 0.5}],
            "types": {"x": "f64"},
        }));
        let batch = case.batch(2).unwrap();
        assert_eq!((batch.rows(), batch.group_ends.as_slice()), (4, &[2, 4][..]));
        assert_eq!(batch.column("completion_tokens"), Some(&Column::U32(vec![3, 4, 3, 4])));
        let Some(Column::Text(answers)) = batch.column("answer") else { panic!("data columns are text") };
        assert_eq!((answers.get(0), answers.get(1)), (Some("12"), Some("")));
        let Some(Column::F64(x)) = batch.column("x") else { panic!("`types` decides") };
        assert!(x[0].is_nan() && x[1] == 0.5);
        let Some(Column::TokenF32(logprobs)) = batch.column("old_logprobs") else { panic!("a number per token") };
        assert_eq!((logprobs.row(0), logprobs.row(1)), (&[-0.5][..], &[][..]));
    }

    #[test]
    fn values_that_do_not_fit_and_groups_that_do_not_cover_are_named() {
        let error = case(json!({"name": "a", "rows": [{"completion_tokens": -1}]})).batch(1).unwrap_err();
        assert!(error.message.contains("case `a`: row 0: `completion_tokens` is -1"), "{}", error.message);
        let error = case(json!({"rows": [{"value": 1}], "groups": [2]})).batch(1).unwrap_err();
        assert!(error.message.contains("`groups` [2]"), "{}", error.message);
    }
}
