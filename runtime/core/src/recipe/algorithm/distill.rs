//! Settings of distillation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Distillation: the policy learns a teacher's whole distribution at each token (Hinton et al. 2015; on the policy's own samples Agarwal et al. 2024,
/// GKD). The teacher has the policy's vocabulary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Distill {
    /// The teacher: the name of a model with a `path` under `[models]`.
    pub teacher: String,
    /// Whose answers are read.
    pub source: DistillSource,
    /// What is made small at each token of them.
    pub divergence: TokenDivergence,
    /// Weight b of `generalized_js`: the teacher's share in the mixture. Above 0 and below 1.
    pub js_weight: f64,
    /// Divides the logits of both.
    pub temperature: f32,
    /// Rows per step, with `source = "data"`; else `rollout.prompts_per_step` prompts.
    pub batch_size: usize,
    /// Longest prompt and completion together of the data, in tokens; longer rows are cut at the end.
    pub max_length: usize,
}

impl Default for Distill {
    fn default() -> Self {
        Distill {
            teacher: String::new(),
            source: DistillSource::Data,
            divergence: TokenDivergence::ForwardKl,
            js_weight: 0.5,
            temperature: 1.0,
            batch_size: 8,
            max_length: 1024,
        }
    }
}

/// Whose answers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DistillSource {
    /// The completions of the data.
    Data,
    /// The policy's own, sampled as `rollout` says. Rewards are not needed; where there are some, they are measured, and filters may choose by them.
    Policy,
}

/// Divergences of a token's distribution under teacher t and student s, over the whole vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenDivergence {
    /// KL(t ‖ s): the student covers all that the teacher may say.
    ForwardKl,
    /// KL(s ‖ t): the student keeps to what the teacher prefers.
    ReverseKl,
    /// b KL(t ‖ m) + (1 - b) KL(s ‖ m), m = b t + (1 - b) s.
    GeneralizedJs,
}
