//! Shapers: rewards (or advantages) to shaped ones.

use serde::de::DeserializeOwned;

pub use crate::batch::{Batch, Ragged, Row};
pub use crate::descriptor::{Descriptor, Part};
pub use crate::fault::{Fault, RowFault};
pub use crate::state::State;

/// A shaper sees whole groups and may keep state in `self`.
///
/// It works on the column `value`; the attribute `stage` says whether that is a `reward` or an `advantage`. A row without a
/// value has NaN there and is passed through.
pub trait Shaper: Sized {
    /// The configuration, read from the recipe's JSON. `#[serde(default, deny_unknown_fields)]` makes a typo an error.
    type Config: DeserializeOwned;
    /// What the plugin says about itself.
    const DESCRIPTOR: Descriptor;

    /// Takes a configuration and checks it.
    ///
    /// # Errors
    /// [`Fault::bad_config`] for values that make no sense; the run does not start then.
    fn new(config: Self::Config) -> Result<Self, Fault>;

    /// The batch's shaped values.
    ///
    /// # Errors
    /// What concerns the whole batch; faults of single rows stand in [`Shaped::faults`].
    fn shape(&mut self, batch: &Batch) -> Result<Shaped, Fault>;
}

/// A batch's shaped values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shaped {
    /// One value per row; None where only token values are given. NaN where the row had none.
    pub values: Option<Vec<f64>>,
    /// One value per completion token.
    pub token_values: Option<Ragged<f32>>,
    /// Named components.
    pub parts: Vec<Part>,
    /// Rows without a value.
    pub faults: Vec<RowFault>,
}

impl Shaped {
    /// Adds a named component.
    #[must_use]
    pub fn part(mut self, name: impl Into<String>, values: Vec<f64>) -> Self {
        self.parts.push(Part::new(name, values));
        self
    }
}

impl From<Vec<f64>> for Shaped {
    fn from(values: Vec<f64>) -> Self {
        Shaped { values: Some(values), ..Shaped::default() }
    }
}

/// Exports a [`Shaper`] as this crate's plugin.
#[macro_export]
macro_rules! export_shaper {
    ($plugin:ty) => {
        $crate::__export!(shaper, $plugin);
    };
}

/// Exports a [`Shaper`] with [`State`] as this crate's plugin.
#[macro_export]
macro_rules! export_stateful_shaper {
    ($plugin:ty) => {
        $crate::__export!(stateful_shaper, $plugin);
    };
}
