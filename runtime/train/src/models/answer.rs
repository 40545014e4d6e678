//! How models answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use plumb_core::rollout::{Group, Prompt, SamplingParams};
use plumb_core::seed::Stream;
use plumb_core::services::{Sampling, ServiceFault};
use plumb_model::ScoreHead;
use sha2::{Digest, Sha256};

use super::question::{Ask, CompletionAnswer, RowAnswer, RowQuestion};
use super::server::ModelSet;
use super::store::{POLICY, REFERENCE};
use crate::error::Error;
use crate::pack::LossRow;
use crate::policy::Policy;

/// Most completions of one prompt.
const MAX_COUNT: u32 = 1024;

type Answered<T> = Result<T, ServiceFault>;

impl ModelSet<'_> {
    /// One answer per question, in their order.
    pub(super) fn answer(&mut self, questions: &[RowQuestion]) -> Vec<RowAnswer> {
        self.forget_stale(questions);
        let keys: Vec<String> = questions.iter().map(RowQuestion::key).collect();
        let mut known: HashMap<&str, RowAnswer> = HashMap::new();
        let (mut new, mut seen) = (Vec::new(), HashSet::new());
        for (i, key) in keys.iter().enumerate().filter(|(_, key)| seen.insert(key.as_str())) {
            match self.store.cache.get(key) {
                Some(answer) => drop(known.insert(key, answer.clone())),
                None => new.push(i),
            }
        }
        // What one model samples in one way is one batch.
        let mut batches: BTreeMap<(&str, String), Vec<usize>> = BTreeMap::new();
        for &i in &new {
            let RowQuestion { model, ask } = &questions[i];
            match ask {
                Ask::Generate { sampling, .. } => batches.entry((&**model, batch_key(sampling))).or_default().push(i),
                _ => drop(known.insert(&keys[i], self.read(&questions[i]).unwrap_or_else(RowAnswer::Fault))),
            }
        }
        for rows in batches.into_values() {
            let batch: Vec<&RowQuestion> = rows.iter().map(|&i| &questions[i]).collect();
            let answers = self.generate(&batch);
            rows.iter().zip(answers).for_each(|(&i, answer)| drop(known.insert(&keys[i], answer)));
        }
        for i in new {
            self.store.cache.insert(keys[i].clone(), questions[i].model.clone(), known[keys[i].as_str()].clone());
        }
        keys.iter().map(|key| known[key.as_str()].clone()).collect()
    }

    /// Drops what models said before their weights changed.
    fn forget_stale(&mut self, questions: &[RowQuestion]) {
        for name in questions.iter().map(|question| &*question.model) {
            let Ok((model, _)) = self.model(name) else { continue };
            let generation = model.generation();
            if self.store.generations.get(name).is_some_and(|before| *before != generation) {
                self.store.cache.drop_model(name);
            }
            self.store.generations.insert(name.to_owned(), generation);
        }
    }

    /// The model of that name and its score head.
    fn model(&mut self, name: &str) -> Answered<(&mut Policy, Option<&ScoreHead>)> {
        let trains = self.policy.is_some();
        let names = self.store.names(trains);
        if trains && name == POLICY {
            return Ok((self.policy.as_deref_mut().expect("just looked"), None));
        }
        if trains && name == REFERENCE && self.store.reference.is_none() {
            let how = "set `grpo.log_kl = true`, or `grpo.beta` above 0, in a stage with `algorithm = \"grpo\"`";
            return Err(ServiceFault::new("unavailable", format!("this stage keeps no reference model; {how}")));
        }
        let store = &mut *self.store;
        if let Some(loaded) = store.loaded.get_mut(name) {
            return Ok((&mut loaded.model, loaded.score.as_ref()));
        }
        let lagged = store.lagged.get_mut(name).and_then(|lagged| lagged.model.as_mut());
        let model = lagged.or(store.reference.as_mut().filter(|_| name == REFERENCE));
        model
            .map(|model| (model, None))
            .ok_or_else(|| ServiceFault::new("unknown-model", format!("there is no model `{name}` here; there are {names}")))
    }

    /// Samples for questions that differ in prompts and seeds only.
    fn generate(&mut self, questions: &[&RowQuestion]) -> Vec<RowAnswer> {
        let all = |fault: ServiceFault| vec![RowAnswer::Fault(fault); questions.len()];
        let asked: Vec<(&Arc<str>, &Sampling)> = questions.iter().map(|question| generation(question)).collect();
        let (name, sampling) = (questions[0].model.clone(), asked[0].1);
        let params = match params(sampling) {
            Ok(params) => params,
            Err(fault) => return all(fault),
        };
        let (seed, max_batch) = (self.store.seed, self.store.max_batch);
        let model = match self.model(&name) {
            Ok((model, None)) => model,
            Ok((_, Some(_))) => {
                let reason = format!("`{name}` is a sequence-classification model, which has scores and no words");
                return all(ServiceFault::new("unsupported", reason));
            }
            Err(fault) => return all(fault),
        };
        let mut answers: Vec<Option<RowAnswer>> = vec![None; questions.len()];
        let mut prompts = Vec::new();
        for (i, (prompt, _)) in asked.iter().enumerate() {
            match prompt_ids(model, prompt, sampling.max_tokens as usize) {
                Ok(tokens) => prompts.push(Prompt { id: i as u64, tokens }),
                Err(fault) => answers[i] = Some(RowAnswer::Fault(fault)),
            }
        }
        let purpose = format!("model {name}");
        let hashes: Vec<u64> = asked.iter().map(|(prompt, _)| short_hash(prompt)).collect();
        let stream =
            |i: u64, completion: u64| Stream::new(seed, &purpose, &[asked[i as usize].1.seed, hashes[i as usize], completion]);
        let count = sampling.count as usize;
        let mut sample = |prompts: &[Prompt], answers: &mut [Option<RowAnswer>]| {
            let mut on_group = |_: usize, group: Group| {
                let id = group.prompt.id as usize;
                let completions = group.completions.into_iter().map(|one| CompletionAnswer {
                    text: one.text,
                    tokens: one.tokens,
                    logprobs: one.logprobs,
                    finish: one.finish,
                });
                answers[id] = Some(RowAnswer::Completions(completions.collect()));
            };
            model.generate(prompts, count, &params, max_batch.into(), &stream, &mut on_group)
        };
        if sample(&prompts, &mut answers).is_err() {
            // One prompt must not spoil the answers to the others: each by itself.
            for prompt in &prompts {
                if let Err(error) = sample(std::slice::from_ref(prompt), &mut answers) {
                    answers[prompt.id as usize] = Some(RowAnswer::Fault(failed(&error)));
                }
            }
        }
        answers.into_iter().map(|answer| answer.expect("the rollout engine answers every prompt")).collect()
    }

    /// Answers what needs no sampling.
    fn read(&mut self, question: &RowQuestion) -> Answered<RowAnswer> {
        let (model, head) = self.model(&question.model)?;
        let no_words = || {
            let reason = format!("`{}` is a sequence-classification model, which has scores and no words", question.model);
            if head.is_some() { Err(ServiceFault::new("unsupported", reason)) } else { Ok(()) }
        };
        match &question.ask {
            Ask::Generate { .. } => unreachable!("sampling is done in batches"),
            Ask::Logprobs { prompt, continuation } => {
                no_words()?;
                let tokens = encode(model, continuation)?;
                let prompt = prompt_ids(model, prompt, tokens.len())?;
                continuation_logprobs(model, prompt, vec![tokens]).map(|rows| RowAnswer::Logprobs(rows.concat()))
            }
            Ask::TokenLogprobs { prompt, tokens } => {
                no_words()?;
                let size = model.params.config.vocab_size;
                if let Some(token) = tokens.iter().find(|token| **token as usize >= size) {
                    let reason = format!("token {token} is outside the vocabulary of {size}");
                    return Err(ServiceFault::new("bad-token", reason));
                }
                let prompt = prompt_ids(model, prompt, tokens.len())?;
                continuation_logprobs(model, prompt, vec![tokens.clone()]).map(|rows| RowAnswer::Logprobs(rows.concat()))
            }
            Ask::ChoiceLogprobs { prompt, choices } => {
                no_words()?;
                let choices = choices.iter().map(|choice| encode(model, choice)).collect::<Answered<Vec<_>>>()?;
                let prompt = prompt_ids(model, prompt, choices.iter().map(Vec::len).max().unwrap_or(0))?;
                let rows = continuation_logprobs(model, prompt, choices)?;
                let sum = |row: &Vec<f32>| row.iter().map(|&logprob| f64::from(logprob)).sum();
                Ok(RowAnswer::ChoiceLogprobs(rows.iter().map(sum).collect()))
            }
            Ask::Score { prompt, continuation } => {
                let Some(head) = head else {
                    let reason = format!("`{}` has no score head (`score.weight`)", question.model);
                    return Err(ServiceFault::new("unsupported", reason));
                };
                let continuation = encode(model, continuation)?;
                let tokens = [prompt_ids(model, prompt, continuation.len())?, continuation].concat();
                let hidden = model.hidden(&tokens).map_err(|error| failed(&error))?;
                let last = &hidden[hidden.len() - model.params.config.hidden_size..];
                let scores = head.scores(last);
                finite(scores.iter().copied())?;
                Ok(RowAnswer::Scores(head.labels.iter().cloned().zip(scores).collect()))
            }
            Ask::Embed { text } => {
                let tokens = prompt_ids(model, text, 0)?;
                let hidden = model.hidden(&tokens).map_err(|error| failed(&error))?;
                let mut sums = vec![0.0f64; model.params.config.hidden_size];
                for row in hidden.chunks_exact(sums.len()) {
                    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                }
                finite(sums.iter().copied())?;
                Ok(RowAnswer::Embedding(sums.iter().map(|sum| (sum / tokens.len() as f64) as f32).collect()))
            }
            Ask::CountTokens { text } => Ok(RowAnswer::Tokens(encode(model, text)?.len() as u64)),
        }
    }
}

