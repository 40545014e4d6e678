//! The recipe: one TOML file that says what a run does. Names and defaults follow TRL where TRL has them.
//!
//! Paths in a recipe are relative to the recipe's own folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A whole run: a model and one or more stages over it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run, for the report and the default run directory.
    pub name: String,
    /// A sentence for people.
    #[serde(default)]
    pub description: String,
    /// Seed of every random stream.
    #[serde(default)]
    pub seed: u64,
    /// The policy to begin with.
    pub model: ModelSource,
    /// Computes log-probabilities and gradients: `native` (hand-written, fast) or `candle` (plain autograd, the reference).
    #[serde(default)]
    pub engine: EngineKind,
    /// What the matrix products of the native engine and of rollouts are made of, by PyTorch's names.
    #[serde(default)]
    pub matmul_precision: MatmulPrecision,
    /// When to save.
    #[serde(default)]
    pub checkpoints: Checkpoints,
    /// Models that plugins may be granted, by name, besides `policy` and `reference`.
    #[serde(default)]
    pub models: BTreeMap<String, ModelUse>,
    /// Tools that plugins may be granted, by name.
    #[serde(default)]
    pub tools: BTreeMap<String, ToolUse>,
    /// When a plugin that fails is taken out of service.
    #[serde(default)]
    pub circuit: Circuit,
    /// Whose plugins this run accepts.
    #[serde(default)]
    pub trust: Trust,
    /// What to do, in order; each stage goes on with the policy of the one before.
    pub stages: Vec<Stage>,
}

/// Where the policy comes from: exactly one of `path` and `random`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSource {
    /// A Hugging Face folder (`config.json`, `model.safetensors`, `tokenizer.json`) or a GGUF file.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// A new model with random weights and a tokenizer of single characters.
    #[serde(default)]
    pub random: Option<RandomModel>,
}

/// A small transformer of the Llama family made on the spot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomModel {
    /// The characters it can read and write; an end-of-text token is added.
    pub alphabet: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; as many as query heads when absent.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Longest sequence.
    #[serde(default = "default::max_position_embeddings")]
    pub max_position_embeddings: usize,
    /// Standard deviation of the weights.
    #[serde(default = "default::initializer_range")]
    pub initializer_range: f64,
}

/// A model that plugins may ask: exactly one of `path` and `lagged`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelUse {
    /// A Hugging Face folder or a GGUF file. A folder of a sequence-classification model (`score.weight`) serves scores.
    pub path: Option<PathBuf>,
    /// A PEFT adapter (LoRA folder) to add to `path`. The same path without adapter under another name is the model with it off.
    pub adapter: Option<PathBuf>,
    /// A copy of the policy that is renewed after every so many steps of a stage.
    pub lagged: Option<u64>,
}

/// A tool that plugins may call: exactly one of `builtin` and `plugin`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ToolUse {
    /// A tool of the host.
    pub builtin: Option<BuiltinTool>,
    /// Name of an installed tool plugin or path of a `.wasm` file.
    pub plugin: Option<String>,
    /// Configuration of the tool. `search` takes `corpus` (a JSONL file with `text`, relative to the recipe) and `top_k`.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Limits of a tool plugin.
    pub limits: LimitsUse,
}

/// Tools of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BuiltinTool {
    /// Evaluates an arithmetic expression: `{"expression": "2 + 3 * 4"}`.
    Calculator,
    /// Ranks the documents of a corpus by BM25: `{"query": "..."}`.
    Search,
}

/// When a plugin that fails is taken out of service: its previous generation takes over, or the run stops with a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Circuit {
    /// A step counts against a plugin when more than this share of its rows failed (abstentions are no failures).
    pub max_failed_share: f64,
    /// Such steps in a row that open the circuit; 0 never opens it.
    pub failed_steps: u64,
}

impl Default for Circuit {
    fn default() -> Self {
        Circuit { max_failed_share: 0.5, failed_steps: 3 }
    }
}

