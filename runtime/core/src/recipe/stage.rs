//! A stage: its data, its optimizer, its evaluation, and what it uses.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::algorithm::{Cpo, Distill, Dpo, Grpo, Kto, OnlineDpo, Orpo, Raft, RewardModel, Rollout, Sft, Simpo};
use super::plugin::{FilterUse, JudgeUse, PluginUse, RewardUse, ScheduledSwap, ShaperUse};

/// One stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Name in metrics and reports.
    pub name: String,
    /// What is done.
    pub algorithm: Algorithm,
    /// Optimizer steps of the stage.
    pub max_steps: u64,
    /// Prompts and answers.
    pub data: Data,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Stage `sft`: how a batch is made.
    #[serde(default)]
    pub sft: Sft,
    /// Stage `dpo`: how a batch is made, and the loss.
    #[serde(default)]
    pub dpo: Dpo,
    /// Stage `kto`: how a batch is made, and the loss.
    #[serde(default)]
    pub kto: Kto,
    /// Stage `orpo`: how a batch is made, and the loss.
    #[serde(default)]
    pub orpo: Orpo,
    /// Stage `cpo`: how a batch is made, and the loss.
    #[serde(default)]
    pub cpo: Cpo,
    /// Stage `simpo`: how a batch is made, and the loss.
    #[serde(default)]
    pub simpo: Simpo,
    /// Stage `distill`: the teacher, and the loss.
    #[serde(default)]
    pub distill: Distill,
    /// Stage `reward-model`: how a batch is made, and the loss.
    #[serde(default)]
    pub reward_model: RewardModel,
    /// Stage `raft`: which completions are learned.
    #[serde(default)]
    pub raft: Raft,
    /// Stage `online-dpo`: its rounds; the loss is that of `dpo`.
    #[serde(default)]
    pub online_dpo: OnlineDpo,
    /// Stages `grpo`, `rloo`, `reinforce`, `reinforce-plus-plus`, `raft`, `online-dpo` and, with `source = "policy"`, `distill`: how completions are sampled.
    #[serde(default)]
    pub rollout: Rollout,
    /// Stages `grpo`, `rloo`, `reinforce` and `reinforce-plus-plus`: the loss.
    #[serde(default)]
    pub grpo: Grpo,
    /// Reward plugins; their weighted sum is the raw reward.
    #[serde(default)]
    pub rewards: Vec<RewardUse>,
    /// Judges; each adds to the raw reward like a reward plugin.
    #[serde(default)]
    pub judges: Vec<JudgeUse>,
    /// Shapers, applied in order.
    #[serde(default)]
    pub shapers: Vec<ShaperUse>,
    /// Filters, applied in order.
    #[serde(default)]
    pub filters: Vec<FilterUse>,
    /// Plugins that are replaced at given steps of the stage.
    #[serde(default)]
    pub swaps: Vec<ScheduledSwap>,
    /// Held-out evaluation.
    #[serde(default)]
    pub eval: Option<Eval>,
}

impl Stage {
    /// The plugins that are asked in its steps: rewards, judges, shapers, filters.
    pub fn plugins(&self) -> impl Iterator<Item = &PluginUse> {
        let rewards = self.rewards.iter().map(|reward| &reward.plugin);
        let judges = self.judges.iter().map(|judge| &judge.plugin);
        let shapers = self.shapers.iter().map(|shaper| &shaper.plugin);
        let filters = self.filters.iter().map(|filter| &filter.plugin);
        rewards.chain(judges).chain(shapers).chain(filters)
    }
}

/// What a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Supervised fine-tuning on the completions of the data.
    Sft,
    /// Group-relative policy optimization on sampled completions.
    Grpo,
    /// Policy gradient on sampled completions, each against the mean of the others of its prompt (Ahmadian et al. 2024); settings in `grpo`.
    Rloo,
    /// Policy gradient on sampled completions against the step's mean reward (Williams 1992); settings in `grpo`.
    Reinforce,
    /// The same with rewards normalized over the step (Hu et al. 2025, REINFORCE++); settings in `grpo`, whose `beta` is that of the KL term.
    ReinforcePlusPlus,
    /// Direct preference optimization on the pairs of the data.
    Dpo,
    /// Reward-ranked fine-tuning: supervised fine-tuning on the best of sampled completions.
    Raft,
    /// Direct preference optimization on the best and the worst of sampled completions.
    OnlineDpo,
    /// Kahneman-Tversky optimization on labelled answers.
    Kto,
    /// Odds-ratio preference optimization on the pairs of the data, without a reference.
    Orpo,
    /// Contrastive preference optimization on the pairs of the data, without a reference.
    Cpo,
    /// Simple preference optimization on the pairs of the data, without a reference.
    Simpo,
    /// Distillation of another model on completions of the data or of the policy.
    Distill,
    /// A scalar head on the model, trained to score the chosen answers of the data's pairs above the rejected ones.
    RewardModel,
}