fn generation(question: &RowQuestion) -> (&Arc<str>, &Sampling) {
    match &question.ask {
        Ask::Generate { prompt, sampling } => (prompt, &**sampling),
        _ => unreachable!("only what is sampled comes here"),
    }
}

/// Equal for questions that one batch can answer: all of the sampling but its seed.
fn batch_key(sampling: &Sampling) -> String {
    serde_json::to_string(&Sampling { seed: 0, ..sampling.clone() }).expect("sampling has string keys only")
}

fn params(sampling: &Sampling) -> Answered<SamplingParams> {
    let refuse = |reason: String| ServiceFault::new("unsupported", reason);
    if !(1..=MAX_COUNT).contains(&sampling.count) {
        return Err(refuse(format!("`count` is {}, possible are 1 to {MAX_COUNT}", sampling.count)));
    }
    let mut params = SamplingParams {
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        stop: sampling.stop.clone(),
        ..SamplingParams::neutral(sampling.max_tokens as usize)
    };
    for (name, value) in &sampling.extra {
        let bad = || refuse(format!("`{name}` is `{value}`, which is no number it can be"));
        match name.as_str() {
            "top_k" => params.top_k = value.parse().map_err(|_| bad())?,
            "min_p" => params.min_p = value.parse().map_err(|_| bad())?,
            _ => return Err(refuse(format!("there is no setting `{name}`; there are `top_k` and `min_p`"))),
        }
    }
    Ok(params)
}

