//! The ledger: every value of a run, with the digests of the plugins that made it, in a file that only grows.
//!
//! One JSON object a line. Each has `prev`, the SHA-256 of the line before it (64 zeros in the first), so a line that was
//! changed, dropped or put in between breaks the chain at a known place. The ledger holds no clock times: two runs with the
//! same recipe, plugins and build have the same bytes.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};

use plumb_core::feedback::{Outcome, PluginId};
use plumb_core::recipe::{Grants, LimitsUse, PluginUse};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::append::{AppendFile, line_end};
use super::error::{Error, IoContext, Result};
use super::inputs::DataFile;

/// `prev` of the first line.
const NO_LINE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What a line of the ledger says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record {
    /// The first line.
    RunStart {
        /// Version of this program.
        build: String,
        /// SHA-256 of `recipe.toml`.
        recipe_sha256: String,
        /// The run's seed.
        seed: u64,
        /// The data files. Ledgers of older builds do not list them.
        #[serde(default)]
        data: Vec<DataFile>,
    },
    /// Which plugins a stage runs from here on.
    Plugins {
        /// Name of the stage.
        stage: String,
        /// In the order of the recipe.
        plugins: Vec<PluginGeneration>,
        /// Tool plugins of the recipe's `[tools]`, in the order of their names. Ledgers of older builds do not list them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tools: Vec<PluginGeneration>,
    },
    /// One optimizer step.
    Step(StepRecord),
    /// One evaluation.
    Eval {
        /// Name of the stage.
        stage: String,
        /// Step after which it was done.
        step: u64,
        /// Rows that succeeded.
        correct: u64,
        /// Rows evaluated; one without a score is no success.
        rows: u64,
        /// What the plugin said about each row.
        outcomes: Vec<OutcomeRecord>,
    },
    /// A plugin was replaced before step `step`.
    Change(ChangeRecord),
    /// What models answered to plugins, in the order of the keys. Stands before the record that they belong to: the step's, or the
    /// evaluation's after it, or that of a choice among the data.
    Answers {
        /// Step of the run.
        step: u64,
        /// Question and answer.
        answers: Vec<AnswerRecord>,
    },
    /// A filter chose among a stage's data, before its first step.
    Dataset {
        /// Name of the stage.
        stage: String,
        /// Name of the filter in the run.
        filter: String,
        /// Rows that it saw.
        rows: u64,
        /// Rows of the data set that it took out, as in `prompt_ids`.
        dropped: Vec<u64>,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Step after which it was taken.
        step: u64,
        /// SHA-256 of the policy's file.
        model_sha256: String,
    },
}

/// A change of a stage's plugins at a step boundary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Name of the stage.
    pub stage: String,
    /// First step that the change holds for.
    pub step: u64,
    /// Name in the run of the plugin that was replaced.
    pub replaced: String,
    /// What takes its place.
    pub plugin: PluginGeneration,
    /// Digest of the generation before.
    pub before: String,
    /// Who wanted it.
    pub cause: ChangeCause,
}

/// Why a plugin was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeCause {
    /// `plumb run swap`.
    Command,
    /// `plumb run rollback`.
    Rollback,
    /// The recipe's `swaps`.
    Schedule,
    /// The plugin failed too often.
    Circuit,
}

/// A question of a plugin to a model, and the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerRecord {
    /// SHA-256 of the question: function, model, texts and sampling.
    pub key: String,
    /// The answer as the service gave it, its fault included.
    pub answer: serde_json::Value,
}

/// A plugin as a stage uses it: with the component of that digest, all that its answers depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginGeneration {
    /// Name, kind and digest.
    pub id: PluginId,
    /// Its configuration.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Limits that the recipe or the request gave it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: LimitsUse,
    /// What it may ask.
    #[serde(default, skip_serializing_if = "is_default")]
    pub grants: Grants,
}

impl PluginGeneration {
    /// A loaded plugin, and how it was asked for.
    pub fn new(id: &PluginId, plugin: &PluginUse) -> Self {
        let PluginUse { config, limits, grants, .. } = plugin.clone();
        PluginGeneration { id: id.clone(), config, limits, grants }
    }

