//! Judges, models and tools against real components (`tests/guests`: judge-probe, reward-asks, tool-probe).

mod judge;
mod models;
mod tools;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use plumb_core::recipe::{Grants, LimitsUse};
use plumb_core::services::{Answer, Generated, Models, Question, ServiceFault};
use plumb_core::{Batch, Column, PluginKind, Ragged, Texts};
use plumb_host::{Host, HostOptions, LoadRequest};

/// A model whose every answer is a function of the question: it writes the length of its prompt and reads a token per byte.
#[derive(Default)]
pub struct Counting {
    /// Questions so far.
    pub asked: Mutex<usize>,
    /// Answers with one completion too few.
    pub short: bool,
    /// How long an answer takes.
    pub delay: std::time::Duration,
}

impl Counting {
    #[allow(clippy::unnecessary_wraps, reason = "what the trait's functions return")]
    fn lengths(&self, texts: &Texts) -> Result<Vec<f64>, ServiceFault> {
        *self.asked.lock().unwrap() += 1;
        std::thread::sleep(self.delay);
        Ok((0..texts.len()).map(|row| texts.bytes_at(row).len() as f64).collect())
    }
}

impl Models for Counting {
    fn generate(&self, questions: &[Question]) -> Vec<Answer> {
        let answer = |question: &Question| {
            let mut answer = Generated::default();
            for length in self.lengths(&question.prompts)?.into_iter().skip(usize::from(self.short)) {
                let text = length.to_string();
                answer.tokens.push(&text.bytes().map(u32::from).collect::<Vec<_>>());
                answer.logprobs.push(&vec![-0.5; text.len()]);
                answer.text.push(text);
                answer.finish.push("stop".to_owned());
            }
            Ok(answer)
        };
        questions.iter().map(answer).collect()
    }

    fn logprobs(&self, _: &str, _: &Texts, continuations: &Texts) -> Result<Ragged<f32>, ServiceFault> {
        let mut rows = Ragged::default();
        self.lengths(continuations)?.into_iter().for_each(|length| rows.push(&vec![-1.0; length as usize]));
        Ok(rows)
    }

    fn token_logprobs(&self, _: &str, _: &Texts, tokens: &Ragged<u32>) -> Result<Ragged<f32>, ServiceFault> {
        let mut rows = Ragged::default();
        (0..tokens.len()).for_each(|row| rows.push(&vec![-2.0; tokens.row(row).len()]));
        Ok(rows)
    }

    fn choice_logprobs(&self, _: &str, prompts: &Texts, choices: &[String]) -> Result<Vec<f64>, ServiceFault> {
        Ok(self
            .lengths(prompts)?
            .into_iter()
            .flat_map(|length| (0..choices.len()).map(move |choice| -length * choice as f64))
            .collect())
    }

    fn score(&self, _: &str, _: &Texts, continuations: &Texts) -> Result<Vec<(String, Vec<f64>)>, ServiceFault> {
        Ok(vec![("score".to_owned(), self.lengths(continuations)?)])
    }

    fn embed(&self, _: &str, inputs: &Texts) -> Result<(u32, Vec<f32>), ServiceFault> {
        Ok((2, self.lengths(inputs)?.into_iter().flat_map(|length| [length as f32, 0.0]).collect()))
    }

    fn count_tokens(&self, _: &str, texts: &Texts) -> Result<u64, ServiceFault> {
        Ok(texts.bytes.len() as u64)
    }
}

/// Path of a guest that `cargo xtask guests` built.
fn guest(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/guests/{name}.wasm"));
    assert!(path.is_file(), "`{}` is missing, run `cargo xtask guests`", path.display());
    path
}

fn host(models: Arc<dyn Models>) -> Host {
    let cache_dir = Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-guests"));
    Host::new(HostOptions { threads: 2, cache_dir, models, ..HostOptions::default() }).unwrap()
}

fn request(kind: PluginKind, name: &str, config: serde_json::Value, grants: Grants) -> LoadRequest {
    let serde_json::Value::Object(config) = config else { panic!("a configuration is an object") };
    let limits =
        LimitsUse { fuel: Some(50_000_000), fuel_per_row: Some(1_000_000), memory_mib: Some(16), ..LimitsUse::default() };
    LoadRequest { config, limits, grants, ..LoadRequest::new(kind, guest(name)) }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// One group of rows; row `i` has `i` letters.
fn batch(rows: usize) -> Batch {
    let mut batch = Batch::new(3, (0..rows as u64).collect(), vec![rows as u32]);
    batch.insert("completion", Column::Text((0..rows).map(|row| "x".repeat(row)).collect()));
    batch
}
