//! What a stage reads before it begins.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use plumb_core::recipe::{Data, Stage};
use plumb_core::seed::Stream;
use plumb_model::Tokenizer;
use plumb_model::config::ModelConfig;
use serde_json::Value;

use crate::data::{self, Row};
use crate::error::{Error, Result};
use crate::objective::registry::{self, Columns, Length};
use crate::pack::{self, LossRow};
use crate::pipeline::rows::{Example, data_columns};
use crate::prompt::Prompter;

/// A stage's rows, read and tokenized.
#[derive(Default)]
pub struct StageData {
    /// Training rows, in an order that depends on the seed alone.
    pub examples: Vec<Example>,
    /// Their completions; empty but in stages that learn from them.
    pub completions: Vec<Vec<u32>>,
    /// Whether each of the completions is a good one; empty but in stages that learn from labels.
    pub labels: Vec<bool>,
    /// Their answers; empty but in stages that learn from preferences.
    pub pairs: Vec<AnswerPair>,
    /// Rows for the evaluation.
    pub eval: Vec<Example>,
    /// Names of all columns of training and evaluation rows.
    pub columns: BTreeSet<String>,
}

/// Two answers to a prompt, as ids with the end-of-text token.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerPair {
    /// The one that was preferred.
    pub chosen: Vec<u32>,
    /// The other.
    pub rejected: Vec<u32>,
    /// The column `margin`, 0 without.
    pub margin: f64,
}

impl StageData {
    /// Reads the stage's files, relative to `base`.
    ///
    /// # Errors
    /// Those of [`data::read`] and [`Prompter`]; [`Error::Recipe`] when prompts and completions cannot fit the model's context.
    pub fn read(stage: &Stage, base: &Path, seed: u64, tokenizer: &Tokenizer, config: &ModelConfig) -> Result<Self> {
        let Data { train, holdout, max_rows, prompt } = &stage.data;
        let prompter = Prompter::new(prompt, tokenizer, &config.eos_token_ids, &stage.name)?;
        let room = |completion: usize, key: &str| match config.max_position_embeddings.checked_sub(completion) {
            Some(room) if room > 0 => Ok(room),
            _ => Err(Error::Recipe {
                key: format!("stages.{}.{key}", stage.name),
                reason: format!(
                    "{completion} tokens leave no room for a prompt in the context of {}",
                    config.max_position_embeddings
                ),
            }),
        };
        let (rollout, columns) = (&stage.rollout, registry::method(stage.algorithm).needs(stage).columns);
        let context = config.max_position_embeddings;
        let max_prompt = match columns {
            Columns::Prompts => {
                room(rollout.max_completion_length, "rollout.max_completion_length")?.min(rollout.max_prompt_length)
            }
            Columns::Completions(length) | Columns::Pairs(length) | Columns::Labels(length) => {
                length.max.min(context).saturating_sub(1)
            }
        };
        let rows = data::read(train, base)?;
        let (chosen, held_out) = data::split(rows.len(), *holdout, *max_rows, seed);
        let example = |row: &Row, id: usize, max_tokens: usize| -> Result<Example> {
            let (prompt_text, prompt) = prompter.prompt(row, id as u64, max_tokens)?;
            Ok(Example { row: row.clone(), prompt_text, prompt })
        };
        let mut this = StageData::default();
        for i in chosen {
            let one = example(&rows[i], i, max_prompt)?;
            match columns {
                Columns::Prompts => {}
                Columns::Completions(length) => {
                    let mut completion = prompter.completion(&rows[i])?;
                    completion.truncate(length.max.min(context) - one.prompt.tokens.len());
                    this.completions.push(completion);
                }
                Columns::Pairs(length) => {
                    let length = Length { max: length.max.min(context), ..length };
                    let pair = pair(&prompter, &rows[i], one.prompt.tokens.len(), length, &stage.name);
                    this.pairs.push(pair.map_err(|error| of_stage(error, &stage.name))?);
                }
                Columns::Labels(length) => {
                    let length = Length { max: length.max.min(context), ..length };
                    let labelled = labelled(&prompter, &rows[i], one.prompt.tokens.len(), length, &stage.name);
                    for (completion, label) in labelled.map_err(|error| of_stage(error, &stage.name))? {
                        this.completions.push(completion);
                        this.labels.push(label);
                        this.examples.push(one.clone());
                    }
                    continue;
                }
            }
            this.examples.push(one);
        }
        if let (Columns::Labels(_), Some(first)) = (columns, this.labels.first())
            && this.labels.iter().all(|label| label == first)
        {
            let reason = format!("every `label` is {first}: there is nothing to tell apart; add rows with the other label");
            return Err(Error::Recipe { key: format!("stages.{}.data.train", stage.name), reason });
        }
        if let Some(eval) = &stage.eval {
            let length = eval.max_completion_length.unwrap_or(rollout.max_completion_length);
            let max_prompt = room(length, "eval.max_completion_length")?.min(rollout.max_prompt_length);
            let most = |n: usize| if eval.max_rows > 0 { n.min(eval.max_rows) } else { n };
            if eval.files.is_empty() {
                for &i in &held_out[..most(held_out.len())] {
                    this.eval.push(example(&rows[i], i, max_prompt)?);
                }
            } else {
                let rows = data::read(&eval.files, base)?;
                // Any rows, not the first: files come one after the other, and may be sorted.
                let mut chosen = Stream::new(seed, "eval-rows", &[]).permutation(rows.len());
                chosen.truncate(most(rows.len()));
                chosen.sort_unstable();
                for i in chosen {
                    this.eval.push(example(&rows[i], i, max_prompt)?);
                }
            }
            if this.eval.is_empty() {
                let reason = "there is nothing to evaluate on: give `eval.files`, or a `data.holdout`".into();
                return Err(Error::Recipe { key: format!("stages.{}.eval", stage.name), reason });
            }
        }
        this.columns = data_columns(this.examples.iter().chain(&this.eval).map(|example| &example.row));
        Ok(this)
    }
}

