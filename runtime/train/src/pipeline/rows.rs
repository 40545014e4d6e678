//! A step's completions, and the batches that plugins see of them.

use std::collections::{BTreeMap, BTreeSet};

use plumb_core::feedback::{MAX_PARTS, Span};
use plumb_core::recipe::FilterStage;
use plumb_core::rollout::{Completion, FinishReason, Group, Prompt};
use plumb_core::{Batch, Column, Outcome, Ragged, RowFault, Texts};

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

/// What one reward plugin or judge said about a step.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// Name of the reward or judge in the run.
    pub name: String,
    /// One per row.
    pub outcomes: Vec<Outcome>,
    /// Named components, one value per row; NaN where there is none.
    pub parts: Vec<(String, Vec<f64>)>,
    /// Rewards of stretches; `row` counts the step's rows.
    pub spans: Vec<Span>,
    /// What a judge said besides; None for rewards.
    pub judgement: Option<Judgement>,
}

/// A judge's verdicts in the forms that are no score, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// Row i of its group's G×G matrix, one list per row: entry j > 0 says that the row beats row j of its group. From pairs it is
    /// `2p - 1`, the mean where there are several, NaN where the two were not compared.
    pub matrix: Option<Vec<Vec<f64>>>,
    /// For each entry of the matrix 1 where the judge's answer could be read (from pairs: where there is one), else 0.
    pub readable: Option<Vec<Vec<f64>>>,
    /// A text per row.
    pub rationales: Option<Vec<String>>,
}

/// Where a row of a refilled step comes from.
#[derive(Clone, Copy)]
enum Origin {
    Old(usize),
    New(usize),
}

