//! Settings of the algorithms: how batches are made, and losses.

mod cpo;
mod distill;
mod kto;
mod online_dpo;
mod orpo;
mod raft;
mod simpo;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cpo::{Cpo, CpoLoss};
pub use distill::{Distill, DistillSource, TokenDivergence};
pub use kto::{Kto, KtoLoss};
pub use online_dpo::{OnlineDpo, Pairing};
pub use orpo::Orpo;
pub use raft::{Raft, RaftStrategy};
pub use simpo::Simpo;

/// Supervised fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sft {
    /// Rows per step.
    pub batch_size: usize,
    /// Longest prompt and completion together, in tokens; longer rows are cut at the end.
    pub max_length: usize,
}

impl Default for Sft {
    fn default() -> Self {
        Sft { batch_size: 8, max_length: 1024 }
    }
}

/// Direct preference optimization (Rafailov et al. 2023) and its variants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dpo {
    /// Pairs per step.
    pub batch_size: usize,
    /// Longest prompt and answer together, in tokens; see `truncate`.
    pub max_length: usize,
    /// Whether answers that pass `max_length` are cut at the end. Otherwise they are refused when the data is read.
    pub truncate: bool,
    /// What is done with a pair's log-ratios.
    pub loss_type: DpoLoss,
    /// Weight of the implicit KL against the reference, the policy as the stage began: the higher, the nearer the policy stays.
    pub beta: f64,
    /// Share of the pairs whose labels are taken to be wrong: of `sigmoid` (conservative DPO), `robust`, `exo_pair`, `aot` and
    /// `aot_unpaired`; others ignore it. Below 0.5.
    pub label_smoothing: f64,
    /// Takes the reference's log-probabilities as 0. It is then not kept in memory, and rewards in the metrics are beta times the
    /// policy's log-probabilities.
    pub reference_free: bool,
    /// Divides a sequence's log-probability by its tokens. When absent: as TRL does, for `ipo` alone. `sigmoid` with it is TRL's `sigmoid_norm`.
    pub average_log_prob: Option<bool>,
    /// What tokens beyond the length of the pair's shorter answer count (LD-DPO, Liu et al. 2024); as all others when absent.
    pub ld_alpha: Option<f64>,
    /// Temperature of `discopop`'s blend.
    pub discopop_tau: f64,
    /// Which divergence from the reference is penalized: log-ratios x become f'(e^x) before the loss compares them (f-DPO, Wang et al. 2024). Of
    /// losses that are functions of h.
    pub f_divergence_type: FDivergence,
    /// α of `alpha_divergence`.
    pub f_alpha_divergence_coef: f64,
    /// Weight of the chosen answers' negative log-likelihood, a mean over their tokens, beside the loss (Pang et al. 2024, Liu et al. 2024).
    /// Nothing when absent. It holds up the chosen answers' likelihood, which otherwise often falls.
    pub rpo_alpha: Option<f64>,
    /// Whether the column `margin` says by how much beta h should be above 0: it is subtracted (Amini et al. 2024). Of `sigmoid`,
    /// `robust` and `hinge`.
    pub margins: bool,
}

/// Divergences of f-DPO, by TRL's names, with f'(u) of the ratio u = e^x of policy to reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FDivergence {
    /// ln u: plain DPO.
    #[default]
    ReverseKl,
    /// 1 - 1 / u.
    ForwardKl,
    /// ln(2u / (1 + u)).
    JsDivergence,
    /// (u^(α - 1) - 1) / (α - 1): the forward KL at α = 0, the reverse KL at 1.
    AlphaDivergence,
}

impl Default for Dpo {
    fn default() -> Self {
        Dpo {
            batch_size: 8,
            max_length: 1024,
            truncate: false,
            loss_type: DpoLoss::Sigmoid,
            beta: 0.1,
            label_smoothing: 0.0,
            reference_free: false,
            average_log_prob: None,
            ld_alpha: None,
            discopop_tau: 0.05,
            f_divergence_type: FDivergence::ReverseKl,
            f_alpha_divergence_coef: 0.5,
            rpo_alpha: None,
            margins: false,
        }
    }
}

impl Dpo {
    /// Whether sequences' log-probabilities are means over their tokens.
    pub fn averages(&self) -> bool {
        self.average_log_prob.unwrap_or(self.loss_type == DpoLoss::Ipo)
    }
}