/// Whose plugins a run accepts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// Public keys (ed25519, 64 hex digits) of which one must have signed each plugin. Empty accepts unsigned plugins.
    pub keys: Vec<String>,
}

/// Which engine computes log-probabilities and gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// Hand-written forward and backward.
    #[default]
    Native,
    /// candle's autograd: the plain reference.
    Candle,
}

/// What float32 matrix products are made of (`torch.set_float32_matmul_precision`). Where the processor has nothing that is faster for a lower
/// precision, they are float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MatmulPrecision {
    /// float32. The rollouts of a run have the same bits on every processor.
    Highest,
    /// Each number is the sum of two bfloat16, 16 bits of mantissa: log-probabilities move by about 1e-5.
    #[default]
    High,
    /// Each number is one bfloat16, 8 bits of mantissa: log-probabilities move by about 1e-2.
    Medium,
}

/// When checkpoints are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoints {
    /// Steps between checkpoints; 0 writes only the one at the end of each stage.
    pub save_steps: u64,
    /// Checkpoints to keep.
    pub save_total_limit: usize,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Checkpoints { save_steps: 50, save_total_limit: 2 }
    }
}

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
    /// Stage `reward-model`: how a batch is made, and the loss.
    #[serde(default)]
    pub reward_model: RewardModel,
    /// Stage `grpo`: how completions are sampled.
    #[serde(default)]
    pub rollout: Rollout,
    /// Stage `grpo`: the loss.
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
    /// Direct preference optimization on the pairs of the data.
    Dpo,
    /// A scalar head on the model, trained to score the chosen answers of the data's pairs above the rejected ones.
    RewardModel,
}

impl Algorithm {
    /// As recipes write it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sft => "sft",
            Algorithm::Grpo => "grpo",
            Algorithm::Dpo => "dpo",
            Algorithm::RewardModel => "reward-model",
        }
    }
}

/// Prompts, and what comes with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// JSONL or Parquet files with `prompt` (a text, or TRL's list of messages) or `messages`, and `completion` for `sft`, or
    /// `chosen` and `rejected` for `dpo` and `reward-model` (and there `margin`, a number, if any); further columns reach the plugins.
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
    /// Upper clip bound: 1 + epsilon_high; as `epsilon` when absent.
    pub epsilon_high: Option<f64>,
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

/// A plugin and how it is run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginUse {
    /// Name of an installed plugin (`reward-exact-match`) or path of a `.wasm` file.
    pub plugin: String,
    /// Name in the run; the plugin's own when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// The plugin's configuration.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Limits that replace those of the plugin's manifest.
    #[serde(default)]
    pub limits: LimitsUse,
    /// Models and tools that the plugin may ask. Its manifest must ask for the capability (`[needs] capabilities`), and here it is granted.
    #[serde(default)]
    pub grants: Grants,
}

/// What a plugin may ask, and how much.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Names of models: `policy`, `reference`, or of `[models]`.
    pub models: Vec<String>,
    /// Names of `[tools]`.
    pub tools: Vec<String>,
    /// Most tokens per row of a call that models may read and write for the plugin; 4096 when absent.
    pub tokens_per_row: Option<u64>,
}

/// Limits on a plugin's calls; what is absent comes from its manifest, else from the host's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsUse {
    /// Fuel per call, about one unit per instruction, besides `fuel_per_row`.
    pub fuel: Option<u64>,
    /// Fuel per row of the batch.
    pub fuel_per_row: Option<u64>,
    /// Linear memory.
    pub memory_mib: Option<u64>,
    /// Wall clock per call: a guard against hangs.
    pub deadline_ms: Option<u64>,
}

/// A reward plugin in the sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RewardUse {
    /// Which plugin.
    #[serde(flatten)]
    pub plugin: PluginUse,
    /// Its weight in the raw reward.
    #[serde(default = "default::weight")]
    pub weight: f64,
    /// What happens to a row that the plugin failed on or abstained from.
    #[serde(default)]
    pub on_fault: FaultPolicy,
    /// Points that the weight runs through, from point to point in a line; `weight` holds where there are none. Before the first and
    /// after the last it stays.
    #[serde(default)]
    pub weight_schedule: Vec<WeightAt>,
}