impl Scores {
    /// Rows of `self` and of `new`; `sizes` are those of the rows' groups.
    fn merged(&self, new: &Scores, origins: &[Origin], sizes: &[usize]) -> Scores {
        fn pick<T: Clone>(old: Option<&[T]>, new: Option<&[T]>, origins: &[Origin], missing: impl Fn(usize) -> T) -> Vec<T> {
            let value = |(i, origin): (usize, &Origin)| match *origin {
                Origin::Old(row) => old.map_or_else(|| missing(i), |old| old[row].clone()),
                Origin::New(row) => new.map_or_else(|| missing(i), |new| new[row].clone()),
            };
            origins.iter().enumerate().map(value).collect()
        }
        fn either<T: Clone>(
            old: Option<&Vec<T>>,
            new: Option<&Vec<T>>,
            origins: &[Origin],
            missing: impl Fn(usize) -> T,
        ) -> Option<Vec<T>> {
            (old.is_some() || new.is_some()).then(|| pick(old.map(Vec::as_slice), new.map(Vec::as_slice), origins, missing))
        }
        let part =
            |scores: &'_ Scores, name: &str| scores.parts.iter().find(|(have, _)| have == name).map(|(_, values)| values.clone());
        let mut names: Vec<&String> = self.parts.iter().chain(&new.parts).map(|(name, _)| name).collect();
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(*name));
        let parts = names.into_iter().take(MAX_PARTS).map(|name| {
            let (old, new) = (part(self, name), part(new, name));
            (name.clone(), pick(old.as_deref(), new.as_deref(), origins, |_| f64::NAN))
        });
        let mut spans = Vec::new();
        for (row, origin) in origins.iter().enumerate() {
            let (from, before) = match *origin {
                Origin::Old(before) => (self, before),
                Origin::New(before) => (new, before),
            };
            let of_row = from.spans.iter().filter(|span| span.row as usize == before);
            spans.extend(of_row.map(|span| Span { row: row as u32, ..span.clone() }));
        }
        let judgement = self.judgement.as_ref().zip(new.judgement.as_ref()).map(|(old, new)| Judgement {
            matrix: either(old.matrix.as_ref(), new.matrix.as_ref(), origins, |row| vec![f64::NAN; sizes[row]]),
            readable: either(old.readable.as_ref(), new.readable.as_ref(), origins, |row| vec![0.0; sizes[row]]),
            rationales: either(old.rationales.as_ref(), new.rationales.as_ref(), origins, |_| String::new()),
        });
        let missing = |_| Outcome::Failed(RowFault { code: "missing".into(), message: String::new() });
        let outcomes = pick(Some(self.outcomes.as_slice()), Some(new.outcomes.as_slice()), origins, missing);
        Scores { name: self.name.clone(), outcomes, parts: parts.collect(), spans, judgement }
    }
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
    /// Of each group, the place that is part of its rows' ids: its index, or beyond all others where it replaced another group.
    pub places: Vec<usize>,
    /// Per reward plugin, then per judge.
    pub scores: Vec<Scores>,
    /// Values of spans by token, `(spans/<reward>/<name>, one list per row)`.
    pub spans: Vec<(String, Vec<Vec<f32>>)>,
    /// Texts that filters replaced, by column and row; those of `completion` are in `groups`.
    pub relabels: BTreeMap<String, BTreeMap<usize, String>>,
    /// Completions as they were sampled, of the rows whose completion was replaced.
    pub sampled: BTreeMap<usize, Completion>,
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
            places: (0..groups.len()).collect(),
            groups,
            scores: Vec::new(),
            spans: Vec::new(),
            relabels: BTreeMap::new(),
            sampled: BTreeMap::new(),
            raw: vec![None; n],
            shaped: vec![None; n],
            advantages: vec![None; n],
            token_advantages: None,
            weights: vec![1.0; n],
            dropped: vec![None; n],
        }
    }

    /// The step with other groups at these positions, each with the place that is part of its rows' ids. Nothing has been said about the
    /// rows but by rewards and judges: what shapers and filters said is gone.
    #[must_use]
    pub fn refilled(
        mut self,
        places: &[(usize, usize)],
        examples: Vec<&'a Example>,
        groups: Vec<Group>,
        scores: Vec<Scores>,
    ) -> Self {
        for (row, sampled) in std::mem::take(&mut self.sampled) {
            let (place, index) = self.locate(row);
            self.groups[place].completions[index] = sampled;
        }
        // Where each row of the new step comes from.
        let fresh: BTreeMap<usize, usize> = places.iter().enumerate().map(|(i, &(position, _))| (position, i)).collect();
        let starts = |groups: &[Group]| {
            let sizes = groups.iter().map(|group| group.completions.len());
            sizes.scan(0, |start, size| Some(std::mem::replace(start, *start + size))).collect::<Vec<usize>>()
        };
        let (old_starts, new_starts) = (starts(&self.groups), starts(&groups));
        let origins: Vec<Origin> = (0..self.groups.len())
            .flat_map(|position| match fresh.get(&position) {
                Some(&i) => (0..groups[i].completions.len()).map(|row| Origin::New(new_starts[i] + row)).collect::<Vec<_>>(),
                None => (0..self.groups[position].completions.len()).map(|row| Origin::Old(old_starts[position] + row)).collect(),
            })
            .collect();
        let sizes: Vec<usize> = (0..self.groups.len())
            .flat_map(|position| {
                let group = fresh.get(&position).map_or(&self.groups[position], |&i| &groups[i]);
                std::iter::repeat_n(group.completions.len(), group.completions.len())
            })
            .collect();
        let merged: Vec<Scores> = self.scores.iter().zip(&scores).map(|(old, new)| old.merged(new, &origins, &sizes)).collect();
        let mut ids = self.places;
        for ((&(position, place), example), group) in places.iter().zip(examples).zip(groups) {
            self.examples[position] = example;
            self.groups[position] = group;
            ids[position] = place;
        }
        let mut rows = StepRows::new(self.step, self.stage, self.columns, self.examples, self.groups);
        (rows.places, rows.scores) = (ids, merged);
        rows
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
            let id = move |i| row_id(self.step, self.places[place], i, false);
            completions.map(move |(i, completion)| RowRef { id: id(i), place, example, completion })
        });
        rows.collect()
    }

    /// The rows of one group, as the rewards see them.
    pub fn group_batch(&self, place: usize) -> Batch {
        let rows: Vec<RowRef> = self.rows().into_iter().filter(|row| row.place == place).collect();
        batch(self.step, self.stage, self.columns, &rows)
    }

    /// The group of a row, and its index there.
    pub fn locate(&self, row: usize) -> (usize, usize) {
        let mut rest = row;
        for (place, group) in self.groups.iter().enumerate() {
            match rest.checked_sub(group.completions.len()) {
                Some(after) => rest = after,
                None => return (place, rest),
            }
        }
        panic!("row {row} of {}", self.len())
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

    /// The text of a data column, as a filter may have replaced it.
    pub fn text(&self, row: usize, of: &RowRef, column: &str) -> String {
        let relabelled = self.relabels.get(column).and_then(|rows| rows.get(&row));
        relabelled.cloned().unwrap_or_else(|| of.example.row.text(column).into_owned())
    }

    /// Whether a filter replaced one of the row's texts.
    pub fn is_relabelled(&self, row: usize) -> bool {
        self.sampled.contains_key(&row) || self.relabels.values().any(|rows| rows.contains_key(&row))
    }

    /// The batch of the rows `live` for a shaper or filter that works on the value `stage`: besides the completions' columns,
    /// `value`, each `reward/<name>`, `judge/<name>/score`, `/matrix`, `/readable` and `/rationale` and `spans/<reward>/<name>` as far
    /// as they were given, `raw`, and `shaped` and `advantage` where they exist already. `relabelled` is there once a filter has
    /// replaced a text, 1 for the rows that it concerns.
    ///
    /// A matrix has the entries of the group's rows that are in the batch.
    pub fn batch(&self, live: &[usize], stage: FilterStage) -> Batch {
        let rows = self.rows();
        let mut batch = batch(self.step, self.stage, self.columns, &live.iter().map(|&row| rows[row]).collect::<Vec<_>>());
        let numbers = |values: &[Option<f64>]| Column::F64(live.iter().map(|&row| values[row].unwrap_or(f64::NAN)).collect());
        for scores in &self.scores {
            let values = live.iter().map(|&row| scores.outcomes[row].value().unwrap_or(f64::NAN));
            let kind = if scores.judgement.is_some() {
                format!("judge/{}/score", scores.name)
            } else {
                format!("reward/{}", scores.name)
            };
            batch.insert(kind, Column::F64(values.collect()));
            if let Some(judgement) = &scores.judgement {
                self.insert_judgement(&mut batch, live, &scores.name, judgement);
            }
        }
        for (name, values) in &self.spans {
            let mut column = Ragged::default();
            live.iter().for_each(|&row| column.push(&values[row]));
            batch.insert(name, Column::TokenF32(column));
        }
        for (name, texts) in &self.relabels {
            let Some(Column::Text(before)) = batch.column(name) else { continue };
            let text = |(i, row)| texts.get(row).map_or(before.bytes_at(i), |text: &String| text.as_bytes());
            let after = live.iter().enumerate().map(text).collect::<Texts>();
            batch.insert(name, Column::Text(after));
        }
        if !(self.relabels.is_empty() && self.sampled.is_empty()) {
            batch.insert("relabelled", Column::U32(live.iter().map(|&row| u32::from(self.is_relabelled(row))).collect()));
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

    fn insert_judgement(&self, batch: &mut Batch, live: &[usize], judge: &str, judgement: &Judgement) {
        let lists = |values: &[Vec<f64>]| {
            let mut column = Ragged::default();
            for group in batch.groups() {
                let rows = &live[group];
                let start = rows.first().map_or(0, |&row| row - self.locate(row).1);
                for &row in rows {
                    column.push(&rows.iter().map(|&other| values[row][other - start]).collect::<Vec<_>>());
                }
            }
            Column::F64Lists(column)
        };
        let matrix = judgement.matrix.as_deref().map(lists);
        let readable = judgement.readable.as_deref().map(lists);
        let texts = judgement.rationales.as_ref();
        let rationale = texts.map(|texts| Column::Text(live.iter().map(|&row| texts[row].as_bytes()).collect::<Texts>()));
        for (what, column) in [("matrix", matrix), ("readable", readable), ("rationale", rationale)] {
            if let Some(column) = column {
                batch.insert(format!("judge/{judge}/{what}"), column);
            }
        }
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
