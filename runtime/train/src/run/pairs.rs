//! Preference pairs of a step, in the format that preference training reads: one JSON object a line with `prompt`, `chosen` and
//! `rejected` (TRL's explicit prompt format), and what the filter said of the pair. `rejected_prompt` is there where the rejected
//! completion answers another prompt.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{IoContext, Result};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairLine {
    /// What was asked.
    pub prompt: String,
    /// The better answer.
    pub chosen: String,
    /// The other.
    pub rejected: String,
    /// What the other answers, where it is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_prompt: Option<String>,
    /// Probability that `chosen` is better.
    pub probability: f64,
    /// By how much.
    pub margin: f64,
    /// Depth or grade of the comparison.
    pub level: u32,
    /// Id of the chosen row, as in the completions file.
    pub chosen_row: u64,
    /// Id of the rejected row.
    pub rejected_row: u64,
    /// Name of the filter.
    pub filter: String,
}

const FOLDER: &str = "pairs";

/// Where the pairs of a step are, if it has any.
pub fn pairs_file(run_dir: &Path, step: u64) -> PathBuf {
    run_dir.join(FOLDER).join(format!("pairs_{step:05}.jsonl"))
}

/// Writes the pairs of a step, and returns where; without any there is no file.
pub(super) fn write(run_dir: &Path, step: u64, pairs: &[PairLine]) -> Result<Option<PathBuf>> {
    if pairs.is_empty() {
        return Ok(None);
    }
    let path = pairs_file(run_dir, step);
    let folder = run_dir.join(FOLDER);
    fs::create_dir_all(&folder).at("create", &folder)?;
    let line = |pair: &PairLine| serde_json::to_string(pair).expect("a pair has string keys only") + "\n";
    fs::write(&path, pairs.iter().map(line).collect::<String>()).at("write", &path)?;
    Ok(Some(path))
}

/// Removes the pairs of steps after `step`, which a resumed run makes again.
pub(super) fn remove_after(run_dir: &Path, step: u64) -> Result<()> {
    let folder = run_dir.join(FOLDER);
    if !folder.exists() {
        return Ok(());
    }
    for item in fs::read_dir(&folder).at("read", &folder)? {
        let path = item.at("read", &folder)?.path();
        let of =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix("pairs_")?.strip_suffix(".jsonl")?.parse::<u64>().ok());
        if of.is_some_and(|of| of > step) {
            fs::remove_file(&path).at("remove", &path)?;
        }
    }
    Ok(())
}
