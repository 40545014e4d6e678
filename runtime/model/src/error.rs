//! What can go wrong with models and their files.

use std::path::PathBuf;

use crate::rollout::Memory;

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with models and their files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file is there but is not what it should be: truncated, wrong magic, broken JSON, an unknown type.
    #[error("`{}` is not usable: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where in the file.
        reason: String,
    },
    /// A model this program cannot run.
    #[error("`{}` holds a model that is not supported: {reason}", path.display())]
    Unsupported {
        /// Which file.
        path: PathBuf,
        /// Which architecture or feature, and which ones there are.
        reason: String,
    },
    /// A tensor is missing or has another shape than the configuration says.
    #[error("tensor `{name}` in `{}` has shape {got:?}, expected {expected:?}", path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        name: String,
        /// By the configuration.
        expected: Vec<usize>,
        /// In the file; empty when the tensor is missing.
        got: Vec<usize>,
    },
    /// The tokenizer or its chat template failed.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A sequence is longer than the model's context.
    #[error("a sequence of {length} tokens is longer than the model's context of {limit}")]
    TooLong {
        /// Tokens of the sequence.
        length: usize,
        /// `max_position_embeddings`.
        limit: usize,
    },
    /// Rollouts might need more memory than there is.
    #[error(
        "rollouts may take {} of memory (weights {}, keys and values {}, buffers {}), {} more than they hold, but {} are available",
        size(estimate.total()), size(estimate.weights), size(estimate.kv_cache), size(estimate.buffers), size(*needed), size(*available)
    )]
    Memory {
        /// The most that they may take.
        estimate: Memory,
        /// Bytes of it that they do not hold yet.
        needed: u64,
        /// Bytes that the machine and the limits of control groups leave.
        available: u64,
    },
    /// A call's arguments make no sense: a probability above 1, a prompt without tokens, weights of another model.
    #[error("{0}")]
    Request(String),
    /// candle failed.
    #[error("tensor operation failed")]
    Candle(#[from] candle_core::Error),
    /// A logit, log-probability or gradient is NaN or infinite.
    #[error("{what} is not finite")]
    NonFinite {
        /// Which number, and where.
        what: String,
    },
}

fn size(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