/// A point of a weight's schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightAt {
    /// Step of the stage, the first is 1.
    pub step: u64,
    /// Weight at that step.
    pub weight: f64,
}

/// A judge: its verdicts become a reward and columns for shapers and filters.
///
/// The reward of a row is its score; without scores, its mean probability of being preferred in the pairs, or over the readable
/// entries of its row of the matrix (1 where it wins, 0.5 for a tie, 0 where it loses).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JudgeUse {
    /// Which plugin.
    #[serde(flatten)]
    pub plugin: PluginUse,
    /// Its weight in the raw reward; with 0 it only informs shapers and filters.
    #[serde(default = "default::weight")]
    pub weight: f64,
    /// What happens to a row without a verdict.
    #[serde(default)]
    pub on_fault: FaultPolicy,
    /// As for rewards.
    #[serde(default)]
    pub weight_schedule: Vec<WeightAt>,
}

/// A plugin that is replaced when a step begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduledSwap {
    /// Step of the stage before which the plugin is replaced; the first is 1.
    pub step: u64,
    /// Name in the run of the plugin that is replaced.
    pub replace: String,
    /// What takes its place, under the same name.
    #[serde(flatten)]
    pub plugin: PluginUse,
}

/// What a row without a score means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultPolicy {
    /// The row's whole group leaves the step.
    #[default]
    DropGroup,
    /// The row leaves the step; the group's statistics are over the others.
    DropRow,
    /// The row gets this value.
    Value(f64),
    /// The run stops, with a checkpoint.
    Abort,
}

/// A shaper in the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShaperUse {
    /// Which plugin.
    #[serde(flatten)]
    pub plugin: PluginUse,
    /// What it shapes.
    #[serde(default)]
    pub shapes: ShapedValue,
    /// What a step means on which it fails as a whole.
    #[serde(default)]
    pub on_failure: StepPolicy,
}

/// What happens to a step on which a shaper or filter failed as a whole, after a second try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepPolicy {
    /// Nothing is learned from the step's rows.
    #[default]
    SkipStep,
    /// The step goes on as if the plugin were not there.
    PassThrough,
    /// The run stops, with a checkpoint.
    Abort,
}

/// What a shaper works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShapedValue {
    /// The reward, before advantages are made of it.
    #[default]
    Reward,
    /// The advantage.
    Advantage,
}

/// A filter in the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FilterUse {
    /// Which plugin.
    #[serde(flatten)]
    pub plugin: PluginUse,
    /// Which value it reads.
    #[serde(default)]
    pub reads: FilterStage,
    /// Which rows it sees.
    #[serde(default)]
    pub scope: FilterScope,
    /// What a step means on which it fails as a whole.
    #[serde(default)]
    pub on_failure: StepPolicy,
}

/// Which rows a filter sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FilterScope {
    /// The completions of each step.
    #[default]
    Step,
    /// The stage's data, before the first step, twice: the attribute `pass` is `observe` over all rows and then `select`, whose answer
    /// counts. State and `kv` last from call to call.
    Dataset,
}

/// Which value a filter reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FilterStage {
    /// Weighted sum of the rewards.
    #[default]
    Raw,
    /// After the shapers.
    Shaped,
    /// Advantages.
    Advantage,
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
    #[serde(default = "default::weight")]
    pub success_at: f64,
    /// 0 is greedy.
    #[serde(default)]
    pub temperature: f32,
    /// Most tokens of a completion; as in `rollout` when absent.
    #[serde(default)]
    pub max_completion_length: Option<usize>,
}

mod default {
    pub fn weight() -> f64 {
        1.0
    }
    pub fn max_position_embeddings() -> usize {
        256
    }
    pub fn initializer_range() -> f64 {
        0.02
    }
}