impl StageData {
    /// Leaves out training rows, given as ascending indices.
    pub fn leave_out(&mut self, dropped: &[usize]) {
        let mut kept = (0..self.examples.len()).map(|row| dropped.binary_search(&row).is_err());
        self.examples.retain(|_| kept.next().unwrap_or(true));
        let mut kept = (0..self.completions.len()).map(|row| dropped.binary_search(&row).is_err());
        self.completions.retain(|_| kept.next().unwrap_or(true));
        let mut kept = (0..self.labels.len()).map(|row| dropped.binary_search(&row).is_err());
        self.labels.retain(|_| kept.next().unwrap_or(true));
        let mut kept = (0..self.pairs.len()).map(|row| dropped.binary_search(&row).is_err());
        self.pairs.retain(|_| kept.next().unwrap_or(true));
    }
}

/// A broken row's error with the stage that wanted it.
fn of_stage(error: Error, stage: &str) -> Error {
    match error {
        Error::Row { path, unit, number, reason } => {
            Error::Row { path, unit, number, reason: format!("stage `{stage}`: {reason}") }
        }
        other => other,
    }
}

/// Cuts an answer whose prompt has `prompt` tokens to the stage's length, or refuses it.
fn fit(row: &Row, name: &str, answer: &mut Vec<u32>, prompt: usize, length: Length, stage: &str) -> Result<()> {
    let Length { settings, max: limit, truncate } = length;
    let (key, tokens) = (format!("stages.{stage}.{settings}"), prompt + answer.len());
    if tokens > limit && !truncate {
        return Err(row.error(format!(
            "prompt and `{name}` have {tokens} tokens, more than the {limit} allowed; raise `{key}.max_length`, within the model's \
             context, or cut such answers with `{key}.truncate = true`"
        )));
    }
    answer.truncate(limit - prompt);
    Ok(())
}

