//! Judges: all of them sit over the same step, and the questions of a round are asked together.
//!
//! ```text
//! begin ─► ask ─┐                                  ┌─► resume ─► ask ─► ...
//! begin ─► ask ─┼─► one generation for all judges ─┼─► resume ─► done
//! begin ─► done └                                  ┘
//! ```
//! A judge never waits for a model: it asks, gets its memo back with the answers, and goes on.
//!
//! A prompt that a model cannot read is the matter of the rows that it is about, not of the step: it gets empty completions, whose
//! `finish` is the code of what is wrong with it, and the judge finds no verdict in them.

use std::sync::Arc;

use plumb_core::feedback::{Ask, PluginFault, Turn, Verdicts};
use plumb_core::services::{Answer, Generated, Models, Question, ServiceFault};
use plumb_core::{Batch, PluginError, RowFault, Texts};

use super::rows::Scores;
use super::verdicts;
use crate::error::{Error, Result};
use crate::plugins::JudgeSlot;

/// Most turns of a judge in a step: its first, and one for each answer that it asks on after.
pub const MAX_TURNS: u64 = 16;

/// What a judge's decision took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Its turns.
    pub turns: u64,
    /// Prompts that it asked models about.
    pub questions: u64,
    /// Tokens that models read and wrote for it.
    pub tokens: u64,
}

/// What a judge decided over a batch.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its verdicts, row by row.
    pub scores: Scores,
    /// What they took.
    pub spent: Spent,
}

/// A judge over one batch.
struct Sitting<'a> {
    slot: &'a JudgeSlot,
    batch: Arc<Batch>,
    /// What it wants to know next.
    ask: Option<Ask>,
    verdicts: Option<Verdicts>,
    fault: Option<RowFault>,
    spent: Spent,
}

/// Lets all judges decide over the batch. Returns what each said, with `judge/<name>/{turns,questions,tokens}`.
///
/// A judge whose call, answer or question as a whole fails has failed on all its rows, and the others go on.
///
/// # Errors
/// [`Error::Plugin`] when the host failed.
pub fn judge(step: u64, judges: &[JudgeSlot], batch: Batch, models: &dyn Models) -> Result<(Vec<Scores>, Vec<(String, f64)>)> {
    let batch = Arc::new(batch);
    let judged = sit(step, judges.iter().map(|slot| (slot, Arc::clone(&batch))), models)?;
    let metrics = judges.iter().zip(&judged).flat_map(|(JudgeSlot { name, .. }, Judged { spent, .. })| {
        [("turns", spent.turns), ("questions", spent.questions), ("tokens", spent.tokens)]
            .map(|(what, count)| (format!("judge/{name}/{what}"), count as f64))
    });
    let metrics = metrics.collect();
    Ok((judged.into_iter().map(|judged| judged.scores).collect(), metrics))
}

/// Lets one judge decide over each batch by itself; all of them ask together. So no verdict depends on the other batches, and what
/// fails on one batch has failed on its rows alone.
///
/// # Errors
/// As [`judge`].
pub fn judge_each(judge: &JudgeSlot, batches: Vec<Batch>, models: &dyn Models) -> Result<Vec<Judged>> {
    sit(0, batches.into_iter().map(|batch| (judge, Arc::new(batch))), models)
}

/// The rounds of the sittings, until all are over.
fn sit<'a>(step: u64, sittings: impl Iterator<Item = (&'a JudgeSlot, Arc<Batch>)>, models: &dyn Models) -> Result<Vec<Judged>> {
    let begin = |(slot, batch): (&'a JudgeSlot, Arc<Batch>)| {
        let turn = slot.plugin.begin(&batch);
        let mut sitting = Sitting { slot, batch, ask: None, verdicts: None, fault: None, spent: Spent::default() };
        sitting.take_turn(turn, step).map(|()| sitting)
    };
    let mut sittings = sittings.map(begin).collect::<Result<Vec<_>>>()?;
    loop {
        sittings.iter_mut().for_each(|sitting| sitting.check_ask(models));
        let questions: Vec<Question> =
            sittings.iter().flat_map(|sitting| sitting.ask.iter().flat_map(|ask| ask.questions.iter().cloned())).collect();
        if sittings.iter().all(|sitting| sitting.ask.is_none()) {
            break;
        }
        let mut answers = if questions.is_empty() { Vec::new() } else { models.generate(&questions) }.into_iter();
        for sitting in &mut sittings {
            let Some(Ask { questions, memo }) = sitting.ask.take() else { continue };
            let own: Vec<Answer> = answers.by_ref().take(questions.len()).collect();
            match answered(&questions, own, models) {
                Ok(answers) => {
                    sitting.spent.tokens += answers.iter().map(|answer| answer.tokens.values.len() as u64).sum::<u64>();
                    sitting.take_turn(sitting.slot.plugin.resume(&sitting.batch, &memo, &answers), step)?;
                }
                Err(fault) => sitting.unanswered(&fault),
            }
        }
    }
    let judged = |Sitting { slot, batch, verdicts, fault, spent, .. }: Sitting| {
        let decided = fault.map_or_else(|| verdicts::check(verdicts.unwrap_or_default(), &batch), Err);
        Judged { scores: verdicts::scores(&slot.name, decided, &batch), spent }
    };
    Ok(sittings.into_iter().map(judged).collect())
}

