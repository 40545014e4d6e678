//! The recipe: one TOML file that says what a run does. Names and defaults follow TRL where TRL has them.
//!
//! Here stands what is the whole run's; `stage` holds what every stage has, `algorithm` the settings of each algorithm, `plugin` how plugins are used.
//! Paths in a recipe are relative to the recipe's own folder.

mod algorithm;
mod plugin;
mod stage;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use algorithm::{
    Cpo, CpoLoss, Distill, DistillSource, Dpo, DpoLoss, FDivergence, Grpo, ImportanceSamplingLevel, KlEstimator, Kto, KtoLoss,
    LossType, OnlineDpo, Orpo, Pairing, Raft, RaftStrategy, RewardModel, Rollout, RolloutWeights, ScaleRewards, Sft, Simpo,
    Speculation, TokenDivergence,
};
pub use plugin::{
    FaultPolicy, FilterScope, FilterStage, FilterUse, Grants, JudgeUse, LimitsUse, PluginUse, RewardUse, ScheduledSwap,
    ShapedValue, ShaperUse, StepPolicy, WeightAt,
};
pub use stage::{Algorithm, Data, Eval, LrSchedule, Optimizer, PromptFormat, Stage};

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
    #[serde(default = "max_position_embeddings")]
    pub max_position_embeddings: usize,
    /// Standard deviation of the weights.
    #[serde(default = "initializer_range")]
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

fn max_position_embeddings() -> usize {
    256
}

fn initializer_range() -> f64 {
    0.02
}
