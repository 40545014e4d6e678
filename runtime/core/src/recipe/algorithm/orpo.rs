//! Settings of odds-ratio preference optimization.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Odds-ratio preference optimization (Hong et al. 2024): fine-tuning on the chosen answers that makes the rejected ones less likely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Orpo {
    /// Pairs per step.
    pub batch_size: usize,
    /// Longest prompt and answer together, in tokens; see `truncate`.
    pub max_length: usize,
    /// Whether answers that pass `max_length` are cut at the end. Otherwise they are refused when the data is read.
    pub truncate: bool,
    /// Weight of the odds ratio beside the likelihood of the chosen answers: the paper's lambda.
    pub beta: f64,
}

impl Default for Orpo {
    fn default() -> Self {
        Orpo { batch_size: 8, max_length: 1024, truncate: false, beta: 0.1 }
    }
}
