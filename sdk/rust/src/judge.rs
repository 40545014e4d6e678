//! Judges: candidates to verdicts, by way of questions that the runtime puts to models.

use serde::de::DeserializeOwned;

pub use crate::batch::{Batch, Ragged, Row, Texts};
pub use crate::descriptor::{Descriptor, Part};
pub use crate::fault::{Fault, RowFault};
pub use crate::models::{Generated, Sampling};

/// A judge has no input or output of its own: it asks, the runtime runs the models and resumes it, maybe in another instance.
/// So what it needs to remember goes into [`Ask::memo`], and no thread waits on a device.
pub trait Judge: Sized {
    /// The configuration, read from the recipe's JSON. `#[serde(default, deny_unknown_fields)]` makes a typo an error.
    type Config: DeserializeOwned;
    /// What the plugin says about itself.
    const DESCRIPTOR: Descriptor;

    /// Takes a configuration and checks it.
    ///
    /// # Errors
    /// [`Fault::bad_config`] for values that make no sense; the run does not start then.
    fn new(config: Self::Config) -> Result<Self, Fault>;

    /// The first questions, or the verdicts at once.
    ///
    /// # Errors
    /// What concerns the whole batch.
    fn begin(&self, batch: &Batch) -> Result<Turn, Fault>;

    /// What follows from the answers, one for each question of the last turn.
    ///
    /// # Errors
    /// What concerns the whole batch.
    fn resume(&self, batch: &Batch, memo: &[u8], answers: &[Generated]) -> Result<Turn, Fault>;
}

/// What a judge does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// It has questions.
    Ask(Ask),
    /// It has decided.
    Done(Verdicts),
}

/// Questions of one turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// Answered all together.
    pub questions: Vec<Question>,
    /// Handed back to [`Judge::resume`] as it is.
    pub memo: Vec<u8>,
}

/// Prompts for one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Name of the model in the recipe: `policy`, `reference`, ...
    pub model: String,
    /// One or more prompts.
    pub prompts: Texts,
    /// How to sample.
    pub sampling: Sampling,
}

/// A judge's verdicts, in whichever forms it has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts {
    /// One score per row.
    pub scores: Option<Vec<f64>>,
    /// Preferences between rows.
    pub pairs: Option<PairVerdicts>,
    /// A matrix per group.
    pub matrices: Option<MatrixVerdicts>,
    /// A text per row.
    pub rationales: Option<Texts>,
    /// Named components.
    pub parts: Vec<Part>,
    /// Rows without a verdict.
    pub faults: Vec<RowFault>,
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

/// Exports a [`Judge`] as this crate's plugin.
#[macro_export]
macro_rules! export_judge {
    ($plugin:ty) => {
        $crate::__export!(judge, $plugin);
    };
}
