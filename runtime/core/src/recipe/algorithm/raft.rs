//! Settings of reward-ranked fine-tuning.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Reward-ranked fine-tuning (Dong et al. 2023): completions are sampled as `rollout` says, and the best are learned as in `sft`. With many
/// completions per prompt it is best-of-n distillation, with `min_reward` rejection sampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Raft {
    /// Among which completions the best are sought.
    pub strategy: RaftStrategy,
    /// Completions of each prompt that are learned with `local`; equal ones count once.
    pub per_prompt: usize,
    /// Share of a step's completions that are learned with `global`.
    pub top_fraction: f64,
    /// Least shaped reward of a completion that is learned. Any when absent; prompts without such a completion teach nothing.
    pub min_reward: Option<f64>,
    /// Updates per batch of completions.
    pub num_iterations: u64,
}

impl Default for Raft {
    fn default() -> Self {
        Raft { strategy: RaftStrategy::Local, per_prompt: 1, top_fraction: 0.2, min_reward: None, num_iterations: 1 }
    }
}

/// Among which completions the best are sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RaftStrategy {
    /// Those of one prompt: rewards need not be comparable across prompts.
    Local,
    /// All of the step: easy prompts teach more.
    Global,
}
