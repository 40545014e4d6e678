//! Reading models: one door for all formats.

use std::path::Path;

use crate::params::Params;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, gguf, hf};

/// A model and the tokenizer it was trained with.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// Configuration and weights.
    pub params: Params,
    /// Texts to token ids and back.
    pub tokenizer: Tokenizer,
    /// The head of a sequence-classification model, which has no language head of its own.
    pub score: Option<ScoreHead>,
}

/// A linear head over the last token's hidden state: `score[l] = Σ_j weights[l, j] · hidden[j]`, as transformers'
/// `...ForSequenceClassification` models have it (`score.weight`).
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreHead {
    /// Names of the scores, by `id2label`.
    pub labels: Vec<String>,
    /// `[labels, d]`.
    pub weights: Vec<f32>,
}

impl ScoreHead {
    /// One score per label of a hidden state `[d]`, summed in float64.
    ///
    /// # Panics
    /// When the hidden state has another width than the head.
    pub fn scores(&self, hidden: &[f32]) -> Vec<f64> {
        assert_eq!(hidden.len() * self.labels.len(), self.weights.len(), "the head belongs to a model of another width");
        let dot = |row: &[f32]| row.iter().zip(hidden).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        self.weights.chunks_exact(hidden.len()).map(dot).collect()
    }
}

/// Reads a Hugging Face folder or a GGUF file.
///
/// A folder of a sequence-classification model (`LlamaForSequenceClassification`, ...) comes with its [`ScoreHead`]; its output
/// matrix is the embedding then, since it has no language head.
///
/// Weights become float32 whatever the file holds: F32, F16 and BF16 from safetensors; those and ggml's quantized blocks
/// (`Q8_0`, `Q4_0`, `Q4_1`, `Q4_K`, `Q6_K`, ...) from GGUF.
///
/// # Errors
/// [`Error::Io`] when something is missing or unreadable, [`Error::Malformed`] when a file is truncated or broken,
/// [`Error::Unsupported`] when the model is outside the Llama family, [`Error::Shape`] when a tensor is missing or does not
/// have the configuration's shape.
pub fn load(path: &Path) -> Result<LoadedModel> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    if metadata.is_dir() { hf::load(path) } else { gguf::load(path) }
}
