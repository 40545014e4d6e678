//! `RUN/poison/<plugin>.jsonl`: what plugins failed on, as cases for `plumb plugin test`.
//!
//! A reward plugin's case is one row, and expects it to be scored: it fails until the plugin is mended. A shaper's or filter's is
//! the whole batch, since those see it at once, and expects the fault that there was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use plumb_core::{Batch, Column, Outcome, PluginKind};
use serde_json::{Map, Value, json};

use super::observed::Observed;
use crate::run::append::{AppendFile, line_end};
use crate::run::{IoContext, Result, safe_name};

/// Cases that are kept of a plugin.
pub const MAX_CASES: usize = 100;

/// Folder of the cases in a run.
pub const FOLDER: &str = "poison";

/// Writes poison cases, each once.
#[derive(Debug)]
pub struct PoisonCases {
    folder: PathBuf,
    /// Digests of what was kept, by plugin.
    kept: BTreeMap<String, BTreeSet<String>>,
}

impl PoisonCases {
    /// The cases of a run.
    pub fn new(run_dir: &Path) -> Self {
        PoisonCases { folder: run_dir.join(FOLDER), kept: BTreeMap::new() }
    }

    /// Keeps what a plugin failed on in a step, with the configuration it ran with.
    pub fn add(&mut self, observed: &Observed, config: &Map<String, Value>) -> Result<()> {
        if observed.failed() == 0 {
            return Ok(());
        }
        let path = self.folder.join(format!("{}.jsonl", safe_name(&observed.name)));
        if !self.kept.contains_key(&observed.name) {
            self.kept.insert(observed.name.clone(), read(&path)?);
        }
        let kept = self.kept.get_mut(&observed.name).expect("just put there");
        let mut lines = String::new();
        let before = kept.len();
        for case in cases(observed, config) {
            if kept.len() < MAX_CASES && kept.insert(digest(&case)) {
                lines += &(case.to_string() + "\n");
            }
        }
        if kept.len() > before {
            std::fs::create_dir_all(&self.folder).at("create", &self.folder)?;
            AppendFile::open(&path, before as u64, line_end)?.append(lines.as_bytes())?;
        }
        Ok(())
    }
}

/// Digests of the cases of a file that may not be there.
fn read(path: &Path) -> Result<BTreeSet<String>> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        text => {
            let text = text.at("read", path)?;
            Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).map(|case| digest(&case)).collect())
        }
    }
}

/// What makes two cases the same: all but their names and steps.
fn digest(case: &Value) -> String {
    let mut case = case.as_object().cloned().unwrap_or_default();
    case.remove("name");
    case.remove("step");
    crate::run::ledger::hash(Value::Object(case).to_string().as_bytes())
}

fn cases(observed: &Observed, config: &Map<String, Value>) -> Vec<Value> {
    let batch = &*observed.batch;
    let failed = observed.outcomes.iter().enumerate().filter_map(|(row, outcome)| match outcome {
        Outcome::Failed(fault) => Some((row, fault)),
        Outcome::Scored(_) | Outcome::Abstained(_) => None,
    });
    let case = |name: String, range: std::ops::Range<usize>, groups: Value, expect: Value| {
        json!({
            "name": name, "rows": range.map(|row| columns(batch, row)).collect::<Vec<_>>(), "config": config, "expect": expect,
            "groups": groups, "step": batch.step, "attrs": batch.attrs, "types": types(batch),
        })
    };
    let name = |row: usize, code: &str| format!("step {}, row {:#x}: {code}", batch.step, batch.row_ids[row]);
    match observed.kind {
        PluginKind::Reward | PluginKind::Judge | PluginKind::Tool => failed
            .map(|(row, fault)| case(name(row, &fault.code), row..row + 1, json!([1]), json!([{ "status": "scored" }])))
            .collect(),
        PluginKind::Shaper | PluginKind::Filter => {
            let all = observed.failed() == batch.rows();
            let expected = |outcome: &Outcome| match outcome {
                Outcome::Failed(fault) => json!({ "status": "failed", "code": fault.code }),
                outcome => json!(outcome.value()),
            };
            let first = failed.take(1).map(|(row, fault)| {
                let rows = || observed.outcomes.iter().map(expected).collect();
                let expect = if all { json!({ "error": fault.code }) } else { rows() };
                case(name(row, &fault.code), 0..batch.rows(), json!(batch.group_ends), expect)
            });
            first.collect()
        }
    }
}

