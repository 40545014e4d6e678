//! What plugins answer, and the traits through which `train` asks. A closure in a test and a sandboxed component look the
//! same from here.

use std::fmt;
use std::sync::Arc;

use crate::batch::{Batch, Ragged, Texts};
use crate::services::{Generated, Question};

/// What a plugin is for. A plugin has exactly one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginKind {
    /// Completions to rewards.
    Reward,
    /// Rewards or advantages to shaped ones.
    Shaper,
    /// Candidates to verdicts.
    Judge,
    /// Which rows the loss sees.
    Filter,
    /// Arguments to results, for other plugins.
    Tool,
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PluginKind::Reward => "reward",
            PluginKind::Shaper => "shaper",
            PluginKind::Judge => "judge",
            PluginKind::Filter => "filter",
            PluginKind::Tool => "tool",
        })
    }
}

/// Which plugin: the name it has in the run, its kind and the digest of its file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PluginId {
    /// Name in the run, the key of its metrics, state and random streams.
    pub name: String,
    /// What it is for.
    pub kind: PluginKind,
    /// SHA-256 of the component, lower-case hex; `native` for a function of this program.
    pub digest: String,
}

impl fmt::Display for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.digest.get(..8).unwrap_or(&self.digest);
        write!(f, "{} `{}` (sha256 {short})", self.kind, self.name)
    }
}

/// Why a plugin has no answer for a row.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowFault {
    /// Open code: the plugin's own, or one of [`PluginFault::code`].
    pub code: String,
    /// For people.
    pub message: String,
}

/// One row's answer. Only `Scored` has a number, and nothing turns the others into one but a rule in the recipe.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A finite reward.
    Scored(f64),
    /// The plugin says that the row is not its case.
    Abstained(RowFault),
    /// The plugin could not do it: its own fault code, or a trap, fuel, memory or output fault.
    Failed(RowFault),
}

impl Outcome {
    /// The number, if there is one.
    pub fn value(&self) -> Option<f64> {
        match self {
            Outcome::Scored(value) => Some(*value),
            Outcome::Abstained(_) | Outcome::Failed(_) => None,
        }
    }
}

/// Named components that an answer may have, and a step over all answers of a plugin. Each costs a number per row and a series in
/// the run's records.
pub const MAX_PARTS: usize = 64;

/// A stretch of a completion with its own reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Name of the component it belongs to, shared by its stretches.
    pub name: Arc<str>,
    /// Whether bounds count tokens; else Unicode scalar values.
    pub in_tokens: bool,
    /// Row of the batch.
    pub row: u32,
    /// First unit of the stretch.
    pub start: u32,
    /// One past its last unit.
    pub stop: u32,
    /// Reward of the stretch.
    pub value: f64,
}

/// A reward plugin's answer to a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewards {
    /// One per row.
    pub outcomes: Vec<Outcome>,
    /// Named components, one value per row; NaN where the row has no value.
    pub parts: Vec<(String, Vec<f64>)>,
    /// Rewards of stretches.
    pub spans: Vec<Span>,
}

/// A shaper's answer to a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shaped {
    /// One per row; None where only token values are given.
    pub values: Option<Vec<f64>>,
    /// One per completion token.
    pub token_values: Option<Ragged<f32>>,
    /// Named components, one value per row.
    pub parts: Vec<(String, Vec<f64>)>,
    /// Rows without a value.
    pub faults: Vec<(u32, RowFault)>,
}

/// Preference pairs over rows; all lists are equally long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Preferred rows.
    pub chosen: Vec<u32>,
    /// The rows they are preferred to.
    pub rejected: Vec<u32>,
    /// Probability that `chosen` is better.
    pub probability: Vec<f64>,
    /// By how much.
    pub margin: Vec<f64>,
    /// Depth or grade of the comparison; 0 where there is none.
    pub level: Vec<u32>,
}

/// New texts for some rows of a text column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Relabel {
    /// Column they go to.
    pub column: String,
    /// Rows and their new texts.
    pub rows: Vec<(u32, String)>,
}

/// A filter's answer to a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// One per row: whether the loss sees it.
    pub keep: Vec<bool>,
    /// Weight of each row in the loss; None means 1.
    pub weights: Option<Vec<f64>>,
    /// Preference pairs.
    pub pairs: Option<Pairs>,
    /// Texts to replace.
    pub relabels: Vec<Relabel>,
    /// Groups (by index) to sample again.
    pub regenerate: Vec<u32>,
    /// Named numbers, one per row.
    pub parts: Vec<(String, Vec<f64>)>,
    /// Why rows were dropped.
    pub reasons: Vec<(u32, String)>,
}

