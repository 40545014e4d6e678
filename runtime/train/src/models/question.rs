//! Questions row by row, their keys and their answers.

use std::sync::Arc;

use plumb_core::rollout::FinishReason;
use plumb_core::services::{Answer, Generated, Question, Sampling, ServiceFault};
use plumb_core::{Ragged, Texts};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::run::ledger::hex;

/// What is asked of a model about one row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowQuestion {
    /// Its name.
    pub model: Arc<str>,
    /// The question.
    pub ask: Ask,
}

/// The functions of [`plumb_core::services::Models`] for one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Generate { prompt: Arc<str>, sampling: Arc<Sampling> },
    Logprobs { prompt: Arc<str>, continuation: Arc<str> },
    TokenLogprobs { prompt: Arc<str>, tokens: Vec<u32> },
    ChoiceLogprobs { prompt: Arc<str>, choices: Arc<[String]> },
    Score { prompt: Arc<str>, continuation: Arc<str> },
    Embed { text: Arc<str> },
    CountTokens { text: Arc<str> },
}

impl RowQuestion {
    /// SHA-256 over the function's name, the model's name, the texts and the sampling, each with its length before it; lower-case
    /// hex. The key of caches and of the ledger.
    pub fn key(&self) -> String {
        let mut digest = Sha256::new();
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        let (function, texts): (&str, &[&Arc<str>]) = match &self.ask {
            Ask::Generate { prompt, .. } => ("generate", &[prompt]),
            Ask::Logprobs { prompt, continuation } => ("logprobs", &[prompt, continuation]),
            Ask::TokenLogprobs { prompt, .. } => ("token-logprobs", &[prompt]),
            Ask::ChoiceLogprobs { prompt, .. } => ("choice-logprobs", &[prompt]),
            Ask::Score { prompt, continuation } => ("score", &[prompt, continuation]),
            Ask::Embed { text } => ("embed", &[text]),
            Ask::CountTokens { text } => ("count-tokens", &[text]),
        };
        part(function.as_bytes());
        part(self.model.as_bytes());
        texts.iter().for_each(|text| part(text.as_bytes()));
        match &self.ask {
            Ask::Generate { sampling, .. } => part(&serde_json::to_vec(&**sampling).expect("sampling has string keys only")),
            Ask::TokenLogprobs { tokens, .. } => part(bytemuck::cast_slice(tokens)),
            Ask::ChoiceLogprobs { choices, .. } => choices.iter().for_each(|choice| part(choice.as_bytes())),
            _ => {}
        }
        hex(&digest.finalize())
    }
}

/// A row's answer, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowAnswer {
    Completions(Vec<CompletionAnswer>),
    Logprobs(Vec<f32>),
    ChoiceLogprobs(Vec<f64>),
    Scores(Vec<(String, f64)>),
    Embedding(Vec<f32>),
    Tokens(u64),
    Fault(ServiceFault),
}

/// One sampled completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionAnswer {
    pub text: String,
    pub tokens: Vec<u32>,
    pub logprobs: Vec<f32>,
    pub finish: FinishReason,
}

impl RowAnswer {
    /// Memory it takes, roughly.
    pub fn bytes(&self) -> usize {
        match self {
            RowAnswer::Completions(all) => all.iter().map(|one| 96 + one.text.len() + 8 * one.tokens.len()).sum(),
            RowAnswer::Logprobs(values) | RowAnswer::Embedding(values) => 4 * values.len(),
            RowAnswer::ChoiceLogprobs(values) => 8 * values.len(),
            RowAnswer::Scores(values) => values.iter().map(|(name, _)| 32 + name.len()).sum(),
            RowAnswer::Tokens(_) => 8,
            RowAnswer::Fault(fault) => fault.code.len() + fault.message.len(),
        }
    }
}

/// Whoever answers row by row; [`models_by_row`] makes [`plumb_core::services::Models`] of it.
pub trait AnswersRows {
    /// One answer per question, in their order.
    fn answer_rows(&self, questions: Vec<RowQuestion>) -> Vec<RowAnswer>;
}

/// A result of one row, or the fault that becomes the whole question's.
type Row<T> = Result<T, ServiceFault>;

fn texts(texts: &Texts) -> Row<Vec<Arc<str>>> {
    let text = |row| match texts.get(row) {
        Some(text) => Ok(text.into()),
        None => Err(ServiceFault::new("bad-text", format!("text {row} of {} is not UTF-8", texts.len()))),
    };
    (0..texts.len()).map(text).collect()
}

