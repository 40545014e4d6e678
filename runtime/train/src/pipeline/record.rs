//! What a step leaves behind (its line of the ledger, its file of completions), and the step made of them again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use plumb_core::feedback::Span;
use plumb_core::rollout::{Completion, FinishReason, Group, Prompt};
use plumb_core::{Outcome, RowFault};
use serde_json::{Map, Value};

use super::filtering::Pair;
use super::rows::{Example, Judgement, RowRef, Scores, StepRows, finish, finish_reason};
use crate::data::Row;
use crate::run::ledger::{JudgementRecord, PairRecord, RelabelRecord, SampledRecord, SpanRecord};
use crate::run::{CompletionRecord, Error, OutcomeRecord, PairLine, StepRecord, Table, TableColumn};

/// Why the loss does not see a row, for each row: it has left the step, or it was cut off and those are masked
/// (`mask_truncated_completions`). The latter still count in the loss's normalizers, as in TRL.
pub fn reasons(rows: &StepRows, mask_truncated: bool) -> Vec<Option<String>> {
    let masked = |row: &RowRef| mask_truncated && row.completion.finish == FinishReason::Length;
    let rows = rows.rows().into_iter().zip(&rows.dropped);
    rows.map(|(row, dropped)| dropped.clone().or_else(|| masked(&row).then(|| "truncated".to_owned()))).collect()
}

/// A step's line of the ledger; the loss is not known yet.
pub fn record(rows: &StepRows, reasons: &[Option<String>], pairs: &[Pair]) -> StepRecord {
    let completions = rows.rows().into_iter().enumerate().map(|(i, row)| CompletionRecord {
        prompt: row.place as u32,
        tokens: row.completion.tokens.clone(),
        logprobs: row.completion.logprobs.clone(),
        outcomes: rows.scores.iter().map(|scores| (&scores.outcomes[i]).into()).collect(),
        judgements: rows.scores.iter().filter_map(|scores| scores.judgement.as_ref().map(|one| judgement(one, i))).collect(),
        spans: rows.scores.iter().flat_map(|scores| spans(scores, i)).collect(),
        relabelled: rows.is_relabelled(i).then(|| relabelled(rows, &row, i)),
        raw: rows.raw[i],
        shaped: rows.shaped[i],
        advantage: rows.advantages[i],
        token_advantages: rows.token_advantages.as_ref().map(|tokens| tokens[i].clone()),
        weight: rows.weights[i],
        kept: reasons[i].is_none(),
        reason: reasons[i].clone(),
    });
    StepRecord {
        stage: rows.stage.into(),
        step: rows.step,
        prompt_ids: rows.examples.iter().map(|example| example.prompt.id).collect(),
        prompt_tokens: rows.examples.iter().map(|example| example.prompt.tokens.clone()).collect(),
        completions_sha256: None,
        weights: Vec::new(),
        completions: completions.collect(),
        places: if rows.places.iter().copied().eq(0..rows.places.len()) {
            Vec::new()
        } else {
            rows.places.iter().map(|&place| place as u32).collect()
        },
        pairs: pairs.iter().map(pair).collect(),
        loss: None,
    }
}

fn judgement(judgement: &Judgement, row: usize) -> JudgementRecord {
    let entries = |all: &Vec<Vec<f64>>| all[row].iter().map(|x| Some(*x).filter(|x| x.is_finite())).collect();
    JudgementRecord {
        matrix: judgement.matrix.as_ref().map(entries),
        readable: judgement.readable.as_ref().map(|all| all[row].iter().map(|&flag| flag > 0.0).collect()),
        rationale: judgement.rationales.as_ref().map(|all| all[row].clone()),
    }
}

fn spans(scores: &Scores, row: usize) -> impl Iterator<Item = SpanRecord> {
    scores.spans.iter().filter(move |span| span.row as usize == row).map(|span| SpanRecord {
        reward: scores.name.clone(),
        name: span.name.to_string(),
        in_tokens: span.in_tokens,
        start: span.start,
        stop: span.stop,
        value: span.value,
    })
}