impl Sitting<'_> {
    fn fail(&mut self, code: impl Into<String>, message: impl Into<String>) {
        self.ask = None;
        self.fault = Some(RowFault { code: code.into(), message: message.into() });
    }

    /// A question has no answer, and without it there is no verdict.
    fn unanswered(&mut self, ServiceFault { code, message, .. }: &ServiceFault) {
        self.fail(code, format!("a question of judge `{}` has no answer: {message}", self.slot.name));
    }

    fn take_turn(&mut self, turn: Result<Turn, PluginError>, step: u64) -> Result<()> {
        self.spent.turns += 1;
        match turn {
            Ok(Turn::Done(verdicts)) => self.verdicts = Some(verdicts),
            Ok(Turn::Ask(_)) if self.spent.turns == MAX_TURNS => {
                self.fail("too-many-turns", format!("it asks on after {MAX_TURNS} turns"));
            }
            Ok(Turn::Ask(ask)) => self.ask = Some(ask),
            Err(source @ PluginError { fault: PluginFault::Host { .. }, .. }) => return Err(Error::Plugin { step, source }),
            Err(PluginError { fault, .. }) => self.fail(fault.code().to_owned(), fault.to_string()),
        }
        Ok(())
    }

    /// Counts what it asks, and refuses what could go beyond its tokens: those of the prompts, and the most that may be written.
    fn check_ask(&mut self, models: &dyn Models) {
        let Some(ask) = &self.ask else { return };
        let budget = self.slot.tokens_per_row.saturating_mul(self.batch.rows() as u64);
        let (mut read, mut write) = (0u64, 0u64);
        for Question { model, prompts, sampling } in &ask.questions {
            match tokens_of(model, prompts, models) {
                Ok(tokens) => read += tokens,
                Err(fault) => return self.unanswered(&fault),
            }
            write = write.saturating_add(
                (prompts.len() as u64).saturating_mul(u64::from(sampling.count)).saturating_mul(u64::from(sampling.max_tokens)),
            );
            self.spent.questions += prompts.len() as u64;
        }
        let most = self.spent.tokens.saturating_add(read).saturating_add(write);
        if most > budget {
            let per_row = self.slot.tokens_per_row;
            let message = format!(
                "it may read and write {most} tokens, the budget is {budget} ({per_row} a row): raise `grants.tokens_per_row` or lower \
                 `max_tokens`"
            );
            return self.fail("budget", message);
        }
        self.spent.tokens += read;
    }
}

/// Codes of what is wrong with a prompt and not with the question.
const OF_A_PROMPT: [&str; 3] = ["too-long", "untokenizable", "empty-prompt"];

fn of_a_prompt(fault: &ServiceFault) -> bool {
    OF_A_PROMPT.contains(&fault.code.as_str())
}

fn one_by_one(prompts: &Texts) -> impl Iterator<Item = Texts> {
    (0..prompts.len()).map(|row| std::iter::once(prompts.bytes_at(row)).collect())
}

/// Tokens of the prompts; one that has no tokens costs nothing.
fn tokens_of(model: &str, prompts: &Texts, models: &dyn Models) -> Result<u64, ServiceFault> {
    models.count_tokens(model, prompts).or_else(|fault| {
        let each = || one_by_one(prompts).map(|prompt| models.count_tokens(model, &prompt).unwrap_or(0)).sum();
        if of_a_prompt(&fault) { Ok(each()) } else { Err(fault) }
    })
}

/// A judge's answers, or the first fault that is not about single prompts, or when no prompt has an answer.
///
/// Prompts of a question that has failed are asked once more, each by itself: models remember what they have said, so nothing is
/// computed again.
fn answered(questions: &[Question], answers: Vec<Answer>, models: &dyn Models) -> Result<Vec<Generated>, ServiceFault> {
    let Some(first) = answers.iter().find_map(|answer| answer.as_ref().err().cloned()) else {
        return Ok(answers.into_iter().flatten().collect());
    };
    if let Some(fault) = answers.iter().filter_map(|answer| answer.as_ref().err()).find(|fault| !of_a_prompt(fault)) {
        return Err(fault.clone());
    }
    let alone = |question: &Question| {
        let Question { model, sampling, prompts } = question.clone();
        one_by_one(&prompts)
            .map(|prompts| Question { model: model.clone(), sampling: sampling.clone(), prompts })
            .collect::<Vec<_>>()
    };
    let mut any = answers.iter().any(Result::is_ok);
    let mut all = Vec::with_capacity(questions.len());
    for (question, answer) in questions.iter().zip(answers) {
        if let Ok(answer) = answer {
            all.push(answer);
            continue;
        }
        let mut joined = Generated::default();
        for answer in models.generate(&alone(question)) {
            any |= answer.is_ok();
            match answer {
                Ok(one) => append(&mut joined, &one),
                Err(fault) if of_a_prompt(&fault) => (0..question.sampling.count).for_each(|_| push_missing(&mut joined, &fault)),
                Err(fault) => return Err(fault),
            }
        }
        all.push(joined);
    }
    if any { Ok(all) } else { Err(first) }
}

fn append(all: &mut Generated, one: &Generated) {
    for row in 0..one.text.len() {
        all.text.push(one.text.bytes_at(row));
        all.tokens.push(one.tokens.row(row));
        all.logprobs.push(one.logprobs.row(row));
    }
    all.finish.extend_from_slice(&one.finish);
}

fn push_missing(all: &mut Generated, fault: &ServiceFault) {
    all.text.push("");
    all.tokens.push(&[]);
    all.logprobs.push(&[]);
    all.finish.push(fault.code.clone());
}
