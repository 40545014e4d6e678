//! From lines to items: what a judge sees together, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use plumb_core::Batch;
use serde_json::{Map, Value};

use crate::columns::Types;
use crate::diagnostic::Diagnostic;
use crate::rows::{self, Row};

/// Pairs of columns that make a line a pair, the first of each as the row 0.
const PAIRS: [[&str; 2]; 2] = [["chosen", "rejected"], ["completion_a", "completion_b"]];

/// What an item's rows are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One completion.
    Single,
    /// Two completions of one line, from columns with these names.
    Pair([&'static str; 2]),
    /// Completions of several lines.
    Group,
}

/// Rows that are judged together: one group of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What its rows are to each other.
    pub form: Form,
    /// Its lines, as indices into the file's rows: one per row, or one in all for a pair.
    pub lines: Vec<usize>,
    /// What the judge sees: the lines' columns without those that tell the right verdict, and with `completion`.
    pub rows: Vec<Map<String, Value>>,
}

/// Takes the lines of a file apart. Items stand in the order of their first lines.
///
/// # Errors
/// The first line that has no completion, or several kinds of them.
pub fn read(rows: &[Row], group: &str, verdict: &str, path: &Path) -> Result<Vec<Item>, Diagnostic> {
    let mut items: Vec<Item> = Vec::new();
    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for (line, row) in rows.iter().enumerate() {
        let mut shown = row.columns.clone();
        shown.remove(verdict);
        let has = |column: &str| row.columns.get(column).is_some_and(|value| !value.is_null());
        let pair = PAIRS.into_iter().find(|pair| pair.iter().any(|column| has(column)));
        let Some(pair) = pair else {
            if !has("completion") {
                return Err(shapeless(path, row, "it has neither `completion` nor a pair of them"));
            }
            match row.columns.get(group).filter(|key| !key.is_null()) {
                None => items.push(Item { form: Form::Single, lines: vec![line], rows: vec![shown] }),
                Some(key) => {
                    let place = *groups.entry(key.to_string()).or_insert(items.len());
                    if place == items.len() {
                        items.push(Item { form: Form::Group, lines: Vec::new(), rows: Vec::new() });
                    }
                    items[place].lines.push(line);
                    items[place].rows.push(shown);
                }
            }
            continue;
        };
        if has("completion") {
            return Err(shapeless(path, row, &format!("it has `completion` besides `{}` and `{}`", pair[0], pair[1])));
        }
        let mut of_pair = Vec::with_capacity(2);
        for column in pair {
            let completion = row.text(column, path).map_err(|error| error.hint(FORMS))?;
            // The columns' names tell which one is to win.
            let mut shown = shown.clone();
            pair.iter().for_each(|name| drop(shown.remove(*name)));
            shown.insert("completion".into(), completion.into());
            of_pair.push(shown);
        }
        items.push(Item { form: Form::Pair(pair), lines: vec![line], rows: of_pair });
    }
    Ok(items)
}

const FORMS: &str = "a line has `prompt` and `completion` (with `group` where several are judged together), or `prompt` with `chosen` and \
                     `rejected`, or with `completion_a` and `completion_b`, all of them text";

fn shapeless(path: &Path, row: &Row, reason: &str) -> Diagnostic {
    Diagnostic::resource("input.broken_line", format!("`{}`, line {}: {reason}", path.display(), row.line)).hint(FORMS)
}

impl Item {
    /// Whether it is two completions of one line.
    pub fn is_pair(&self) -> bool {
        matches!(self.form, Form::Pair(_))
    }

    /// The rows as one group. Ids are made of line numbers, so they do not change with the items around.
    pub fn batch(&self, types: &Types, rows: &[Row], path: &Path) -> Result<Batch, Diagnostic> {
        let line = |row: usize| rows[self.lines[if self.is_pair() { 0 } else { row }]].line;
        let id = |row: usize| (line(row) as u64) << 1 | u64::from(self.is_pair() && row == 1);
        let count = self.rows.len();
        let batch = rows::batch((0..count).map(id).collect(), vec![count as u32], self.rows.iter(), types);
        batch.map_err(|(column, misfit)| rows::misplaced(&column, &misfit, line(misfit.row), path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(lines: &[&str]) -> Vec<Row> {
        let row = |(i, text): (usize, &&str)| Row { line: i + 1, columns: rows::json_object(text).unwrap() };
        lines.iter().enumerate().map(row).collect()
    }

    fn items(lines: &[&str]) -> Result<Vec<Item>, Diagnostic> {
        read(&rows(lines), "group", "verdict", Path::new("in.jsonl"))
    }

    #[test]
    fn lines_are_judged_alone_in_pairs_or_in_groups_and_what_tells_the_verdict_is_hidden() {
        let lines = [
            r#"{"completion": "a", "group": 7, "verdict": 1}"#,
            r#"{"prompt": "p", "chosen": "x", "rejected": "y"}"#,
            r#"{"completion": "b"}"#,
            r#"{"completion": "c", "group": 7}"#,
            r#"{"completion_a": "x", "completion_b": "y", "verdict": "a"}"#,
        ];
        let items = items(&lines).unwrap();
        let forms: Vec<(Form, &[usize])> = items.iter().map(|item| (item.form, item.lines.as_slice())).collect();
        assert_eq!(
            forms,
            [
                (Form::Group, &[0, 3][..]),
                (Form::Pair(["chosen", "rejected"]), &[1][..]),
                (Form::Single, &[2][..]),
                (Form::Pair(["completion_a", "completion_b"]), &[4][..]),
            ]
        );
        assert_eq!(items[1].rows[1], rows::json_object(r#"{"prompt": "p", "completion": "y"}"#).unwrap());
        assert!(items.iter().flat_map(|item| &item.rows).all(|row| !row.contains_key("verdict")));
        let rows = rows(&lines);
        let ids = |item: &Item| item.batch(&Types::default(), &rows, Path::new("in.jsonl")).unwrap().row_ids;
        assert_eq!((ids(&items[0]), ids(&items[1])), (vec![2, 8], vec![4, 5]));
    }

    #[test]
    fn line_without_completions_or_with_too_many_is_named() {
        for (line, told) in [
            (r#"{"prompt": "p"}"#, "neither `completion` nor"),
            (r#"{"completion": "a", "chosen": "x", "rejected": "y"}"#, "`completion` besides `chosen`"),
            (r#"{"chosen": "x"}"#, "`rejected` is missing"),
            (r#"{"chosen": [1], "rejected": "y"}"#, "`chosen` is not text"),
        ] {
            let error = items(&[r#"{"completion": "a"}"#, line]).unwrap_err();
            assert!(error.message.contains("line 2") && error.message.contains(told), "{}", error.message);
            assert!(error.hint.unwrap().contains("`completion_a`"));
        }
    }
}