fn encode(model: &Policy, text: &str) -> Answered<Vec<u32>> {
    model.tokenizer.encode(text).map_err(|error| ServiceFault::new("untokenizable", error.to_string()))
}

/// Ids of a prompt that leaves room for so many tokens after it.
fn prompt_ids(model: &Policy, text: &str, after: usize) -> Answered<Vec<u32>> {
    let tokens = model.tokenizer.encode_prompt(text).map_err(|error| ServiceFault::new("untokenizable", error.to_string()))?;
    if tokens.is_empty() {
        return Err(ServiceFault::new("empty-prompt", "the prompt has no tokens"));
    }
    let limit = model.params.config.max_position_embeddings;
    if tokens.len().saturating_add(after) > limit {
        let reason = format!(
            "its {} tokens and up to {after} after them need a context of {}, and the model has {limit}: shorten what it is shown, \
             lower `max_tokens`, or ask a model with a longer context",
            tokens.len(),
            tokens.len().saturating_add(after)
        );
        return Err(ServiceFault::new("too-long", reason));
    }
    Ok(tokens)
}

/// Log-probabilities of continuations of one prompt, which is read once; those without tokens have none.
fn continuation_logprobs(model: &mut Policy, prompt: Vec<u32>, continuations: Vec<Vec<u32>>) -> Answered<Vec<Vec<f32>>> {
    let prompt: Arc<[u32]> = prompt.into();
    let there: Vec<bool> = continuations.iter().map(|tokens| !tokens.is_empty()).collect();
    let rows = continuations.into_iter().filter(|tokens| !tokens.is_empty());
    let rows: Vec<LossRow> = rows.map(|tokens| LossRow::new(prompt.clone(), tokens, 1.0)).collect();
    let mut answers = model.logprobs(&rows, 1, 1.0).map_err(|error| failed(&error))?.into_iter();
    Ok(there.into_iter().map(|there| if there { answers.next().unwrap_or_default() } else { Vec::new() }).collect())
}

fn finite(mut values: impl Iterator<Item = f64>) -> Answered<()> {
    if values.all(f64::is_finite) { Ok(()) } else { Err(ServiceFault::new("model-failed", "the model's numbers are not finite")) }
}

fn failed(error: &Error) -> ServiceFault {
    let code = if matches!(error, Error::Model(plumb_model::Error::Request(_))) { "unsupported" } else { "model-failed" };
    ServiceFault::new(code, error.to_string())
}

/// The first 64 bits of a text's SHA-256.
fn short_hash(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}