    /// The same plugin in the component `file`, for a factory.
    pub fn plugin_use(&self, file: &str) -> PluginUse {
        let PluginGeneration { id, config, limits, grants } = self.clone();
        PluginUse { plugin: file.into(), name: Some(id.name), config, limits, grants }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// All values of one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Name of the stage.
    pub stage: String,
    /// Optimizer step over the whole run.
    pub step: u64,
    /// Row of the data set of each prompt.
    pub prompt_ids: Vec<u64>,
    /// Token ids of each prompt. Ledgers of older builds do not have them.
    #[serde(default)]
    pub prompt_tokens: Vec<Vec<u32>>,
    /// SHA-256 of the step's file of completions, which holds the texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completions_sha256: Option<String>,
    /// Weights in the raw reward that were in force: of the rewards, then the judges, in the recipe's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f64>,
    /// One per completion; those of one prompt are adjacent. Empty in supervised stages.
    pub completions: Vec<CompletionRecord>,
    /// Place of each prompt's group in its rows' ids, where groups were sampled again; else the place is the index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<u32>,
    /// Preference pairs that filters made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<PairRecord>,
    /// The loss; None when no row was left.
    pub loss: Option<f64>,
}

/// All values of one completion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompletionRecord {
    /// Index into the step's `prompt_ids`.
    pub prompt: u32,
    /// Sampled ids.
    pub tokens: Vec<u32>,
    /// Log-probability of each id when it was sampled, nats.
    pub logprobs: Vec<f32>,
    /// What each reward plugin said, in the order of the recipe, and then each judge.
    pub outcomes: Vec<OutcomeRecord>,
    /// What each judge said besides, in the order of the recipe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judgements: Vec<JudgementRecord>,
    /// Rewards of stretches of the completion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<SpanRecord>,
    /// What filters replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relabelled: Option<RelabelRecord>,
    /// Weighted sum; None without a score.
    pub raw: Option<f64>,
    /// After the shapers.
    pub shaped: Option<f64>,
    /// What the loss used.
    pub advantage: Option<f64>,
    /// One advantage per token, where a shaper gave them; the loss used these, then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_advantages: Option<Vec<f32>>,
    /// Weight in the loss, by the filters.
    #[serde(default)]
    pub weight: f64,
    /// Whether the loss saw it.
    pub kept: bool,
    /// Why not, when it did not: a plugin's fault, a filter, or `truncated` by `mask_truncated_completions`.
    pub reason: Option<String>,
}

/// A judge's verdicts about one completion that are no score.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JudgementRecord {
    /// Its row of the group's matrix; None where it was not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Vec<Option<f64>>>,
    /// For each entry whether it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readable: Option<Vec<bool>>,
    /// The judge's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rationale: Option<String>,
}

/// A reward of a stretch of a completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanRecord {
    /// Name of the reward in the run.
    pub reward: String,
    /// Name of the component.
    pub name: String,
    /// Whether bounds count tokens; else characters.
    pub in_tokens: bool,
    /// First unit.
    pub start: u32,
    /// One past the last unit, as the plugin gave it.
    pub stop: u32,
    /// The reward.
    pub value: f64,
}

/// What a completion was before filters replaced texts of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RelabelRecord {
    /// Data columns with new texts (those are in the completions file), and their texts before.
    pub columns: std::collections::BTreeMap<String, String>,
    /// The completion as it was sampled, if it was replaced: the record's own `tokens` are the new one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled: Option<SampledRecord>,
}

/// A sampled completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampledRecord {
    /// Its text.
    pub text: String,
    /// Its ids.
    pub tokens: Vec<u32>,
    /// Log-probability of each id when it was sampled, nats.
    pub logprobs: Vec<f32>,
}

/// A preference pair of a filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairRecord {
    /// Name of the filter in the run.
    pub filter: String,
    /// Index into the step's completions.
    pub chosen: u32,
    /// Index into the step's completions.
    pub rejected: u32,
    /// Probability that `chosen` is better.
    pub probability: f64,
    /// By how much.
    pub margin: f64,
    /// Depth or grade of the comparison.
    pub level: u32,
}

/// An [`Outcome`] as the ledger writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum OutcomeRecord {
    /// A number.
    Scored {
        /// The reward.
        value: f64,
    },
    /// Not the plugin's case.
    Abstained {
        /// The plugin's code.
        code: String,
    },
    /// The plugin could not do it.
    Failed {
        /// The plugin's or the host's code.
        code: String,
    },
}

impl From<&Outcome> for OutcomeRecord {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Scored(value) => OutcomeRecord::Scored { value: *value },
            Outcome::Abstained(fault) => OutcomeRecord::Abstained { code: fault.code.clone() },
            Outcome::Failed(fault) => OutcomeRecord::Failed { code: fault.code.clone() },
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    prev: &'a str,
    #[serde(flatten)]
    record: &'a Record,
}

#[derive(Deserialize)]
struct OwnedLine {
    prev: String,
    #[serde(flatten)]
    record: Record,
}

/// Writes the ledger.
#[derive(Debug)]
pub(crate) struct LedgerWriter {
    file: AppendFile,
    prev: String,
}

impl LedgerWriter {
    /// Opens the ledger and cuts it after `records` records; the chain up to there is verified.
    pub fn open(path: &Path, records: u64) -> Result<Self> {
        let file = AppendFile::open(path, records, line_end)?;
        let mut reader = Reader::open(path)?;
        reader.by_ref().try_for_each(|record| record.map(drop))?;
        Ok(LedgerWriter { file, prev: reader.prev })
    }

