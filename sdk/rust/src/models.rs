//! Capability: the models named in the recipe. What they are asked counts against the call's tokens.
//!
//! A plugin that calls a function of this module imports `plumb:align/models`; one that does not, does not. Its `plugin.toml` says
//! so with `[needs] capabilities = ["models"]`, and the recipe grants it with `grants = { models = ["policy"] }`. All of them
//! answer only while a batch is scored, shaped or filtered; a [`Judge`](crate::judge) asks by turns instead, which is faster.
//!
//! Prompts are texts as the model reads them, chat marks included. Natively, in tests, [`testing::models`](crate::testing::models)
//! answers.

#[cfg(target_arch = "wasm32")]
use crate::guest::capabilities as backend;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::capabilities as backend;

pub use crate::batch::{Ragged, Texts};
pub use crate::descriptor::Part;
use crate::fault::Fault;

/// How to sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Most tokens per completion.
    pub max_tokens: u32,
    /// 0 takes the likeliest token; 1 leaves the distribution as it is.
    pub temperature: f32,
    /// Nucleus; 1 leaves the distribution as it is.
    pub top_p: f32,
    /// Completions per prompt.
    pub count: u32,
    /// Seed of the random stream.
    pub seed: u64,
    /// Texts that end a completion.
    pub stop: Vec<String>,
    /// Further settings by name.
    pub extra: Vec<(String, String)>,
}

impl Sampling {
    /// One completion per prompt, the likeliest token at each place.
    pub fn greedy(max_tokens: u32) -> Self {
        Sampling { max_tokens, temperature: 0.0, top_p: 1.0, count: 1, seed: 0, stop: Vec::new(), extra: Vec::new() }
    }
}

/// Sampled completions, [`Sampling::count`] adjacent ones per prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generated {
    /// Their texts.
    pub text: Texts,
    /// Their token ids.
    pub tokens: Ragged<u32>,
    /// Log-probability of each token, in nats.
    pub logprobs: Ragged<f32>,
    /// `stop` or `length`, one per completion; for a judge also `too-long`, `untokenizable` or `empty-prompt`, with an empty text, where
    /// the model could not read the prompt.
    pub finish: Vec<String>,
}

/// A vector per input, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// Numbers per vector.
    pub width: usize,
    /// All vectors, one after the other.
    pub values: Vec<f32>,
}

impl Embeddings {
    /// The vector of input `row`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..(row + 1) * self.width]
    }
}

/// Completes each prompt; a prompt may hold the beginning of the answer.
///
/// # Errors
/// `denied` for a model that is not granted, `budget` beyond the call's tokens, and the model's own; so for all functions here.
pub fn generate(model: &str, prompts: &Texts, sampling: &Sampling) -> Result<Generated, Fault> {
    backend::generate(model, prompts, sampling)
}

/// Log-probability of every token of each continuation, in nats.
///
/// # Errors
/// As for [`generate`].
pub fn logprobs(model: &str, prompts: &Texts, continuations: &Texts) -> Result<Ragged<f32>, Fault> {
    backend::logprobs(model, prompts, continuations)
}

/// The same for given token ids, without tokenizing again.
///
/// # Errors
/// As for [`generate`].
pub fn token_logprobs(model: &str, prompts: &Texts, tokens: &Ragged<u32>) -> Result<Ragged<f32>, Fault> {
    backend::token_logprobs(model, prompts, tokens)
}

/// Log-probabilities of candidate answers, prompts × choices, row by row: the sum over each choice's tokens.
///
/// # Errors
/// As for [`generate`].
pub fn choice_logprobs(model: &str, prompts: &Texts, choices: &[String]) -> Result<Vec<f64>, Fault> {
    backend::choice_logprobs(model, prompts, choices)
}

/// Values of the model's scalar heads, each with one per row.
///
/// # Errors
/// As for [`generate`].
pub fn score(model: &str, prompts: &Texts, continuations: &Texts) -> Result<Vec<Part>, Fault> {
    backend::score(model, prompts, continuations)
}

/// A vector per input.
///
/// # Errors
/// As for [`generate`].
pub fn embed(model: &str, inputs: &Texts) -> Result<Embeddings, Fault> {
    backend::embed(model, inputs)
}
