//! `plumb-model`: language models of the Llama family: reading, writing, tokenizing, log-probabilities with gradients, and
//! sampling.
//!
//! Reading order: [`config`] and [`params`] (what a model is), [`engine`] (log-probabilities and gradients).

mod error;

pub mod config;
pub mod engine;
pub mod params;

pub use error::{Error, Result};
