//! Settings of online direct preference optimization.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Online and iterative DPO (Guo et al. 2024, Dong et al. 2024): completions are sampled as `rollout` says, two of a prompt become a pair by their shaped
/// rewards, and the loss is that of `dpo`, whose `batch_size`, `max_length` and `truncate` mean nothing here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnlineDpo {
    /// Which two completions of a prompt become its pair; no pair where their rewards are equal.
    pub pairing: Pairing,
    /// Steps of a round: the reference becomes the policy at the beginning of each. 0 keeps the policy as the stage began.
    pub reference_update_steps: u64,
}

/// Which two completions of a prompt become its pair, the one with the greater reward as the chosen one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// The best and the worst.
    #[default]
    MaxMin,
    /// The best and another one.
    MaxRandom,
    /// The best and the second best.
    MaxMax,
    /// Any two.
    Random,
}
