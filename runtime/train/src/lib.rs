//! `plumb-train`: aligns a policy by a recipe. Rewards, shapers and filters are traits of `plumb-core`; what stands behind them
//! is not known here.
//!
//! Reading order: [`trainer`] (the loop), [`objective`] (what a step learns from), [`pipeline`] (from completions to advantages),
//! [`models`] (whom plugins may ask),
//! [`run`] (what a run leaves behind). The formulas stand in `plumb-methods`.
#![forbid(unsafe_code)]

mod error;

pub mod archive;
pub mod compare;
pub mod data;
pub mod evaluation;
pub mod export;
pub mod generations;
pub mod models;
pub mod objective;
pub mod optimizer;
pub mod pack;
pub mod pipeline;
pub mod plugins;
pub mod policy;
pub mod prompt;
pub mod replay;
pub mod rescore;
pub mod run;
pub mod schedule;
pub mod stage;
pub mod trainer;

pub use error::{Error, Result};
pub use generations::control;
pub use models::ModelServer;
pub use plugins::{LoadError, PluginFactory};
pub use trainer::{Observer, Summary, TrainRequest, train};