fn pairs(prompts: &Texts, others: usize, what: &str) -> Row<Vec<Arc<str>>> {
    if prompts.len() != others {
        return Err(ServiceFault::new("wrong-count", format!("{} prompts with {others} {what}", prompts.len())));
    }
    texts(prompts)
}

/// Asks all rows at once and takes the answers apart; the first row's fault is the question's.
fn ask_all<T>(
    source: &impl AnswersRows,
    model: &str,
    asks: impl Iterator<Item = Ask>,
    take: impl Fn(RowAnswer) -> Option<T>,
) -> Row<Vec<T>> {
    let model: Arc<str> = model.into();
    let answers = source.answer_rows(asks.map(|ask| RowQuestion { model: model.clone(), ask }).collect());
    collect(answers.into_iter(), take)
}

fn collect<T>(answers: impl Iterator<Item = RowAnswer>, take: impl Fn(RowAnswer) -> Option<T>) -> Row<Vec<T>> {
    let mut rows = Vec::new();
    // A fault on record stands for the rows before it too, whose answers were not used.
    let mut other = None;
    for answer in answers {
        match answer {
            RowAnswer::Fault(fault) if fault.code != NOT_RECORDED => return Err(fault),
            RowAnswer::Fault(fault) => {
                other.get_or_insert(fault);
            }
            answer => {
                let other = || ServiceFault::new(NOT_RECORDED, "the record answers another question");
                rows.push(take(answer).ok_or_else(other)?);
            }
        }
    }
    other.map_or(Ok(rows), Err)
}

/// Code of a question whose answer a finished run does not have.
pub const NOT_RECORDED: &str = "not-recorded";

pub fn generate(source: &impl AnswersRows, questions: &[Question]) -> Vec<Answer> {
    let rows = |question: &Question| -> Row<Vec<RowQuestion>> {
        let (model, sampling): (Arc<str>, _) = (question.model.as_str().into(), Arc::new(question.sampling.clone()));
        let ask = |prompt| RowQuestion { model: model.clone(), ask: Ask::Generate { prompt, sampling: sampling.clone() } };
        Ok(texts(&question.prompts)?.into_iter().map(ask).collect())
    };
    let rows: Vec<Row<Vec<RowQuestion>>> = questions.iter().map(rows).collect();
    let mut answers = source.answer_rows(rows.iter().flatten().flatten().cloned().collect()).into_iter();
    let completions = |answer| match answer {
        RowAnswer::Completions(completions) => Some(completions),
        _ => None,
    };
    let answer = |rows: Row<Vec<RowQuestion>>| -> Answer {
        let rows = rows?;
        let own: Vec<RowAnswer> = answers.by_ref().take(rows.len()).collect();
        // Whose prompt it was that has no answer is what the reader of the message can mend.
        let place = own.iter().position(|answer| matches!(answer, RowAnswer::Fault(fault) if fault.code != NOT_RECORDED));
        let told = |mut fault: ServiceFault| {
            if let Some(place) = place {
                fault.message =
                    format!("prompt {} of {} to model `{}`: {}", place + 1, rows.len(), rows[place].model, fault.message);
            }
            fault
        };
        let mut generated = Generated::default();
        for completion in collect(own.into_iter(), completions).map_err(told)?.into_iter().flatten() {
            generated.text.push(&completion.text);
            generated.tokens.push(&completion.tokens);
            generated.logprobs.push(&completion.logprobs);
            generated.finish.push(crate::pipeline::rows::finish(completion.finish).into());
        }
        Ok(generated)
    };
    rows.into_iter().map(answer).collect()
}

fn per_token(answers: Row<Vec<Vec<f32>>>) -> Row<Ragged<f32>> {
    let mut all = Ragged::default();
    answers?.iter().for_each(|row| all.push(row));
    Ok(all)
}

fn logprobs_of(answer: RowAnswer) -> Option<Vec<f32>> {
    if let RowAnswer::Logprobs(values) = answer { Some(values) } else { None }
}

pub fn logprobs(source: &impl AnswersRows, model: &str, prompts: &Texts, continuations: &Texts) -> Row<Ragged<f32>> {
    let rows = pairs(prompts, continuations.len(), "continuations")?.into_iter().zip(texts(continuations)?);
    let asks = rows.map(|(prompt, continuation)| Ask::Logprobs { prompt, continuation });
    per_token(ask_all(source, model, asks, logprobs_of))
}

