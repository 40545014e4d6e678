//! Filters: which rows the loss sees, and how.

use serde::de::DeserializeOwned;

pub use crate::batch::{Batch, Row, Texts};
pub use crate::descriptor::{Descriptor, Part};
pub use crate::fault::Fault;

/// A filter sees all groups of a step at once.
///
/// The column `value` holds what the attribute `stage` names: `raw`, `shaped` or `advantage`. A row without a value has NaN.
pub trait Filter: Sized {
    /// The configuration, read from the recipe's JSON. `#[serde(default, deny_unknown_fields)]` makes a typo an error.
    type Config: DeserializeOwned;
    /// What the plugin says about itself.
    const DESCRIPTOR: Descriptor;

    /// Takes a configuration and checks it.
    ///
    /// # Errors
    /// [`Fault::bad_config`] for values that make no sense; the run does not start then.
    fn new(config: Self::Config) -> Result<Self, Fault>;

    /// Decides over all rows.
    ///
    /// # Errors
    /// What concerns the whole batch.
    fn select(&self, batch: &Batch) -> Result<Decision, Fault>;
}

/// A decision over a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// One per row: whether the loss sees it.
    pub keep: Vec<bool>,
    /// Weight of each row in the loss; None means 1.
    pub weights: Option<Vec<f64>>,
    /// Preference pairs over rows.
    pub pairs: Option<Pairs>,
    /// New texts for some rows.
    pub relabels: Vec<Relabel>,
    /// Groups, by index, to sample again.
    pub regenerate: Vec<u32>,
    /// Named numbers.
    pub parts: Vec<Part>,
    /// Why rows were dropped.
    pub reasons: Vec<(u32, String)>,
}

impl Decision {
    /// Keeps all of `rows` rows.
    pub fn keep_all(rows: usize) -> Self {
        Decision { keep: vec![true; rows], ..Decision::default() }
    }

    /// Drops a row and says why.
    pub fn drop_row(&mut self, row: usize, reason: impl Into<String>) {
        self.keep[row] = false;
        self.reasons.push((row as u32, reason.into()));
    }
}

/// Preference pairs over rows of the batch; all lists are equally long.
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
    /// Rows that change.
    pub rows: Vec<u32>,
    /// Their new texts.
    pub texts: Texts,
}

/// Exports a [`Filter`] as this crate's plugin.
#[macro_export]
macro_rules! export_filter {
    ($plugin:ty) => {
        $crate::__export!(filter, $plugin);
    };
}
