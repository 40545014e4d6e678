//! What a stage reads before it begins.

use std::collections::BTreeSet;
use std::path::Path;

use plumb_core::recipe::{Algorithm, Data, Stage};
use plumb_core::seed::Stream;
use plumb_model::Tokenizer;
use plumb_model::config::ModelConfig;

use crate::data::{self, Row};
use crate::error::{Error, Result};
use crate::pipeline::rows::{Example, data_columns};
use crate::prompt::Prompter;

/// A stage's rows, read and tokenized.
pub struct StageData {
    /// Training rows, in an order that depends on the seed alone.
    pub examples: Vec<Example>,
    /// Their completions; empty but in `sft` stages.
    pub completions: Vec<Vec<u32>>,
    /// Rows for the evaluation.
    pub eval: Vec<Example>,
    /// Names of all columns of training and evaluation rows.
    pub columns: BTreeSet<String>,
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
        let rollout = &stage.rollout;
        let max_prompt = match stage.algorithm {
            Algorithm::Sft => stage.sft.max_length.min(config.max_position_embeddings).saturating_sub(1),
            Algorithm::Grpo => {
                room(rollout.max_completion_length, "rollout.max_completion_length")?.min(rollout.max_prompt_length)
            }
        };
        let rows = data::read(train, base)?;
        let (chosen, held_out) = data::split(rows.len(), *holdout, *max_rows, seed);
        let example = |row: &Row, id: usize, max_tokens: usize| -> Result<Example> {
            let (prompt_text, prompt) = prompter.prompt(row, id as u64, max_tokens)?;
            Ok(Example { row: row.clone(), prompt_text, prompt })
        };
        let mut this = StageData { examples: Vec::new(), completions: Vec::new(), eval: Vec::new(), columns: BTreeSet::new() };
        for i in chosen {
            let one = example(&rows[i], i, max_prompt)?;
            if stage.algorithm == Algorithm::Sft {
                let mut completion = prompter.completion(&rows[i])?;
                completion.truncate(stage.sft.max_length.min(config.max_position_embeddings) - one.prompt.tokens.len());
                this.completions.push(completion);
            }
            this.examples.push(one);
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
    }
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