fn relabelled(rows: &StepRows, of: &RowRef, row: usize) -> RelabelRecord {
    let columns = rows.relabels.iter().filter(|(_, texts)| texts.contains_key(&row));
    let sampled = |sampled: &Completion| SampledRecord {
        text: sampled.text.clone(),
        tokens: sampled.tokens.clone(),
        logprobs: sampled.logprobs.clone(),
    };
    RelabelRecord {
        columns: columns.map(|(name, _)| (name.clone(), of.example.row.text(name).into_owned())).collect(),
        sampled: rows.sampled.get(&row).map(sampled),
    }
}

fn pair(pair: &Pair) -> PairRecord {
    PairRecord {
        filter: pair.filter.clone(),
        chosen: pair.chosen as u32,
        rejected: pair.rejected as u32,
        probability: pair.probability,
        margin: pair.margin,
        level: pair.level,
    }
}

/// Pairs with their texts, for the step's file of pairs.
pub fn pair_lines(rows: &StepRows, pairs: &[Pair]) -> Vec<PairLine> {
    let refs = rows.rows();
    let line = |pair: &Pair| {
        let (chosen, rejected) = (&refs[pair.chosen], &refs[pair.rejected]);
        let (prompt, other) = (&chosen.example.prompt_text, &rejected.example.prompt_text);
        PairLine {
            prompt: prompt.clone(),
            chosen: chosen.completion.text.clone(),
            rejected: rejected.completion.text.clone(),
            rejected_prompt: (prompt != other).then(|| other.clone()),
            probability: pair.probability,
            margin: pair.margin,
            level: pair.level,
            chosen_row: chosen.id,
            rejected_row: rejected.id,
            filter: pair.filter.clone(),
        }
    };
    pairs.iter().map(line).collect()
}

/// Columns of the completions file that the run itself has, besides `rewards/...` and `status/...`.
const OWN_COLUMNS: [&str; 15] = [
    "step",
    "row_id",
    "prompt_id",
    "index",
    "prompt",
    "completion",
    "tokens",
    "finish",
    "raw",
    "shaped",
    "advantage",
    "weight",
    "kept",
    "reason",
    "relabelled",
];

/// Beginnings of further names of the run's own columns.
const OWN_PREFIXES: [&str; 3] = ["rewards/", STATUS_PREFIX, "judge/"];
/// One column per reward: whether it scored the row.
const STATUS_PREFIX: &str = "status/";
/// Where the data's columns with such names are, and with names that begin like this.
const DATA_PREFIX: &str = "data/";

fn is_own(name: &str) -> bool {
    OWN_COLUMNS.contains(&name) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A data column's name in the completions file.
fn data_column_name(name: &str) -> String {
    if is_own(name) || name.starts_with(DATA_PREFIX) { format!("{DATA_PREFIX}{name}") } else { name.to_owned() }
}

/// The data column that stands under this name in the completions file, if it is one.
fn data_column(name: &str) -> Option<&str> {
    (!is_own(name)).then(|| name.strip_prefix(DATA_PREFIX).unwrap_or(name))
}

/// A step's file of completions: a row per completion, a column per value.
pub fn table(rows: &StepRows, reasons: Vec<Option<String>>) -> Table {
    let refs = rows.rows();
    let mut table = Table::new(refs.len());
    table.int("step", refs.iter().map(|_| rows.step));
    table.int("row_id", refs.iter().map(|row| row.id));
    table.int("prompt_id", refs.iter().map(|row| row.example.prompt.id));
    table.int("index", refs.iter().map(|row| row.id & 0xfff));
    table.text("prompt", refs.iter().map(|row| row.example.prompt_text.as_str()));
    table.text("completion", refs.iter().map(|row| row.completion.text.as_str()));
    for name in rows.columns {
        table.text(data_column_name(name), refs.iter().enumerate().map(|(i, row)| rows.text(i, row, name)));
    }
    table.int("tokens", refs.iter().map(|row| row.completion.tokens.len() as u64));
    table.text("finish", refs.iter().map(|row| finish(row.completion.finish)));
    for scores in &rows.scores {
        table.float(format!("rewards/{}", scores.name), scores.outcomes.iter().map(Outcome::value));
        table.text(format!("{STATUS_PREFIX}{}", scores.name), scores.outcomes.iter().map(status));
        for (part, values) in &scores.parts {
            table.float(format!("rewards/{}/{part}", scores.name), values.iter().map(|&value| Some(value)));
        }
        if let Some(rationales) = scores.judgement.as_ref().and_then(|judgement| judgement.rationales.as_ref()) {
            table.text(format!("judge/{}/rationale", scores.name), rationales.iter().map(String::as_str));
        }
    }
    table.float("raw", rows.raw.iter().copied());
    table.float("shaped", rows.shaped.iter().copied());
    table.float("advantage", rows.advantages.iter().copied());
    table.float("weight", rows.weights.iter().map(|&weight| Some(weight)));
    table.bool("kept", reasons.iter().map(Option::is_none));
    table.insert("reason", TableColumn::Text(reasons));
    if (0..rows.len()).any(|row| rows.is_relabelled(row)) {
        table.bool("relabelled", (0..rows.len()).map(|row| rows.is_relabelled(row)));
    }
    table
}

/// `scored`, or `abstained` or `failed` with the code.
fn status(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Scored(_) => "scored".into(),
        Outcome::Abstained(fault) => format!("abstained ({})", fault.code),
        Outcome::Failed(fault) => format!("failed ({})", fault.code),
    }
}

