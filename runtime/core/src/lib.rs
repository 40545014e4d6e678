//! `plumb-core`: the data and the traits that everything else agrees on. No I/O, no tensors, no WebAssembly.
//!
//! Reading order: [`batch`] (columns that plugins read), [`feedback`] (what plugins answer, and the traits `train` calls them
//! through), [`services`] (models and tools that plugins may be granted), [`rollout`] (prompts, completions, groups), [`seed`] (random streams keyed by what they are for),
//! [`recipe`] (the TOML file a run starts from).
#![forbid(unsafe_code)]

pub mod batch;
pub mod feedback;
pub mod recipe;
pub mod rollout;
pub mod seed;
pub mod services;

pub use batch::{Batch, Column, Ragged, Texts};
pub use feedback::{
    Decision, Filter, Judge, Outcome, Pending, Plugin, PluginError, PluginFault, PluginId, PluginKind, RewardFn, Rewards,
    RowFault, Shaped, Shaper, Turn, Verdicts,
};
