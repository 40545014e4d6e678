//! What a plugin may be granted besides its batch: questions to models and calls of tools.
//!
//! The runtime implements these traits, the plugin host hands them to guests. Every answer is a pure function of the question, the
//! model's weights and the run's seed, whatever else is asked at the same time: batching, caching and threads change nothing.

use crate::batch::{Ragged, Texts};

/// Why a service has no answer. `retryable` says that asking again may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("`{code}`: {message}")]
pub struct ServiceFault {
    /// Open code: `unknown-model`, `denied`, `budget`, `too-long`, `unavailable`, `unsupported`, ...
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether the same question may have an answer later.
    pub retryable: bool,
}

impl ServiceFault {
    /// A fault that asking again will not mend.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        ServiceFault { code: code.into(), message: message.into(), retryable: false }
    }
}

/// How a model's answer is sampled.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Sampling {
    /// Most tokens per completion.
    pub max_tokens: u32,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Nucleus; 1 keeps all.
    pub top_p: f32,
    /// Completions per prompt.
    pub count: u32,
    /// Part of the random streams' key, besides the run's seed, the model and the prompt's text.
    pub seed: u64,
    /// Texts that end a completion; the text is cut before them.
    pub stop: Vec<String>,
    /// Further settings by name; unknown names are a fault `unsupported`.
    pub extra: Vec<(String, String)>,
}

/// Prompts for one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Name of the model: `policy`, `reference`, or one of the recipe's `[models]`.
    pub model: String,
    /// One or more prompts; each may hold the beginning of the answer.
    pub prompts: Texts,
    /// How to sample.
    pub sampling: Sampling,
}

/// Sampled completions, [`Sampling::count`] adjacent ones per prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generated {
    /// Their texts.
    pub text: Texts,
    /// Their token ids.
    pub tokens: Ragged<u32>,
    /// Log-probability of each token, nats.
    pub logprobs: Ragged<f32>,
    /// `stop` or `length`, one per completion; for a judge also `too-long`, `untokenizable` or `empty-prompt`, with an empty text, where
    /// the model could not read the prompt.
    pub finish: Vec<String>,
}

/// The answer to a [`Question`].
pub type Answer = Result<Generated, ServiceFault>;

/// Models that can be asked by name. Prompts are texts as the model reads them, chat marks included.
pub trait Models: Send + Sync {
    /// Answers many questions as one batch, one answer per question in their order.
    fn generate(&self, questions: &[Question]) -> Vec<Answer>;

    /// Log-probability of every token of each continuation, teacher-forced, nats. Row by row.
    fn logprobs(&self, model: &str, prompts: &Texts, continuations: &Texts) -> Result<Ragged<f32>, ServiceFault>;

    /// The same for given token ids, without tokenizing again.
    fn token_logprobs(&self, model: &str, prompts: &Texts, tokens: &Ragged<u32>) -> Result<Ragged<f32>, ServiceFault>;

    /// Log-probabilities of candidate answers, rows × choices, row by row: the sum over each choice's tokens.
    fn choice_logprobs(&self, model: &str, prompts: &Texts, choices: &[String]) -> Result<Vec<f64>, ServiceFault>;

    /// Values of the model's scalar heads, one list per head.
    fn score(&self, model: &str, prompts: &Texts, continuations: &Texts) -> Result<Vec<(String, Vec<f64>)>, ServiceFault>;

    /// (width, row-major values): the mean over tokens of the last layer's normalized hidden states.
    fn embed(&self, model: &str, inputs: &Texts) -> Result<(u32, Vec<f32>), ServiceFault>;

    /// Tokens that `texts` have for `model`: what a plugin's budget is counted in.
    fn count_tokens(&self, model: &str, texts: &Texts) -> Result<u64, ServiceFault>;
}

/// A tool's answers: one text per call, or why there is none.
pub type ToolOutputs = Vec<Result<String, ServiceFault>>;

/// Tools that can be called by name. Each argument is a JSON text.
pub trait Tools: Send + Sync {
    /// One answer per row of `arguments`.
    ///
    /// # Errors
    /// What concerns all rows: an unknown tool.
    fn call(&self, tool: &str, arguments: &Texts) -> Result<ToolOutputs, ServiceFault>;
}

/// There are no models.
pub struct NoModels;

impl NoModels {
    fn fault<T>() -> Result<T, ServiceFault> {
        Err(ServiceFault::new("unavailable", "there are no models here: they are served during training, and by `plumb judge`"))
    }
}

impl Models for NoModels {
    fn generate(&self, questions: &[Question]) -> Vec<Answer> {
        questions.iter().map(|_| NoModels::fault()).collect()
    }
    fn logprobs(&self, _: &str, _: &Texts, _: &Texts) -> Result<Ragged<f32>, ServiceFault> {
        NoModels::fault()
    }
    fn token_logprobs(&self, _: &str, _: &Texts, _: &Ragged<u32>) -> Result<Ragged<f32>, ServiceFault> {
        NoModels::fault()
    }
    fn choice_logprobs(&self, _: &str, _: &Texts, _: &[String]) -> Result<Vec<f64>, ServiceFault> {
        NoModels::fault()
    }
    fn score(&self, _: &str, _: &Texts, _: &Texts) -> Result<Vec<(String, Vec<f64>)>, ServiceFault> {
        NoModels::fault()
    }
    fn embed(&self, _: &str, _: &Texts) -> Result<(u32, Vec<f32>), ServiceFault> {
        NoModels::fault()
    }
    fn count_tokens(&self, _: &str, _: &Texts) -> Result<u64, ServiceFault> {
        NoModels::fault()
    }
}
