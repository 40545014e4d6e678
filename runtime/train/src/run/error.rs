//! What can go wrong with a run's folder.

use std::path::{Path, PathBuf};

/// A result with this module's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a run's folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read, written, renamed or removed.
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
    /// A new run was to begin in a folder that holds something already.
    #[error("`{}` is not empty", path.display())]
    NotEmpty {
        /// Which folder.
        path: PathBuf,
        /// Whether a run lies there that could be continued.
        resumable: bool,
    },
    /// A run was to be continued or shown where there is none.
    #[error("`{}` is not the folder of a run: it has no `{missing}`", path.display())]
    NotARun {
        /// Which folder.
        path: PathBuf,
        /// The file that each run has.
        missing: &'static str,
    },
    /// A run was to be continued with another recipe.
    #[error("the run in `{}` was started with another recipe: `{key}` differs", path.display())]
    RecipeChanged {
        /// Which folder.
        path: PathBuf,
        /// First key that differs, as `stages.grpo.optimizer.learning_rate`.
        key: String,
    },
    /// A run was to be continued with a plugin or data file that has changed.
    #[error("the run in `{}` was started with another version of {what}: SHA-256 {before}, now {now}", path.display())]
    InputChanged {
        /// Which folder.
        path: PathBuf,
        /// Which plugin or file.
        what: String,
        /// SHA-256 that the run was started with.
        before: String,
        /// SHA-256 of what there is now.
        now: String,
    },
    /// A file of the run is not what it should be.
    #[error("`{}`, line {line}: {reason}", path.display())]
    BrokenLine {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the run is not what it should be.
    #[error("`{}` is not usable: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What a checkpoint is to hold could not be written; the checkpoint before it is untouched.
    #[error("cannot write a checkpoint to `{}`", path.display())]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// Why: a full disk, for one.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A run was asked for something that only the process that trains it can do, and there is none.
    #[error("no process trains the run in `{}`", path.display())]
    NotTraining {
        /// Which folder.
        path: PathBuf,
    },
    /// A run was to be trained by two processes.
    #[error("another process trains the run in `{}`", path.display())]
    InUse {
        /// Which folder.
        path: PathBuf,
    },
    /// A Parquet file could not be written or read.
    #[error("cannot {action} `{}`", path.display())]
    Parquet {
        /// `read` or `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The library's reason.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// The report's template failed: a bug in this program.
    #[error("cannot make the report")]
    Report(#[from] minijinja::Error),
}

/// Adds what was done to which file to a system error.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source })
    }
}