/// A step as its records tell it, before any plugin has spoken: what training had after sampling.
pub struct RecordedStep {
    /// The ledger's line.
    pub record: StepRecord,
    /// The file of completions.
    pub table: Table,
    columns: BTreeSet<String>,
    examples: Vec<Example>,
    groups: Vec<Group>,
}

impl RecordedStep {
    /// A step of completions from its line of the ledger and its file of completions, read from `path`.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the two are not about the same completions, or are of a build that recorded less.
    pub fn new(record: StepRecord, table: Table, path: &Path) -> Result<Self, Error> {
        let columns = table.columns().filter_map(|(name, _)| data_column(name).map(ToOwned::to_owned)).collect();
        let mut this = RecordedStep { record, table, columns, examples: Vec::new(), groups: Vec::new() };
        this.read(path).map_err(|reason| Error::Malformed { path: path.to_owned(), reason })?;
        Ok(this)
    }

    fn read(&mut self, path: &Path) -> Result<(), String> {
        let (record, table) = (&self.record, &self.table);
        let (n, prompts) = (record.completions.len(), record.prompt_ids.len());
        if table.rows() != n {
            return Err(format!("it has {} rows, the ledger's step {} has {n} completions", table.rows(), record.step));
        }
        if record.prompt_tokens.len() != prompts {
            return Err("the ledger does not have the step's prompt tokens: an older build wrote it".into());
        }
        if !record.completions.is_sorted_by_key(|completion| completion.prompt) {
            return Err(format!("the completions of step {} are not in the order of their prompts", record.step));
        }
        let texts = |name: &str| table.texts(name).ok_or_else(|| format!("it has no whole column `{name}` of texts"));
        let (prompt_texts, completions, finishes) = (texts("prompt")?, texts("completion")?, texts("finish")?);
        let data =
            self.columns.iter().map(|name| Ok((name, texts(&data_column_name(name))?))).collect::<Result<Vec<_>, String>>()?;
        let file = Arc::new(path.to_owned());
        let (mut examples, mut groups) = (Vec::with_capacity(prompts), Vec::with_capacity(prompts));
        let mut next = 0;
        for (place, (&id, tokens)) in record.prompt_ids.iter().zip(&record.prompt_tokens).enumerate() {
            let start = next;
            while record.completions.get(next).is_some_and(|completion| completion.prompt as usize == place) {
                next += 1;
            }
            let prompt = Prompt { id, tokens: tokens.clone() };
            let completion = |row: usize| {
                let unknown = || format!("row {row} has the unknown `finish` `{}`", finishes[row]);
                let CompletionRecord { tokens, logprobs, relabelled, .. } = &record.completions[row];
                // Plugins saw what was sampled, before a filter replaced it.
                let sampled = relabelled.as_ref().and_then(|relabelled| relabelled.sampled.as_ref());
                let (text, tokens, logprobs) = sampled
                    .map_or((completions[row], tokens, logprobs), |sampled| (&sampled.text, &sampled.tokens, &sampled.logprobs));
                Ok(Completion {
                    tokens: tokens.clone(),
                    logprobs: logprobs.clone(),
                    text: text.to_owned(),
                    finish: finish_reason(finishes[row]).ok_or_else(unknown)?,
                })
            };
            groups.push(Group {
                prompt: prompt.clone(),
                completions: (start..next).map(completion).collect::<Result<_, String>>()?,
            });
            // A prompt without completions reaches no plugin, so that its texts do not matter.
            let before = |name: &str| record.completions[start].relabelled.as_ref().and_then(|one| one.columns.get(name));
            let text = |name: &String, values: &[&str]| before(name).map_or_else(|| values[start].to_owned(), String::clone);
            let cells =
                data.iter().filter(|_| start < next).map(|(name, values)| ((*name).clone(), Value::from(text(name, values))));
            let row = Row::recorded(cells.collect::<Map<_, _>>(), Arc::clone(&file), start + 1);
            examples.push(Example { row, prompt_text: prompt_texts.get(start).copied().unwrap_or_default().to_owned(), prompt });
        }
        if next < n {
            return Err(format!(
                "step {} has a completion of prompt {}, of {prompts}",
                record.step, record.completions[next].prompt
            ));
        }
        (self.examples, self.groups) = (examples, groups);
        Ok(())
    }

