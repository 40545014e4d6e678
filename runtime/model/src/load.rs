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
}

/// Reads a Hugging Face folder or a GGUF file.
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