/// A reward model by the Bradley-Terry loss -ln σ(chosen - rejected - margin) (Ouyang et al. 2022; margins: Touvron et al. 2023).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RewardModel {
    /// Pairs per step.
    pub batch_size: usize,
    /// Longest prompt and answer together, in tokens; see `truncate`.
    pub max_length: usize,
    /// Whether answers that pass `max_length` are cut at the end. Otherwise they are refused when the data is read.
    pub truncate: bool,
    /// Weight of (chosen + rejected)², which keeps rewards around 0 (Eisenstein et al. 2023); 0.01 is usual.
    pub center_rewards_coefficient: f64,
}

impl Default for RewardModel {
    fn default() -> Self {
        RewardModel { batch_size: 8, max_length: 1024, truncate: false, center_rewards_coefficient: 0.0 }
    }
}

/// Losses over preference pairs, by TRL's names. c and r are the log-ratios of policy to reference of the chosen and the rejected
/// answer, h = c - r and e the label smoothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DpoLoss {
    /// -(1 - e) ln σ(beta h) - e ln σ(-beta h) (Rafailov et al. 2023).
    Sigmoid,
    /// max(0, 1 - beta h) (SLiC, Zhao et al. 2023).
    Hinge,
    /// (h - 1 / (2 beta))² (Azar et al. 2023).
    Ipo,
    /// KL of σ(±beta h) from (1 - e, e) (Ji et al. 2024).
    ExoPair,
    /// -ln σ(beta c) - ½ ln σ(-beta c) - ½ ln σ(-beta r) (Chen et al. 2024).
    NcaPair,
    /// (-(1 - e) ln σ(beta h) + e ln σ(-beta h)) / (1 - 2 e) (Chowdhury et al. 2024).
    Robust,
    /// -ln σ(beta c) - ln σ(-beta r) (Jung et al. 2024, without the shift).
    BcoPair,
    /// (c - 1 / (2 beta))² + (r + 1 / (2 beta))² (Wu et al. 2024).
    SppoHard,
    /// `sigmoid` of sorted log-probability differences against the reference's sorted ones (Melnyk et al. 2024).
    #[serde(alias = "aot_pair")]
    Aot,
    /// `sigmoid` of sorted c against sorted r (Melnyk et al. 2024).
    AotUnpaired,
    /// σ(-beta c) + σ(beta r): the chosen answer gets likelier (D'Oosterlinck et al. 2024).
    ApoZero,
    /// σ(beta c) + σ(-beta h): both get less likely, the rejected one more so.
    ApoDown,
    /// Blend of the logistic and the exponential loss by σ(beta h / tau) (Lu et al. 2024).
    Discopop,
}

impl DpoLoss {
    /// Whether it is a function of h alone, so that what the two answers of a prompt have in common does not matter.
    pub fn is_of_differences(self) -> bool {
        use DpoLoss::{Discopop, ExoPair, Hinge, Ipo, Robust, Sigmoid};
        matches!(self, Sigmoid | Hinge | Ipo | ExoPair | Robust | Discopop)
    }

    /// Whether pairs are compared with each other, by rank.
    pub fn sorts(self) -> bool {
        matches!(self, DpoLoss::Aot | DpoLoss::AotUnpaired)
    }
}

/// Sampling of completions during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rollout {
    /// Prompts per step.
    pub prompts_per_step: usize,
    /// Completions per prompt.
    pub num_generations: usize,
    /// Most tokens of a completion.
    pub max_completion_length: usize,
    /// Longest prompt; rows with longer ones are refused when the data is read.
    pub max_prompt_length: usize,
    /// Divides the logits.
    pub temperature: f32,
    /// Nucleus; 1 keeps all.
    pub top_p: f32,
    /// Likeliest tokens kept; 0 keeps all.
    pub top_k: usize,
    /// Least probability relative to the likeliest token; 0 keeps all.
    pub min_p: f32,
    /// Texts that end a completion.
    pub stop: Vec<String>,
    /// Whether an end-of-text token does not end a completion: all get `max_completion_length` tokens, for measurements.
    pub ignore_eos: bool,
    /// Most sequences decoded at once. Results do not depend on it.
    pub max_batch: usize,
    /// How the weights that sample are stored. With `bf16` or `int8` decoding reads a half or a quarter of the memory, completions come from a
    /// policy that is rounded so, and the loss corrects for it: see `grpo.importance_sampling_clip_max`. Evaluations stay in `f32`.
    pub weights: RolloutWeights,
    /// Whether next tokens are guessed from what was said before while few completions are decoded: those that end late in a step, or a small
    /// `max_batch`. Results do not depend on it. Off when absent, as completions at temperature 1 seldom repeat their prompts.
    pub speculation: Option<Speculation>,
    /// Times in a step that groups which a filter wants to `regenerate` are replaced by groups of further prompts (dynamic sampling,
    /// Yu et al. 2025). Groups that are unwanted after the last time leave the step; the run goes on with what there is.
    pub max_refills: u32,
}