/// The answers of a row whose prompt has `prompt` tokens.
fn pair(prompter: &Prompter, row: &Row, prompt: usize, length: Length, stage: &str) -> Result<AnswerPair> {
    let (mut chosen, mut rejected) = prompter.pair(row)?;
    fit(row, "chosen", &mut chosen, prompt, length, stage)?;
    fit(row, "rejected", &mut rejected, prompt, length, stage)?;
    if chosen == rejected {
        let reason = "`chosen` and `rejected` are the same tokens, so nothing is preferred; remove the row";
        let raise = format!("{reason}, or raise `stages.{stage}.{}.max_length`", length.settings);
        return Err(row.error(if length.truncate { raise } else { reason.into() }));
    }
    let margin = match row.columns.get("margin") {
        None | Some(Value::Null) => 0.0,
        Some(margin) => margin.as_f64().ok_or_else(|| row.error(format!("column `margin` is {margin}, not a number")))?,
    };
    Ok(AnswerPair { chosen, rejected, margin })
}

/// The labelled completions of a row: its own, or those of its pair, of which the chosen one is good.
fn labelled(prompter: &Prompter, row: &Row, prompt: usize, length: Length, stage: &str) -> Result<Vec<(Vec<u32>, bool)>> {
    if row.columns.contains_key("chosen") && !row.columns.contains_key("completion") {
        let AnswerPair { chosen, rejected, .. } = pair(prompter, row, prompt, length, stage)?;
        return Ok(vec![(chosen, true), (rejected, false)]);
    }
    let mut completion = prompter.completion(row)?;
    fit(row, "completion", &mut completion, prompt, length, stage)?;
    match row.columns.get("label") {
        Some(&Value::Bool(label)) => Ok(vec![(completion, label)]),
        Some(other) => Err(row.error(format!("column `label` is {other}, not true or false"))),
        None => Err(row.error("column `label` is missing: true for a good completion, false for a bad one")),
    }
}

/// Rows of a step over pairs, two for each of `chosen`, and their division into `parts`, which never parts a pair. Each row's weight is
/// 1 / pairs.
pub(crate) fn pair_rows(data: &StageData, chosen: &[usize], parts: usize) -> (Vec<LossRow>, Vec<Range<usize>>) {
    let weight = 1.0 / chosen.len() as f64;
    let rows = chosen.iter().flat_map(|&i| {
        let (prompt, pair): (Arc<[u32]>, _) = (data.examples[i].prompt.tokens.as_slice().into(), &data.pairs[i]);
        [&pair.chosen, &pair.rejected]
            .map(|answer| LossRow { margin: pair.margin, ..LossRow::new(prompt.clone(), answer.clone(), weight) })
    });
    let parts = pack::parts(chosen.len(), parts).into_iter().map(|part| 2 * part.start..2 * part.end);
    (rows.collect(), parts.collect())
}

/// What to tell of evaluations whose prompts some stage trains on, be it another one: their accuracy is no held-out one.
pub fn leaks(stages: &[Stage], data: &[StageData]) -> Vec<String> {
    let trained: Vec<BTreeSet<&str>> =
        data.iter().map(|data| data.examples.iter().map(|example| example.prompt_text.as_str()).collect()).collect();
    let mut messages = Vec::new();
    for (evaluating, data) in stages.iter().zip(data) {
        for (training, trained) in stages.iter().zip(&trained) {
            let both = data.eval.iter().filter(|example| trained.contains(example.prompt_text.as_str())).count();
            if both > 0 {
                let (n, evaluating, training) = (data.eval.len(), &evaluating.name, &training.name);
                messages.push(format!(
                    "evaluation of stage `{evaluating}`: {both} of {n} evaluation prompts are also trained on (stage `{training}`)"
                ));
            }
        }
    }
    messages
}