    /// Adds a record.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_string(&Line { prev: &self.prev, record }).expect("records have string keys only");
        self.prev = hash(line.as_bytes());
        line.push('\n');
        self.file.append(line.as_bytes())
    }

    pub fn file(&mut self) -> &mut AppendFile {
        &mut self.file
    }
}

/// Reads a ledger record by record and verifies its chain on the way. After an error there is nothing more.
#[derive(Debug)]
pub struct Reader {
    lines: Lines<BufReader<File>>,
    path: PathBuf,
    line: usize,
    prev: String,
}

impl Reader {
    /// Opens a ledger.
    pub fn open(path: &Path) -> Result<Self> {
        let lines = BufReader::new(File::open(path).at("read", path)?).lines();
        Ok(Reader { lines, path: path.to_owned(), line: 0, prev: NO_LINE.to_owned() })
    }

    /// SHA-256 of the line read last: what the chain is known by.
    pub fn head(&self) -> &str {
        &self.prev
    }

    fn parse(&mut self, line: &str) -> Result<Record> {
        self.line += 1;
        let broken = |reason: String| Error::BrokenLine { path: self.path.clone(), line: self.line, reason };
        let read: OwnedLine = serde_json::from_str(line).map_err(|e| broken(format!("not a record: {e}")))?;
        if read.prev != self.prev {
            let reason = format!("does not continue the chain: `prev` is {}, the line before has {}", read.prev, self.prev);
            return Err(broken(reason));
        }
        self.prev = hash(line.as_bytes());
        Ok(read.record)
    }
}

impl Iterator for Reader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next()?.at("read", &self.path);
        Some(line.and_then(|line| self.parse(&line)))
    }
}

/// Reads a ledger and verifies its chain.
///
/// # Errors
/// [`Error::BrokenLine`] names the first line that is no record or does not continue the chain.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    Reader::open(path)?.collect()
}

/// The first record, if there is a whole line.
pub(crate) fn first(path: &Path) -> Result<Option<Record>> {
    match Reader::open(path) {
        Ok(mut reader) => Ok(reader.next().and_then(Result::ok)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// SHA-256, lower-case hex.
pub fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Record {
        Record::Step(StepRecord {
            stage: "grpo".into(),
            step,
            prompt_ids: vec![4],
            prompt_tokens: vec![vec![7]],
            completions_sha256: None,
            weights: vec![0.1],
            completions: vec![CompletionRecord {
                tokens: vec![1, 2],
                logprobs: (0..1000).map(|i| -(i as f32) * 0.377_123 - f32::MIN_POSITIVE).collect(),
                outcomes: vec![OutcomeRecord::Scored { value: 0.1 + 0.2 }, OutcomeRecord::Failed { code: "out_of_fuel".into() }],
                raw: Some(1.0 / 3.0),
                kept: true,
                ..CompletionRecord::default()
            }],
            places: vec![3],
            pairs: Vec::new(),
            loss: Some(-1e-17),
        })
    }

    #[test]
    fn records_read_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut writer = LedgerWriter::open(&path, 0).unwrap();
        let data = vec![DataFile { path: "a.jsonl".into(), sha256: hash(b"rows") }];
        let records = [
            Record::RunStart { build: "0.1.0".into(), recipe_sha256: hash(b"recipe"), seed: i64::MAX as u64, data },
            step(1),
            step(2),
        ];
        for record in &records {
            writer.append(record).unwrap();
        }
        assert_eq!(read(&path).unwrap(), records);
    }

    #[test]
    fn a_changed_or_missing_line_breaks_the_chain_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut writer = LedgerWriter::open(&path, 0).unwrap();
        (1..=3).for_each(|i| writer.append(&step(i)).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        let broken_at = |text: &str| {
            std::fs::write(&path, text).unwrap();
            match read(&path) {
                Err(Error::BrokenLine { line, .. }) => line,
                other => panic!("{other:?}"),
            }
        };
        // A change shows in the line after it.
        assert_eq!(broken_at(&text.replacen("\"step\":1", "\"step\":9", 1)), 2);
        assert_eq!(broken_at(text.split_once('\n').unwrap().1), 1);
        assert_eq!(broken_at(&text[..text.len() - 10]), 3);
    }

    #[test]
    fn a_reopened_ledger_continues_the_chain() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut writer = LedgerWriter::open(&path, 0).unwrap();
        writer.append(&step(1)).unwrap();
        let records = writer.file().sync().unwrap();
        writer.append(&step(2)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        drop(writer);
        let mut again = LedgerWriter::open(&path, records).unwrap();
        again.append(&step(2)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}
