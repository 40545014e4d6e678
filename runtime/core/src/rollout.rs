//! Prompts, completions and groups: what the rollout engine makes and the trainer reads.

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-text token or a stop string.
    Stop,
    /// The limit on tokens: the completion is truncated.
    Length,
}

/// How to sample completions. There is no `Default`: every choice is visible where it is made.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 means greedy.
    pub temperature: f32,
    /// Keep the `top_k` likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the likeliest tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Most tokens of a completion, the end-of-text token included.
    pub max_completion_length: usize,
    /// Texts that end a completion; the text is cut before them, the tokens stay.
    pub stop: Vec<String>,
    /// Whether an end-of-text token is a token like any other, so that a completion goes on to `max_completion_length`.
    pub ignore_eos: bool,
}

impl SamplingParams {
    /// The model's own distribution: temperature 1 and nothing cut.
    pub fn neutral(max_completion_length: usize) -> Self {
        let stop = Vec::new();
        SamplingParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, max_completion_length, stop, ignore_eos: false }
    }

    /// The likeliest token at each place.
    pub fn greedy(max_completion_length: usize) -> Self {
        SamplingParams { temperature: 0.0, ..Self::neutral(max_completion_length) }
    }
}

/// A tokenized prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Index of the row in its data set: part of every random stream's key.
    pub id: u64,
    /// Token ids, never empty.
    pub tokens: Vec<u32>,
}

/// A sampled completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Generated ids, the end-of-text token included where there is one.
    pub tokens: Vec<u32>,
    /// Log-probability of each id under the distribution at temperature `SamplingParams::temperature`, before top-k, top-p and
    /// min-p cut it (nats); at temperature 0, under the model's own distribution.
    pub logprobs: Vec<f32>,
    /// Decoded text without special tokens, cut before a stop string.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
}

/// The completions of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What was asked.
    pub prompt: Prompt,
    /// The answers, in the order of their index.
    pub completions: Vec<Completion>,
}