    /// The step's rows, about which nothing has been said.
    pub fn rows(&self) -> StepRows<'_> {
        let examples = self.examples.iter().collect();
        let mut rows = StepRows::new(self.record.step, &self.record.stage, &self.columns, examples, self.groups.clone());
        if self.record.places.len() == rows.places.len() {
            rows.places = self.record.places.iter().map(|&place| place as usize).collect();
        }
        rows
    }
}

impl RecordedStep {
    /// Names of the rewards and judges, in the order of their outcomes.
    pub fn reward_names(&self) -> Vec<String> {
        self.table.columns().filter_map(|(name, _)| Some(name.strip_prefix(STATUS_PREFIX)?.to_owned())).collect()
    }

    /// The step's rows with all that was recorded of them but what follows from texts alone: spans are not aligned yet. Rows that left before advantages were made are dropped here too; those
    /// that filters dropped are not.
    pub fn rewarded_rows(&self) -> StepRows<'_> {
        let (mut rows, records) = (self.rows(), &self.record.completions);
        let outcome = |record: &CompletionRecord, i: usize| match record.outcomes.get(i) {
            Some(OutcomeRecord::Scored { value }) => Outcome::Scored(*value),
            Some(OutcomeRecord::Abstained { code }) => Outcome::Abstained(recorded_fault(code)),
            Some(OutcomeRecord::Failed { code }) => Outcome::Failed(recorded_fault(code)),
            None => Outcome::Failed(recorded_fault("missing")),
        };
        let names = self.reward_names();
        // Judges come after the rewards, and each has its judgements, empty ones included.
        let judges = records.first().map_or(0, |record| record.judgements.len());
        let rewards = names.len().saturating_sub(judges);
        let scores = names.into_iter().enumerate().map(|(i, name)| {
            let outcomes = records.iter().map(|record| outcome(record, i)).collect();
            let spans = records.iter().enumerate().flat_map(|(row, record)| recorded_spans(&name, row, record)).collect();
            let judgement = i.checked_sub(rewards).map(|judge| recorded_judgement(records, judge));
            Scores { name, outcomes, spans, judgement, ..Scores::default() }
        });
        rows.scores = scores.collect();
        rows.raw = records.iter().map(|record| record.raw).collect();
        rows.shaped = records.iter().map(|record| record.shaped).collect();
        rows.advantages = records.iter().map(|record| record.advantage).collect();
        for (row, record) in records.iter().enumerate().filter(|(_, record)| record.advantage.is_none()) {
            rows.drop_row(row, || record.reason.clone().unwrap_or_default());
        }
        rows
    }
}

