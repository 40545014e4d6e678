//! A step's completions, and the batches that plugins see of them.

use std::collections::BTreeSet;

use plumb_core::recipe::FilterStage;
use plumb_core::rollout::{Completion, FinishReason, Group, Prompt};
use plumb_core::{Batch, Column, Outcome, Ragged, Texts};

use crate::data::Row;

/// A data row and the prompt made of it.
#[derive(Clone, Debug)]
pub struct Example {
    /// The row; its columns reach the plugins.
    pub row: Row,
    /// The prompt's text, with the chat template's marks.
    pub prompt_text: String,
    /// The prompt's ids.
    pub prompt: Prompt,
}

/// Names of all columns that any of the rows has, but for those that completions bring themselves.
pub fn data_columns<'a>(rows: impl IntoIterator<Item = &'a Row>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = rows.into_iter().flat_map(|row| row.columns.keys().cloned()).collect();
    names.remove("completion");
    names
}

/// Id of a completion, stable over a run's repetitions: 31 bits of step, 20 of the prompt's place in it, 12 of the completion's
/// index in its group. The uppermost bit tells evaluations apart.
pub fn row_id(step: u64, place: usize, index: usize, eval: bool) -> u64 {
    u64::from(eval) << 63 | (step & 0x7fff_ffff) << 32 | (place as u64 & 0xf_ffff) << 12 | (index as u64 & 0xfff)
}

/// One completion and where it comes from.
#[derive(Clone, Copy)]
pub struct RowRef<'a> {
    /// See [`row_id`].
    pub id: u64,
    /// The prompt's place in the step: rows of one place are a group.
    pub place: usize,
    /// What was asked.
    pub example: &'a Example,
    /// What was answered.
    pub completion: &'a Completion,
}

/// A batch of completions with the columns every plugin may ask for: `prompt`, `completion`, `prompt_ids`, `completion_ids`,
/// `old_logprobs`, `completion_tokens`, `finish` (`stop` or `length`), and each of `columns` as text.
///
/// The attribute `recipe_stage` is the name of the recipe's stage. `stage`, which says what `value` holds, is for the plugins that
/// have that column.
///
/// `prompt` is the row's own where it has that column, else the text that the model saw.
pub fn batch(step: u64, stage: &str, columns: &BTreeSet<String>, rows: &[RowRef]) -> Batch {
    let ends = (1..=rows.len()).filter(|&i| i == rows.len() || rows[i].place != rows[i - 1].place);
    let mut batch = Batch::new(step, rows.iter().map(|row| row.id).collect(), ends.map(|end| end as u32).collect());
    batch.attrs.insert("recipe_stage".into(), stage.into());
    let texts = |text: &dyn Fn(&RowRef) -> String| Column::Text(rows.iter().map(text).collect::<Texts>());
    batch.insert("prompt", texts(&|row| row.example.prompt_text.clone()));
    for name in columns {
        batch.insert(name, texts(&|row| row.example.row.text(name).into_owned()));
    }
    batch.insert("completion", texts(&|row| row.completion.text.clone()));
    batch.insert("finish", texts(&|row| finish(row.completion.finish).into()));
    let (mut prompt_ids, mut completion_ids, mut logprobs) = (Ragged::default(), Ragged::default(), Ragged::default());
    for row in rows {
        prompt_ids.push(&row.example.prompt.tokens);
        completion_ids.push(&row.completion.tokens);
        logprobs.push(&row.completion.logprobs);
    }
    batch.insert("prompt_ids", Column::Tokens(prompt_ids));
    batch.insert("completion_ids", Column::Tokens(completion_ids));
    batch.insert("old_logprobs", Column::TokenF32(logprobs));
    batch.insert("completion_tokens", Column::U32(rows.iter().map(|row| row.completion.tokens.len() as u32).collect()));
    batch
}

/// `stop` or `length`.
pub fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// What [`finish`] gave.
pub fn finish_reason(text: &str) -> Option<FinishReason> {
    [FinishReason::Stop, FinishReason::Length].into_iter().find(|reason| finish(*reason) == text)
}

/// What one reward plugin said about a step.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Name of the reward in the run.
    pub name: String,
    /// One per row.
    pub outcomes: Vec<Outcome>,
    /// Named components, one value per row; NaN where there is none.
    pub parts: Vec<(String, Vec<f64>)>,
}

