//! What can end a run.

use std::path::PathBuf;

use plumb_core::PluginError;

use crate::generations::circuit::Streak;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can end a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// `read`, `create`, ...
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A row of a data file is broken: no JSON, no object, a column missing, a prompt too long.
    #[error("`{}`, {unit} {number}: {reason}", path.display())]
    Row {
        /// Which file.
        path: PathBuf,
        /// `line` of a JSONL file or `row` of a Parquet file.
        unit: &'static str,
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A data file as a whole is not usable.
    #[error("`{}` is not usable: {reason}", path.display())]
    DataFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The data has too few rows for a step.
    #[error("stage `{stage}` has {rows} training rows, fewer than the {needed} of one step")]
    TooFewRows {
        /// Which stage.
        stage: String,
        /// Rows left after the holdout and `max_rows`.
        rows: usize,
        /// Rows a step takes.
        needed: usize,
    },
    /// The recipe asks for something that cannot be.
    #[error("recipe, `{key}`: {reason}")]
    Recipe {
        /// Path of the key: `stages.rl.rollout.num_generations`.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A plugin could not be loaded.
    #[error("cannot load {kind} `{plugin}`")]
    LoadPlugin {
        /// Which kind was asked for.
        kind: plumb_core::PluginKind,
        /// Name or path in the recipe.
        plugin: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A plugin failed and the recipe has no rule that lets the run go on.
    #[error("step {step}: a plugin failed")]
    Plugin {
        /// Step of the run.
        step: u64,
        /// Which plugin, where and why.
        #[source]
        source: PluginError,
    },
    /// A plugin left a row without a score, and its `on_fault` is `abort`.
    #[error("step {step}, row {row_id:#x}: reward `{plugin}` gave no score ({code}: {message}), and its `on_fault` is `abort`")]
    FaultAborts {
        /// Step of the run.
        step: u64,
        /// Id of the row, as in the completions file.
        row_id: u64,
        /// Name of the reward in the run.
        plugin: String,
        /// Fault code.
        code: String,
        /// The plugin's words.
        message: String,
    },
    /// A plugin failed step after step, and there is no generation before it that could take its place.
    #[error(
        "after step {step}: {} `{plugin}` failed on {} of {} rows ({}), the last of {} batches in a row over the limit of `circuit`",
        streak.kind, streak.failed, streak.rows, streak.code, streak.steps
    )]
    CircuitOpen {
        /// Last finished step of the run.
        step: u64,
        /// Name in the run.
        plugin: String,
        /// How it failed.
        streak: Streak,
    },
    /// A plugin's answer is well formed but has no meaning here.
    #[error("step {step}: {kind} `{plugin}` {reason}")]
    Answer {
        /// Step of the run.
        step: u64,
        /// Its kind.
        kind: plumb_core::PluginKind,
        /// Name in the run.
        plugin: String,
        /// What it answered and what it should have.
        reason: String,
    },
    /// A plugin of a run's record is not there: the run's copy of it was changed, or there is none and the recipe names another.
    #[error("{plugin} of the record is not there{}", found.as_ref().map_or_else(String::new, |found| format!(", its file is {found:.8} now")))]
    MissingGeneration {
        /// As the ledger has it, with its digest.
        plugin: plumb_core::PluginId,
        /// Digest of the file in its place: the run's copy, else what the recipe names.
        found: Option<String>,
    },
    /// No step of a run was selected.
    #[error("no step of the run in `{}` is selected", path.display())]
    NoSteps {
        /// The run's folder.
        path: PathBuf,
        /// The steps that it has.
        stages: Vec<crate::archive::StageSpan>,
    },
    /// A run has no recorded value of that name.
    #[error("the run has no value `{name}`")]
    UnknownValue {
        /// The name.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// The loss or the gradient is NaN or infinite.
    #[error("step {step}: the {what} is {value}")]
    Diverged {
        /// Step of the run.
        step: u64,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// NaN or an infinity.
        value: f64,
    },
    /// The user asked to stop.
    #[error("interrupted after step {step}")]
    Interrupted {
        /// Last finished step.
        step: u64,
        /// Step of the newest checkpoint, if there is one: the run goes on after it.
        checkpoint: Option<u64>,
    },
    /// The model, its tokenizer or an engine failed.
    #[error(transparent)]
    Model(#[from] plumb_model::Error),
    /// The run's folder: files, checkpoints, the recipe it was started with.
    #[error(transparent)]
    Run(#[from] crate::run::Error),
    /// candle failed in a loss.
    #[error("tensor operation of the loss failed")]
    Candle(#[from] candle_core::Error),
}