/// A row's cells. Columns that cases cannot hold (bytes, lists of numbers) are left out.
fn columns(batch: &Batch, row: usize) -> Map<String, Value> {
    let cell = |column: &Column| match column {
        Column::Text(texts) => Some(json!(String::from_utf8_lossy(texts.bytes_at(row)))),
        Column::F64(values) => Some(json!(values[row])),
        Column::U32(values) => Some(json!(values[row])),
        Column::Tokens(values) => Some(json!(values.row(row))),
        Column::TokenF32(values) => Some(json!(values.row(row))),
        Column::F64Lists(_) | Column::Bytes(_) => None,
    };
    batch.columns().filter_map(|(name, column)| Some((name.to_owned(), cell(column)?))).collect()
}

/// Types of the columns that are not text, by name.
fn types(batch: &Batch) -> Map<String, Value> {
    let of = |column: &Column| match column {
        Column::F64(_) => Some("f64"),
        Column::U32(_) => Some("u32"),
        Column::Tokens(_) => Some("tokens"),
        Column::TokenF32(_) => Some("token-f32"),
        Column::Text(_) | Column::F64Lists(_) | Column::Bytes(_) => None,
    };
    batch.columns().filter_map(|(name, column)| Some((name.to_owned(), of(column)?.into()))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plumb_core::{RowFault, Texts};

    use super::*;

    fn observed(step: u64, texts: &[&str]) -> Observed {
        let mut batch = Batch::new(step, (0..texts.len() as u64).collect(), vec![texts.len() as u32]);
        batch.insert("completion", Column::Text(texts.iter().copied().collect::<Texts>()));
        batch.insert("value", Column::F64(vec![f64::NAN; texts.len()]));
        let outcome = |text: &&str| {
            let fault = RowFault { code: "trap".into(), message: String::new() };
            if text.starts_with('!') { Outcome::Failed(fault) } else { Outcome::Scored(1.0) }
        };
        Observed {
            name: "a".into(),
            kind: PluginKind::Reward,
            batch: Arc::new(batch),
            outcomes: texts.iter().map(outcome).collect(),
        }
    }

    #[test]
    fn failed_rows_are_kept_once_and_at_most_a_hundred_of_them() {
        let run = tempfile::tempdir().unwrap();
        let mut poison = PoisonCases::new(run.path());
        poison.add(&observed(1, &["fine"]), &Map::new()).unwrap();
        assert!(!run.path().join(FOLDER).exists());
        poison.add(&observed(1, &["fine", "!a", "!b"]), &Map::new()).unwrap();
        poison.add(&observed(2, &["!b", "!c"]), &Map::new()).unwrap();
        let path = run.path().join("poison/a.jsonl");
        let lines = || -> Vec<Value> {
            std::fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let names: Vec<_> = lines().iter().map(|case| case["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["step 1, row 0x1: trap", "step 1, row 0x2: trap", "step 2, row 0x1: trap"]);
        assert_eq!(lines()[0]["rows"], json!([{ "completion": "!a", "value": null }]));
        assert_eq!(lines()[0]["types"], json!({ "value": "f64" }));

        let many: Vec<String> = (0..150).map(|i| format!("!{i}")).collect();
        // A process that goes on knows what was kept before it.
        let mut poison = PoisonCases::new(run.path());
        poison.add(&observed(3, &["!a"]), &Map::new()).unwrap();
        assert_eq!(lines().len(), 3);
        poison.add(&observed(3, &many.iter().map(String::as_str).collect::<Vec<_>>()), &Map::new()).unwrap();
        poison.add(&observed(4, &["!new"]), &Map::new()).unwrap();
        assert_eq!(lines().len(), MAX_CASES);
    }
}