impl Default for Rollout {
    fn default() -> Self {
        Rollout {
            prompts_per_step: 8,
            num_generations: 8,
            max_completion_length: 512,
            max_prompt_length: 1024,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            stop: Vec::new(),
            ignore_eos: false,
            max_batch: 64,
            weights: RolloutWeights::F32,
            speculation: None,
            max_refills: 0,
        }
    }
}

/// Guesses of a completion's next tokens: what followed the last occurrence of the latest ones, in the prompt or the completion. A guess counts
/// where it is what is drawn, so completions are the same with and without (prompt lookup decoding, Saxena 2023).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Speculation {
    /// Most tokens guessed at a time.
    pub max_draft: usize,
    /// Latest tokens that must have occurred before.
    pub ngram: usize,
}

impl Default for Speculation {
    fn default() -> Self {
        Speculation { max_draft: 4, ngram: 3 }
    }
}

/// How the weights that sample are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RolloutWeights {
    /// float32: those that are trained.
    #[default]
    F32,
    /// bfloat16, rounded to nearest even.
    Bf16,
    /// Integers of 8 bits with one scale per output channel: max |w| / 127.
    Int8,
}

/// Group-relative policy optimization (Shao et al. 2024) and its variants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grpo {
    /// How token losses become one number.
    pub loss_type: LossType,
    /// Weight of the KL term against the frozen reference: the policy as the stage began.
    pub beta: f64,
    /// Whether `kl` is measured when `beta` is 0 too. False saves the reference's memory and one forward pass a step.
    pub log_kl: bool,
    /// Estimator of that KL.
    pub kl_estimator: KlEstimator,
    /// Updates per batch of completions.
    pub num_iterations: u64,
    /// Lower clip bound of the ratio: 1 - epsilon.
    pub epsilon: f64,
    /// Upper clip bound: 1 + epsilon_high; as `epsilon` when absent. With `loss_type = "cispo"` the bound itself.
    pub epsilon_high: Option<f64>,
    /// What a ratio of policy to sampler is of: a token, or the geometric mean over its completion (GSPO, Zheng et al. 2025).
    pub importance_sampling_level: ImportanceSamplingLevel,
    /// What centred rewards are divided by.
    pub scale_rewards: ScaleRewards,
    /// Whether completions cut by the token limit are left out of the loss.
    pub mask_truncated_completions: bool,
    /// Where `rollout.weights` is not `f32`: most that a token's loss is multiplied by to make up for having been sampled by another policy
    /// than is trained, exp(policy's log-probability - sampler's) (truncated importance sampling, Yao et al. 2025).
    pub importance_sampling_clip_max: f64,
}

impl Default for Grpo {
    fn default() -> Self {
        Grpo {
            loss_type: LossType::Dapo,
            beta: 0.0,
            log_kl: true,
            kl_estimator: KlEstimator::K3,
            num_iterations: 1,
            epsilon: 0.2,
            epsilon_high: None,
            importance_sampling_level: ImportanceSamplingLevel::Token,
            scale_rewards: ScaleRewards::Group,
            mask_truncated_completions: false,
            importance_sampling_clip_max: 2.0,
        }
    }
}

/// How token losses become one number, as in TRL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Mean over each completion's tokens, then over completions.
    Grpo,
    /// Sum over tokens, divided by completions × `max_completion_length` (Liu et al. 2025).
    DrGrpo,
    /// Sum over tokens, divided by the tokens of the whole step (Yu et al. 2025).
    Dapo,
    /// Sum over tokens, divided by the tokens of the local batch.
    Bnpo,
    /// As `dapo`, but the ratio is a constant weight of the log-probability, cut at `epsilon_high`, so that every token keeps its gradient
    /// (CISPO, MiniMax 2025; 5 is usual).
    Cispo,
}

/// What a ratio is of, as in TRL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceSamplingLevel {
    /// A token.
    #[default]
    Token,
    /// The mean of the log-ratios of a completion's tokens, for all of them.
    Sequence,
}

/// Estimators of KL(policy ‖ reference) per token, with d = reference - policy log-probability (Schulman 2020).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// -d.
    K1,
    /// d² / 2.
    K2,
    /// exp(d) - d - 1.
    K3,
}

/// What centred rewards are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// The group's standard deviation.
    Group,
    /// The step's standard deviation.
    Batch,
    /// 1.
    None,
}
