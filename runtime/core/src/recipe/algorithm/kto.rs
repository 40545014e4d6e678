//! Settings of Kahneman-Tversky optimization.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kahneman-Tversky optimization (Ethayarajh et al. 2024): answers that are labelled good or bad, without pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kto {
    /// Labelled answers per step, at least 2.
    pub batch_size: usize,
    /// Longest prompt and answer together, in tokens; see `truncate`.
    pub max_length: usize,
    /// Whether answers that pass `max_length` are cut at the end. Otherwise they are refused when the data is read.
    pub truncate: bool,
    /// What is done with an answer's log-ratio.
    pub loss_type: KtoLoss,
    /// Weight of the implicit KL against the reference, the policy as the stage began.
    pub beta: f64,
    /// Weight of the losses of good answers. With many more bad than good ones, raise it until desirable_weight × good is 1 to 4/3 of
    /// undesirable_weight × bad.
    pub desirable_weight: f64,
    /// Weight of the losses of bad answers.
    pub undesirable_weight: f64,
}

impl Default for Kto {
    fn default() -> Self {
        Kto {
            batch_size: 16,
            max_length: 1024,
            truncate: false,
            loss_type: KtoLoss::Kto,
            beta: 0.1,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
        }
    }
}

/// Losses over labelled answers, by TRL's names. r is an answer's log-ratio of policy to reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KtoLoss {
    /// 1 - σ(beta (r - z)) of good answers, 1 - σ(beta (z - r)) of bad ones; z is the KL of policy and reference, 0 or more, estimated from
    /// answers of other prompts.
    Kto,
    /// 1 - σ(beta r) of good answers, σ(beta r) of bad ones (D'Oosterlinck et al. 2024): without z.
    ApoZeroUnpaired,
}
