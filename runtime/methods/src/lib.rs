//! `plumb-methods`: the formulas of alignment methods. No model, no file, no plugin: numbers in, numbers out.
//!
//! What a gradient flows through (losses, heads) is a candle graph of any float dtype: float32 in training, float64 where reference
//! numbers are compared. What none flows through (advantages, estimators, metrics) is plain code over [`num_traits::Float`] or f64.
//! `cargo xtask golden` holds both to numbers that independent programs computed.
#![forbid(unsafe_code)]

pub mod advantage;
pub mod constraint;
pub mod diffusion;
pub mod direction;
pub mod evaluation;
pub mod kl;
pub mod lora;
pub mod loss;
pub mod nelder_mead;
pub mod pairwise;
pub mod preference_advantage;
pub mod prompt_statistics;
pub mod rectify;
pub mod resets;
pub mod returns;
pub mod reward;
pub mod schedule;
pub mod selection;
pub mod softmax;
pub mod stats;
pub mod tabular;
#[cfg(test)]
pub(crate) mod testing;