pub fn token_logprobs(source: &impl AnswersRows, model: &str, prompts: &Texts, tokens: &Ragged<u32>) -> Row<Ragged<f32>> {
    let rows = pairs(prompts, tokens.len(), "lists of tokens")?.into_iter().enumerate();
    let asks = rows.map(|(row, prompt)| Ask::TokenLogprobs { prompt, tokens: tokens.row(row).to_vec() });
    per_token(ask_all(source, model, asks, logprobs_of))
}

pub fn choice_logprobs(source: &impl AnswersRows, model: &str, prompts: &Texts, choices: &[String]) -> Row<Vec<f64>> {
    let choices: Arc<[String]> = choices.into();
    let asks = texts(prompts)?.into_iter().map(|prompt| Ask::ChoiceLogprobs { prompt, choices: choices.clone() });
    let take = |answer| if let RowAnswer::ChoiceLogprobs(values) = answer { Some(values) } else { None };
    Ok(ask_all(source, model, asks, take)?.concat())
}

pub fn score(source: &impl AnswersRows, model: &str, prompts: &Texts, continuations: &Texts) -> Row<Vec<(String, Vec<f64>)>> {
    let rows = pairs(prompts, continuations.len(), "continuations")?.into_iter().zip(texts(continuations)?);
    let asks = rows.map(|(prompt, continuation)| Ask::Score { prompt, continuation });
    let take = |answer| if let RowAnswer::Scores(scores) = answer { Some(scores) } else { None };
    let mut heads: Vec<(String, Vec<f64>)> = Vec::new();
    for (i, (label, value)) in ask_all(source, model, asks, take)?.into_iter().flat_map(|row| row.into_iter().enumerate()) {
        match heads.get_mut(i) {
            Some((_, values)) => values.push(value),
            None => heads.push((label, vec![value])),
        }
    }
    Ok(heads)
}

pub fn embed(source: &impl AnswersRows, model: &str, inputs: &Texts) -> Row<(u32, Vec<f32>)> {
    let asks = texts(inputs)?.into_iter().map(|text| Ask::Embed { text });
    let take = |answer| if let RowAnswer::Embedding(values) = answer { Some(values) } else { None };
    let rows = ask_all(source, model, asks, take)?;
    Ok((rows.first().map_or(0, Vec::len) as u32, rows.concat()))
}

pub fn count_tokens(source: &impl AnswersRows, model: &str, inputs: &Texts) -> Row<u64> {
    let asks = texts(inputs)?.into_iter().map(|text| Ask::CountTokens { text });
    let take = |answer| if let RowAnswer::Tokens(count) = answer { Some(count) } else { None };
    Ok(ask_all(source, model, asks, take)?.iter().sum())
}

/// [`plumb_core::services::Models`] for a type that [`AnswersRows`].
macro_rules! models_by_row {
    ($source:ty) => {
        impl plumb_core::services::Models for $source {
            fn generate(&self, questions: &[plumb_core::services::Question]) -> Vec<plumb_core::services::Answer> {
                $crate::models::question::generate(self, questions)
            }
            fn logprobs(&self, model: &str, prompts: &Texts, continuations: &Texts) -> Result<Ragged<f32>, ServiceFault> {
                $crate::models::question::logprobs(self, model, prompts, continuations)
            }
            fn token_logprobs(&self, model: &str, prompts: &Texts, tokens: &Ragged<u32>) -> Result<Ragged<f32>, ServiceFault> {
                $crate::models::question::token_logprobs(self, model, prompts, tokens)
            }
            fn choice_logprobs(&self, model: &str, prompts: &Texts, choices: &[String]) -> Result<Vec<f64>, ServiceFault> {
                $crate::models::question::choice_logprobs(self, model, prompts, choices)
            }
            fn score(
                &self,
                model: &str,
                prompts: &Texts,
                continuations: &Texts,
            ) -> Result<Vec<(String, Vec<f64>)>, ServiceFault> {
                $crate::models::question::score(self, model, prompts, continuations)
            }
            fn embed(&self, model: &str, inputs: &Texts) -> Result<(u32, Vec<f32>), ServiceFault> {
                $crate::models::question::embed(self, model, inputs)
            }
            fn count_tokens(&self, model: &str, texts: &Texts) -> Result<u64, ServiceFault> {
                $crate::models::question::count_tokens(self, model, texts)
            }
        }
    };
}
pub(crate) use models_by_row;