/// A step's completions with all that was said about them. Each value has its own name from here on to the ledger.
///
/// Rows are completions, group after group. A row with a reason in `dropped` has left the step: no later plugin sees it, and
/// neither does the loss.
pub struct StepRows<'a> {
    /// Step of the run.
    pub step: u64,
    /// Stage, for the plugins.
    pub stage: &'a str,
    /// Names of the data's columns.
    pub columns: &'a BTreeSet<String>,
    /// What was asked, one per group.
    pub examples: Vec<&'a Example>,
    /// What was answered.
    pub groups: Vec<Group>,
    /// Per reward plugin.
    pub scores: Vec<Scores>,
    /// Weighted sum of the rewards.
    pub raw: Vec<Option<f64>>,
    /// After the shapers; as raw without any.
    pub shaped: Vec<Option<f64>>,
    /// After the shapers of advantages.
    pub advantages: Vec<Option<f64>>,
    /// One advantage per token, where a shaper gave them.
    pub token_advantages: Option<Vec<Vec<f32>>>,
    /// Weight in the loss, by the filters.
    pub weights: Vec<f64>,
    /// Why a row left the step.
    pub dropped: Vec<Option<String>>,
}

impl<'a> StepRows<'a> {
    /// Completions about which nothing has been said.
    pub fn new(step: u64, stage: &'a str, columns: &'a BTreeSet<String>, examples: Vec<&'a Example>, groups: Vec<Group>) -> Self {
        let n = groups.iter().map(|group| group.completions.len()).sum();
        StepRows {
            step,
            stage,
            columns,
            examples,
            groups,
            scores: Vec::new(),
            raw: vec![None; n],
            shaped: vec![None; n],
            advantages: vec![None; n],
            token_advantages: None,
            weights: vec![1.0; n],
            dropped: vec![None; n],
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// End row of each group.
    pub fn group_ends(&self) -> Vec<u32> {
        let ends = self.groups.iter().scan(0, |end, group| {
            *end += group.completions.len() as u32;
            Some(*end)
        });
        ends.collect()
    }

    /// All rows, in order.
    pub fn rows(&self) -> Vec<RowRef<'_>> {
        let groups = self.groups.iter().zip(&self.examples).enumerate();
        let rows = groups.flat_map(|(place, (group, example))| {
            let completions = group.completions.iter().enumerate();
            completions.map(move |(i, completion)| RowRef { id: row_id(self.step, place, i, false), place, example, completion })
        });
        rows.collect()
    }

    /// The rows of one group, as the rewards see them.
    pub fn group_batch(&self, place: usize) -> Batch {
        let rows: Vec<RowRef> = self.rows().into_iter().filter(|row| row.place == place).collect();
        batch(self.step, self.stage, self.columns, &rows)
    }

    /// Rows that have not left the step.
    pub fn live(&self) -> Vec<usize> {
        (0..self.len()).filter(|&row| self.dropped[row].is_none()).collect()
    }

    /// Takes a row out, unless it has left already.
    pub fn drop_row(&mut self, row: usize, reason: impl FnOnce() -> String) {
        if self.dropped[row].is_none() {
            self.dropped[row] = Some(reason());
        }
    }

    /// The batch of the rows `live` for a shaper or filter that works on the value `stage`: besides the completions' columns,
    /// `value`, each `reward/<name>`, `raw`, and `shaped` and `advantage` where they exist already.
    pub fn batch(&self, live: &[usize], stage: FilterStage) -> Batch {
        let rows = self.rows();
        let mut batch = batch(self.step, self.stage, self.columns, &live.iter().map(|&row| rows[row]).collect::<Vec<_>>());
        let numbers = |values: &[Option<f64>]| Column::F64(live.iter().map(|&row| values[row].unwrap_or(f64::NAN)).collect());
        for scores in &self.scores {
            let values = live.iter().map(|&row| scores.outcomes[row].value().unwrap_or(f64::NAN));
            batch.insert(format!("reward/{}", scores.name), Column::F64(values.collect()));
        }
        let exists = |values: &[Option<f64>]| live.iter().all(|&row| values[row].is_some());
        for (name, values) in [("raw", &self.raw), ("shaped", &self.shaped), ("advantage", &self.advantages)] {
            if exists(values) {
                batch.insert(name, numbers(values));
            }
        }
        batch.insert("value", numbers(self.values(stage)));
        batch
    }

    /// The values of a stage.
    pub fn values(&self, stage: FilterStage) -> &[Option<f64>] {
        match stage {
            FilterStage::Raw => &self.raw,
            FilterStage::Shaped => &self.shaped,
            FilterStage::Advantage => &self.advantages,
        }
    }
}