/// Questions of one turn of a judge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// Answered all together, with those of other judges.
    pub questions: Vec<Question>,
    /// Handed back to [`Judge::resume`] as it is.
    pub memo: Vec<u8>,
}

/// What a judge does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// It has questions.
    Ask(Ask),
    /// It has decided.
    Done(Verdicts),
}

/// A judge's verdicts, in whichever forms it has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts {
    /// One score per row; NaN where `faults` says why.
    pub scores: Option<Vec<f64>>,
    /// Preferences between rows.
    pub pairs: Option<PairVerdicts>,
    /// A matrix per group.
    pub matrices: Option<MatrixVerdicts>,
    /// A text per row.
    pub rationales: Option<Texts>,
    /// Named components, one value per row.
    pub parts: Vec<(String, Vec<f64>)>,
    /// Rows without a verdict: `unparseable` is a status, not a number.
    pub faults: Vec<(u32, RowFault)>,
}

/// Preferences between rows `first` and `second`; all lists are equally long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairVerdicts {
    /// One row of each pair.
    pub first: Vec<u32>,
    /// The other.
    pub second: Vec<u32>,
    /// Probability that `first` is better: 0.5 is a tie.
    pub probability: Vec<f64>,
}

/// A G×G matrix for each group, row-major and skew-symmetric: entry (i, j) > 0 says i beats j.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatrixVerdicts {
    /// All groups' entries, one matrix after the other.
    pub values: Vec<f64>,
    /// For each entry whether the judge's answer could be read.
    pub readable: Vec<bool>,
}

/// What went wrong inside a plugin call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PluginFault {
    /// The guest trapped: an unreachable, a panic, an access out of bounds.
    #[error("trapped: {message}")]
    Trap {
        /// wasmtime's words, with the guest's backtrace where there is one.
        message: String,
    },
    /// The guest used up its fuel.
    #[error(
        "ran out of fuel: spent {limit_fuel} units, all it had{}",
        match rows {
            0 => String::new(),
            1 => ", on 1 row".to_owned(),
            rows => format!(", on {rows} rows"),
        }
    )]
    OutOfFuel {
        /// Fuel the call had, in wasmtime's units (about one per instruction).
        limit_fuel: u64,
        /// Rows of the call; 0 where it was not about rows.
        rows: usize,
    },
    /// The guest wanted more memory than it may have.
    #[error("ran out of memory: needs at least {asked_mib} MiB, limit {limit_mib} MiB")]
    OutOfMemory {
        /// The limit.
        limit_mib: u64,
        /// What it would have had with what it asked for last. Rounded up; more may be asked for after that.
        asked_mib: u64,
    },
    /// The clock ran out: a guard against hangs, not part of a plugin's result.
    #[error("missed its deadline of {limit_ms} ms")]
    DeadlineMissed {
        /// The limit.
        limit_ms: u64,
    },
    /// The answer has the wrong length.
    #[error("returned {got} {what}, expected {expected}")]
    WrongCount {
        /// Which list.
        what: String,
        /// Its length by the batch.
        expected: usize,
        /// Its length in the answer.
        got: usize,
    },
    /// The answer holds NaN or an infinity.
    #[error("returned {value} as {what} of row {row}")]
    NonFinite {
        /// Which list.
        what: String,
        /// Row of the batch.
        row: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// The answer breaks another rule of the interface: ends that decrease, rows out of range, invalid UTF-8, too large.
    #[error("returned a malformed answer: {message}")]
    BadOutput {
        /// Which rule.
        message: String,
    },
    /// The plugin itself answered with a fault for the whole batch.
    #[error("answered `{code}`: {message}")]
    Fault {
        /// The plugin's code.
        code: String,
        /// Its message.
        message: String,
    },
    /// The host failed, not the plugin.
    #[error("the plugin host failed: {message}")]
    Host {
        /// What happened.
        message: String,
    },
}

impl PluginFault {
    /// Stable code, as in row faults and in `--json` errors (there with `plugin.` before it).
    pub fn code(&self) -> &str {
        match self {
            PluginFault::Trap { .. } => "trap",
            PluginFault::OutOfFuel { .. } => "out_of_fuel",
            PluginFault::OutOfMemory { .. } => "out_of_memory",
            PluginFault::DeadlineMissed { .. } => "deadline",
            PluginFault::WrongCount { .. } => "wrong_count",
            PluginFault::NonFinite { .. } => "non_finite",
            PluginFault::BadOutput { .. } => "bad_output",
            PluginFault::Fault { code, .. } => code,
            PluginFault::Host { .. } => "host",
        }
    }
}