impl Algorithm {
    /// As recipes write it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sft => "sft",
            Algorithm::Grpo => "grpo",
            Algorithm::Rloo => "rloo",
            Algorithm::Reinforce => "reinforce",
            Algorithm::ReinforcePlusPlus => "reinforce-plus-plus",
            Algorithm::Dpo => "dpo",
            Algorithm::Raft => "raft",
            Algorithm::OnlineDpo => "online-dpo",
            Algorithm::Kto => "kto",
            Algorithm::Orpo => "orpo",
            Algorithm::Cpo => "cpo",
            Algorithm::Simpo => "simpo",
            Algorithm::Distill => "distill",
            Algorithm::RewardModel => "reward-model",
        }
    }
}

/// Prompts, and what comes with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// JSONL or Parquet files with `prompt` (a text, or TRL's list of messages) or `messages`, and `completion` for `sft` and `distill`,
    /// `chosen` and `rejected` for `dpo`, `orpo`, `cpo`, `simpo` and `reward-model` (and `margin`, a number, if any), or for `kto` either these or
    /// `completion` and `label` (true for good answers); further columns reach the plugins.
    pub train: Vec<PathBuf>,
    /// Rows to leave out at the start of the training files, after shuffling; they are for the evaluation.
    #[serde(default)]
    pub holdout: usize,
    /// Most rows to use; 0 uses all.
    #[serde(default)]
    pub max_rows: usize,
    /// How a row becomes a prompt.
    #[serde(default)]
    pub prompt: PromptFormat,
}

/// How a row becomes a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromptFormat {
    /// Whether the prompt goes through the model's chat template, as the user's message. Without, the model sees the text itself,
    /// after a begin-of-text token where its tokenizer puts one (Llama, Mistral) and the text has none.
    pub chat: bool,
    /// System message, with `chat`. None leaves the template's own default.
    pub system: Option<String>,
    /// Jinja template over the row's columns that makes the prompt text (or the user's message).
    pub template: String,
    /// Added to the completion of a row for `sft`, besides the end-of-text token.
    pub completion_prefix: String,
}

impl Default for PromptFormat {
    fn default() -> Self {
        PromptFormat { chat: true, system: None, template: "{{ prompt }}".into(), completion_prefix: String::new() }
    }
}

/// AdamW and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Added to the denominator.
    pub adam_epsilon: f64,
    /// Decoupled weight decay; applied to matrices, not to norms and biases.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; 0 leaves them.
    pub max_grad_norm: f64,
    /// What follows the warm-up.
    pub lr_scheduler_type: LrSchedule,
    /// Steps over which the rate rises from 0.
    pub warmup_steps: u64,
    /// Parts that a step's batch is divided into (in TRL it multiplies the batch instead). With `loss_type = "bnpo"` each part is
    /// averaged over its own tokens, so the loss is another one; with all others it is the same but for rounding. It is not needed
    /// to save memory: micro-batches of at most `MICRO_BATCH_TOKENS_MAX` (2048) tokens bound that anyway.
    pub gradient_accumulation_steps: usize,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer {
            learning_rate: 1e-6,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            lr_scheduler_type: LrSchedule::Linear,
            warmup_steps: 0,
            gradient_accumulation_steps: 1,
        }
    }
}

/// Course of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LrSchedule {
    /// Stays.
    Constant,
    /// Falls to 0 in a line.
    Linear,
    /// Falls to 0 in half a cosine.
    Cosine,
}

/// Held-out evaluation: greedy or sampled completions, and how many of them succeed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Eval {
    /// Files to evaluate on. Empty: the rows that `data.holdout` left out.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// Most rows; 0 uses all.
    #[serde(default)]
    pub max_rows: usize,
    /// Steps between evaluations; 0 evaluates only before the first and after the last step.
    #[serde(default)]
    pub every_steps: u64,
    /// The reward plugin that says what success is.
    pub reward: PluginUse,
    /// A row succeeds when its reward is at least this.
    #[serde(default = "success_at")]
    pub success_at: f64,
    /// 0 is greedy.
    #[serde(default)]
    pub temperature: f32,
    /// Most tokens of a completion; as in `rollout` when absent.
    #[serde(default)]
    pub max_completion_length: Option<usize>,
}

fn success_at() -> f64 {
    1.0
}
