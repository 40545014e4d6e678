//! How a stage uses plugins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    #[serde(default = "weight")]
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
    #[serde(default = "weight")]
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

fn weight() -> f64 {
    1.0
}