/// A call into a plugin failed: which plugin, in which export, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{plugin} failed in `{export}`")]
pub struct PluginError {
    /// Which plugin.
    pub plugin: PluginId,
    /// Which of its exports.
    pub export: &'static str,
    /// Why.
    #[source]
    pub fault: PluginFault,
}

/// An answer that may still be computed elsewhere.
pub struct Pending<T>(Box<dyn FnOnce() -> T + Send>);

impl<T: Send + 'static> Pending<T> {
    /// An answer that is there already.
    pub fn ready(value: T) -> Self {
        Pending(Box::new(move || value))
    }

    /// An answer that `wait` will fetch, from a channel for instance.
    pub fn new(fetch: impl FnOnce() -> T + Send + 'static) -> Self {
        Pending(Box::new(fetch))
    }

    /// Blocks until the answer is there.
    pub fn wait(self) -> T {
        (self.0)()
    }
}

/// What all kinds of plugins have in common.
pub trait Plugin: Send + Sync {
    /// Which plugin this is.
    fn id(&self) -> &PluginId;

    /// Ends a step: what calls of the step wrote to the plugin's `kv` becomes visible, in the order of row ids.
    fn end_step(&self) {}

    /// Takes the numbers of the step that ended last, without the plugin's name: what the plugin reported by itself, counts
    /// summed and observations as their mean, and what is known of its calls (`calls`, `rows`, `retries`, `fuel`). Each is given
    /// once; empty when the step had no calls. They do not depend on threads or on the order of calls.
    fn take_metrics(&self) -> Vec<(String, f64)> {
        Vec::new()
    }

    /// Seconds that workers have spent in this plugin's calls so far; None when it is not measured.
    fn busy_s(&self) -> Option<f64> {
        None
    }

    /// What must survive a checkpoint: `kv`, and what the plugin's own `state.save` wrote. None without state.
    fn save_state(&self) -> Result<Option<Vec<u8>>, PluginError> {
        Ok(None)
    }

    /// Takes back what [`Plugin::save_state`] gave.
    fn load_state(&self, _state: &[u8]) -> Result<(), PluginError> {
        Ok(())
    }

    /// Takes over from another generation what its [`Plugin::save_state`] gave: `kv` always; the guest's own state through its
    /// `state.load`, with the version that saved it, unless this generation has none.
    ///
    /// # Errors
    /// When the guest refuses the state; nothing is taken over then.
    fn adopt_state(&self, _state: &[u8]) -> Result<(), PluginError> {
        Ok(())
    }

    /// Forgets what calls since the last [`Plugin::end_step`] left behind (state, `kv` writes, metrics): their answers were not
    /// used, and the step asks again.
    fn retract(&self) {}

    /// Whether calls may ask models. Such plugins are called when no rollout is under way, since models are busy then.
    fn asks_models(&self) -> bool {
        false
    }
}

/// Completions to rewards. Rows are independent: splitting a batch changes nothing.
pub trait RewardFn: Plugin {
    /// Starts scoring and returns at once, so that rewards are computed while other prompts are still being decoded.
    fn submit(&self, batch: Batch) -> Pending<Result<Rewards, PluginError>>;

    /// Scores and waits.
    fn score(&self, batch: Batch) -> Result<Rewards, PluginError> {
        self.submit(batch).wait()
    }
}

/// Rewards (or advantages) of a whole step to shaped ones; sees all groups at once and may keep state.
pub trait Shaper: Plugin {
    /// Shapes the batch's `value` column.
    fn shape(&self, batch: &Batch) -> Result<Shaped, PluginError>;
}

/// Chooses the rows of a whole step that the loss sees.
pub trait Filter: Plugin {
    /// Decides over the batch's rows.
    fn select(&self, batch: &Batch) -> Result<Decision, PluginError>;
}

/// Candidates to verdicts, without input or output of its own: it asks, the runtime runs the models and resumes it.
pub trait Judge: Plugin {
    /// The first questions, or the verdicts at once.
    fn begin(&self, batch: &Arc<Batch>) -> Result<Turn, PluginError>;

    /// What follows from the answers, one for each question of the last turn.
    fn resume(&self, batch: &Arc<Batch>, memo: &[u8], answers: &[Generated]) -> Result<Turn, PluginError>;
}
