//! Settings of simple preference optimization.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Simple preference optimization (Meng et al. 2024): the mean log-probability of an answer's tokens is its reward; there is no reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Simpo {
    /// Pairs per step.
    pub batch_size: usize,
    /// Longest prompt and answer together, in tokens; see `truncate`.
    pub max_length: usize,
    /// Whether answers that pass `max_length` are cut at the end. Otherwise they are refused when the data is read.
    pub truncate: bool,
    /// Scale of rewards. Higher than `dpo.beta`, since rewards are per token.
    pub beta: f64,
    /// By how much the chosen answer's reward should be greater; 0.3 to 0.5 of beta is usual.
    #[serde(alias = "simpo_gamma")]
    pub gamma: f64,
}

impl Default for Simpo {
    fn default() -> Self {
        Simpo { batch_size: 8, max_length: 1024, truncate: false, beta: 2.0, gamma: 1.0 }
    }
}
