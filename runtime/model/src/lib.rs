//! `plumb-model`: language models of the Llama family: reading, writing, tokenizing, log-probabilities with gradients, and
//! sampling.
//!
//! Reading order: [`config`] and [`params`] (what a model is), [`load`](load()) and [`save`](save()) (Hugging Face folders and
//! GGUF files), [`Tokenizer`], [`engine`] (log-probabilities and gradients).

mod available;
mod chat;
mod error;
mod gguf;
mod hf;
mod load;
mod random;
mod save;
mod tokenizer;

pub mod config;
pub mod engine;
pub mod params;
pub mod rollout;

pub use available::available_memory;
pub use chat::Message;
pub use error::{Error, Result};
pub use hf::merge_adapter;
pub use load::{LoadedModel, ScoreHead, load};
pub use random::{END_OF_TEXT, random, random_from_config, random_params};
pub use save::{save, save_classifier};
pub use tokenizer::Tokenizer;
