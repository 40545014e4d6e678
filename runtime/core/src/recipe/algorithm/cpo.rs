//! Settings of contrastive preference optimization.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Contrastive preference optimization (Xu et al. 2024): preferences without a reference, held by the likelihood of the chosen answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cpo {
    /// Pairs per step.
    pub batch_size: usize,
    /// Longest prompt and answer together, in tokens; see `truncate`.
    pub max_length: usize,
    /// Whether answers that pass `max_length` are cut at the end. Otherwise they are refused when the data is read.
    pub truncate: bool,
    /// What is done with a pair's difference of log-probabilities.
    pub loss_type: CpoLoss,
    /// Scale of that difference.
    pub beta: f64,
    /// Share of the pairs whose labels are taken to be wrong, below 0.5; of `sigmoid` alone.
    pub label_smoothing: f64,
    /// Weight of the chosen answers' negative log-likelihood, a mean over their tokens.
    #[serde(alias = "cpo_alpha")]
    pub alpha: f64,
}

impl Default for Cpo {
    fn default() -> Self {
        Cpo {
            batch_size: 8,
            max_length: 1024,
            truncate: false,
            loss_type: CpoLoss::Sigmoid,
            beta: 0.1,
            label_smoothing: 0.0,
            alpha: 1.0,
        }
    }
}

/// Losses of `cpo`, by TRL's names. h is the difference of the pair's log-probabilities, chosen - rejected, and e the label smoothing. For
/// TRL's `simpo` there is an algorithm of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CpoLoss {
    /// -(1 - e) ln σ(beta h) - e ln σ(-beta h).
    Sigmoid,
    /// max(0, 1 - beta h) (SLiC, Zhao et al. 2023).
    Hinge,
    /// (h - 1 / (2 beta))², of log-probabilities averaged over tokens (Azar et al. 2023).
    Ipo,
}
