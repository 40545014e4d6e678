//! Reference numbers of published methods against this project's formulas.
//!
//! A file holds the cases of one method: `{"method", "cases": [{"operation", "params", "inputs", "expected", "tolerance"}]}`, computed
//! in float64 by programs that share nothing with this one. Each case goes to the function that training calls, by method and
//! operation ([`sheets`]); its answer must have every number within `tolerance · max(1, |expected|)`, and all else equal.
#![forbid(unsafe_code)]

pub mod case;
pub mod compare;
pub mod groups;
pub mod likelihood;
pub mod pairs;
pub mod policy;
pub mod rewarded;
pub mod rewards;
pub mod sheets;
pub mod tensor;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

pub use case::{Answer, Case, Sheet};

/// Reference numbers of one method.
#[derive(Clone, Debug, Deserialize)]
pub struct Vectors {
    /// Number and name of its sheet, such as `27-dpo`.
    pub method: String,
    /// Its cases.
    pub cases: Vec<Case>,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is the expected one.
    Passed,
    /// It is not; with what differs first.
    Failed(String),
    /// There is no such operation here.
    Missing,
}

/// One case's outcome.
#[derive(Clone, Debug)]
pub struct Line {
    /// Method of the case.
    pub method: String,
    /// Its operation.
    pub operation: String,
    /// Its place among the method's cases, from 0.
    pub index: usize,
    /// What became of it.
    pub outcome: Outcome,
}

/// Runs every case of every `*.json` of a folder, in the order of names.
///
/// # Errors
/// A folder without such files, and files that are not of this form, by name.
pub fn run(folder: &Path) -> Result<Vec<Line>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    if files.is_empty() {
        bail!("{} holds no *.json: give the folder with the reference numbers, such as tests/golden/vectors", folder.display());
    }
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let vectors: Vectors =
            serde_json::from_str(&text).with_context(|| format!("{} does not hold reference numbers", file.display()))?;
        for (index, case) in vectors.cases.iter().enumerate() {
            let outcome = outcome(&vectors.method, case);
            lines.push(Line { method: vectors.method.clone(), operation: case.operation.clone(), index, outcome });
        }
    }
    Ok(lines)
}

fn outcome(method: &str, case: &Case) -> Outcome {
    let Some(operation) = sheets::find(method, &case.operation) else { return Outcome::Missing };
    // An operation that panics on one case must not hide the others.
    let answer = catch_unwind(AssertUnwindSafe(|| operation(case))).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(anyhow::anyhow!("panicked: {}", message.unwrap_or("without a message")))
    });
    let checked = answer.and_then(|answer| {
        ensure!(case.tolerance > 0.0, "the case has no tolerance");
        compare::compare(&answer, &case.expected, case.tolerance, "")
    });
    checked.map_or_else(|error| Outcome::Failed(format!("{error:#}")), |()| Outcome::Passed)
}

/// Passed, failed and missing cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cases whose answer is the expected one.
    pub passed: usize,
    /// Cases with another answer.
    pub failed: usize,
    /// Cases of operations that are not here.
    pub missing: usize,
}

impl Counts {
    /// Counts lines.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Self {
        let mut counts = Counts::default();
        for line in lines {
            match line.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::Missing => counts.missing += 1,
            }
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} missing", self.passed, self.failed, self.missing)
    }
}

/// Counts by method, in the order of names.
pub fn by_method(lines: &[Line]) -> BTreeMap<&str, Counts> {
    let mut methods: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    lines.iter().for_each(|line| methods.entry(&line.method).or_default().push(line));
    methods.into_iter().map(|(method, lines)| (method, Counts::of(lines))).collect()
}