fn recorded_spans<'a>(reward: &'a str, row: usize, record: &'a CompletionRecord) -> impl Iterator<Item = Span> + 'a {
    record.spans.iter().filter(move |span| span.reward == reward).map(move |span| Span {
        name: span.name.as_str().into(),
        in_tokens: span.in_tokens,
        row: row as u32,
        start: span.start,
        stop: span.stop,
        value: span.value,
    })
}

fn recorded_judgement(records: &[CompletionRecord], judge: usize) -> Judgement {
    let all = || records.iter().map(|record| record.judgements.get(judge));
    let entries = |entries: &Vec<Option<f64>>| entries.iter().map(|entry| entry.unwrap_or(f64::NAN)).collect();
    let flags = |flags: &Vec<bool>| flags.iter().map(|&flag| f64::from(u8::from(flag))).collect();
    Judgement {
        matrix: all().map(|one| one?.matrix.as_ref().map(entries)).collect(),
        readable: all().map(|one| one?.readable.as_ref().map(flags)).collect(),
        rationales: all().map(|one| one?.rationale.clone()).collect(),
    }
}

/// The ledger has codes alone.
fn recorded_fault(code: &str) -> RowFault {
    RowFault { code: code.into(), message: String::new() }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{batch, data_columns, row_id};
    use super::*;

    /// Two prompts with two completions each; the data has columns with the names of the run's own.
    fn examples() -> Vec<Example> {
        let row = |i: usize| {
            let columns = [
                ("prompt", Value::from(format!("own {i}"))),
                ("finish", Value::from("never")),
                ("data/finish", Value::from("nested")),
                ("answer", Value::from(7 + i)),
                ("tags", serde_json::json!(["a", {"b": null}])),
                ("rewards/x", if i == 0 { Value::Null } else { Value::from("y") }),
                ("completion", Value::from("the reference")),
            ];
            Row::recorded(columns.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(), Arc::default(), i)
        };
        let example = |i: usize| Example {
            row: row(i),
            prompt_text: format!("<user>{i}"),
            prompt: Prompt { id: 40 + i as u64, tokens: vec![1, i as u32] },
        };
        (0..2).map(example).collect()
    }

    fn groups(examples: &[Example]) -> Vec<Group> {
        let completion = |i: u32| Completion {
            tokens: vec![i, 9],
            logprobs: vec![-0.1 * i as f32, -1.0 / 3.0],
            text: format!("answer {i} 🙂"),
            finish: if i.is_multiple_of(2) { FinishReason::Stop } else { FinishReason::Length },
        };
        let group = |(g, example): (usize, &Example)| Group {
            prompt: example.prompt.clone(),
            completions: (0..2).map(|i| completion(2 * g as u32 + i)).collect(),
        };
        examples.iter().enumerate().map(group).collect()
    }

    #[test]
    fn batches_of_a_recorded_step_are_those_that_plugins_saw() {
        let examples = examples();
        let columns = data_columns(examples.iter().map(|example| &example.row));
        let mut rows = StepRows::new(6, "rl", &columns, examples.iter().collect(), groups(&examples));
        rows.scores.push(Scores { name: "x".into(), outcomes: vec![Outcome::Scored(1.0); 4], ..Scores::default() });
        let reasons = reasons(&rows, true);
        assert_eq!(reasons[1].as_deref(), Some("truncated"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("completions_00006.parquet");
        table(&rows, reasons.clone()).write(&path).unwrap();

        let step = RecordedStep::new(record(&rows, &reasons, &[]), Table::read(&path).unwrap(), &path).unwrap();
        let again = step.rows();
        assert_eq!(again.columns, rows.columns);
        for place in 0..2 {
            let seen: Vec<RowRef> = rows.rows().into_iter().filter(|row| row.place == place).collect();
            let seen = batch(6, "rl", &columns, &seen);
            let now = again.group_batch(place);
            assert_eq!((&now.row_ids, &now.group_ends, &now.attrs), (&seen.row_ids, &seen.group_ends, &seen.attrs));
            assert_eq!(now.columns().collect::<Vec<_>>(), seen.columns().collect::<Vec<_>>());
            assert_eq!(now.row_ids[0], row_id(6, place, 0, false));
        }
        let batch = again.group_batch(1);
        let text = |name: &str| match batch.column(name) {
            Some(plumb_core::Column::Text(texts)) => texts.get(0).unwrap().to_owned(),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(["prompt", "finish", "data/finish", "answer", "rewards/x"].map(text), ["own 1", "stop", "nested", "8", "y"]);
    }

    #[test]
    fn rows_of_a_recorded_step_have_what_judges_said_and_spans() {
        let examples = examples();
        let columns = data_columns(examples.iter().map(|example| &example.row));
        let mut rows = StepRows::new(6, "rl", &columns, examples.iter().collect(), groups(&examples));
        let outcomes = vec![Outcome::Scored(1.0); 4];
        let span = Span { name: "steps".into(), in_tokens: true, row: 2, start: 0, stop: 1, value: 0.5 };
        rows.scores.push(Scores { name: "x".into(), outcomes: outcomes.clone(), spans: vec![span.clone()], ..Scores::default() });
        let judgement = Judgement {
            matrix: Some((0..4).map(|row| vec![f64::from(row), -1.0]).collect()),
            readable: Some(vec![vec![0.0, 1.0]; 4]),
            rationales: Some((0..4).map(|row| format!("because {row}")).collect()),
        };
        rows.scores.push(Scores { name: "j".into(), outcomes, judgement: Some(judgement.clone()), ..Scores::default() });
        for values in [&mut rows.raw, &mut rows.shaped, &mut rows.advantages] {
            *values = vec![Some(2.0); 4];
        }
        let reasons = reasons(&rows, false);
        let step = RecordedStep::new(record(&rows, &reasons, &[]), table(&rows, reasons), Path::new("x.parquet")).unwrap();
        let again = step.rewarded_rows();
        assert_eq!((&again.scores[0].spans, &again.scores[0].judgement), (&vec![span], &None));
        assert_eq!(again.scores[1].judgement, Some(judgement));
        let stage = plumb_core::recipe::FilterStage::Raw;
        let (before, now) = (rows.batch(&[0, 1, 3], stage), again.batch(&[0, 1, 3], stage));
        assert!(now.column("judge/j/score").is_some() && now.column("reward/j").is_none());
        assert_eq!(now.columns().collect::<Vec<_>>(), before.columns().collect::<Vec<_>>());
    }

    #[test]
    fn records_that_do_not_belong_together_are_refused_with_the_reason() {
        let examples = examples();
        let columns = data_columns(examples.iter().map(|example| &example.row));
        let rows = StepRows::new(6, "rl", &columns, examples.iter().collect(), groups(&examples));
        let reasons = reasons(&rows, false);
        let refused = |change: fn(&mut StepRecord, &mut Table)| {
            let (mut record, mut table) = (record(&rows, &reasons, &[]), table(&rows, reasons.clone()));
            change(&mut record, &mut table);
            match RecordedStep::new(record, table, Path::new("x.parquet")) {
                Err(Error::Malformed { reason, .. }) => reason,
                _ => panic!("it is not whole"),
            }
        };
        assert!(refused(|record, _| drop(record.completions.pop())).contains("4 rows, the ledger's step 6 has 3"));
        assert!(refused(|record, _| record.prompt_tokens.clear()).contains("older build"));
        assert!(refused(|record, _| record.completions[0].prompt = 1).contains("not in the order"));
        assert!(refused(|record, _| record.completions[3].prompt = 2).contains("a completion of prompt 2, of 2"));
        assert!(refused(|_, table| table.insert("completion", TableColumn::Text(vec![None; 4]))).contains("`completion`"));
        assert!(refused(|_, table| table.text("finish", ["stop", "stop", "slop", "stop"])).contains("`slop`"));
    }
}
