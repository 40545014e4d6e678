//! `plumb bench grpo-step`: a run of the real trainer, and where the time of its steps goes.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use plumb_core::recipe::Recipe;
use plumb_train::run::MetricSet;
use plumb_train::{ModelServer, Observer, TrainRequest};
use serde_json::{Value, json};

use super::model::{ModelArgs, ModelSpec};
use super::plugins::{ODD_BYTES, WithOddBytes, plugin_use};
use super::report::{Report, Row, Spread};
use super::{CommonArgs, at_least};
use crate::commands::rollout::Weights;
use crate::diagnostic::Diagnostic;
use crate::output::Output;
use crate::plugin_log::PluginLog;
use crate::plugins::{self, Plugins};
use crate::system;
use crate::trust::Trust;

/// Measure GRPO steps.
///
/// The trainer runs a recipe in a temporary folder, which needs room for a checkpoint (12 bytes a weight) and the model. Every completion has the
/// same number of tokens. Besides the plugins given, a built-in reward tells completions apart, so that every row has an advantage and is
/// learned from. `reward wait` is what the step waits for rewards once its completions are there; they are scored while others are decoded.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb bench grpo-step --model smollm2 --prompts 4 --group 4 --new-tokens 64
  plumb bench grpo-step --model smollm2 --input prompts.jsonl --weights bf16 --plugin reward-exact-match --plugin reward-math-answer --json")]
pub struct GrpoStepArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    common: CommonArgs,
    /// Prompts of a step
    #[arg(long, default_value_t = 4, value_name = "N")]
    prompts: usize,
    /// Completions of a prompt
    #[arg(long, default_value_t = 4, value_name = "N")]
    group: usize,
    /// Tokens of a completion
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    new_tokens: usize,
    /// JSONL with `prompt` (and what the plugins read); sums with their `answer` when absent
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Reward plugin, with its configuration as JSON; may be given several times
    #[arg(long = "plugin", value_name = "NAME|PATH[=CONFIG]")]
    plugins: Vec<String>,
    /// How the weights that sample are stored
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    weights: Weights,
    /// Weight of the KL term; 0 leaves the reference out
    #[arg(long, default_value_t = 0.04)]
    beta: f64,
}

/// The phases of a step, by the metrics that tell them.
const PHASES: [(&str, &str); 6] = [
    ("rollout", "time/rollout_s"),
    ("reward wait", "time/reward_s"),
    ("reference", "time/reference_s"),
    ("forward", "time/forward_s"),
    ("backward", "time/backward_s"),
    ("optimizer", "time/optimizer_s"),
];

/// Keeps the numbers of each step, and the peak memory before the run's end writes checkpoints.
struct Steps {
    peak: system::PeakRss,
    rounds: Vec<MetricSet>,
    peak_rss_mib: Option<f64>,
}

impl Observer for Steps {
    fn step(&mut self, metrics: &MetricSet) {
        self.rounds.push(metrics.clone());
        self.peak_rss_mib = self.peak.mib();
    }
}

/// Runs the command.
pub fn run(args: &GrpoStepArgs, output: Output) -> anyhow::Result<Report> {
    check(args)?;
    let folder = tempfile::tempdir()?;
    let spec = args.model.spec()?;
    let recipe = recipe(args, &spec, &folder)?;
    let log = Arc::new(PluginLog::new(output));
    let models = Arc::new(ModelServer::default());
    let host = plugins::host_with_models(0, Arc::clone(&log) as _, Arc::clone(&models) as _)?;
    let factory = WithOddBytes(Plugins::new(host, None, Trust::default()));
    let request = TrainRequest {
        recipe,
        recipe_dir: folder.path().to_owned(),
        run_dir: folder.path().join("run"),
        resume: false,
        models,
        interrupt: Arc::new(AtomicBool::new(false)),
    };
    let mut steps = Steps { peak: system::PeakRss::start(), rounds: Vec::new(), peak_rss_mib: None };
    plumb_train::train(&request, &factory, &mut steps)?;
    log.finish();
    // The first step makes buffers and packs the weights for the first time.
    let rounds = &steps.rounds[1..];
    let of = |name: &str| Spread::of(rounds.iter().map(|step| step.get(name).unwrap_or(0.0)));
    let share = |name: &str| {
        let shares = rounds.iter().map(|step| step.get(name).unwrap_or(0.0) / step.get("time/step_s").unwrap_or(f64::NAN));
        Spread::of(shares).median
    };
    let row = |(name, metric): (&str, &str)| Row {
        name: name.into(),
        keys: Vec::new(),
        figures: vec![("s", of(metric).into()), ("step_share", share(metric).into())],
    };
    let mut figures = vec![
        ("steps_per_min", Spread::of(rounds.iter().filter_map(|step| step.get("time/step_s")).map(|s| 60.0 / s)).into()),
        ("tokens_per_s", of("time/tokens_per_s").into()),
        ("decode_tokens_per_s", of("time/decode_tokens_per_s").into()),
        ("reward_wait_share", share("time/reward_s").into()),
    ];
    // Of the sandboxed plugins; the workers' time, also what is hidden behind decoding.
    if rounds.iter().all(|step| step.get("time/reward_busy_s").is_some()) {
        figures.push(("reward_busy_share", share("time/reward_busy_s").into()));
    }
    Ok(Report {
        command: "grpo-step",
        setup: vec![
            ("model", args.model.model.clone().into()),
            ("prompts", args.prompts.into()),
            ("group", args.group.into()),
            ("new_tokens", args.new_tokens.into()),
            ("plugins", args.plugins.len().into()),
            ("beta", args.beta.into()),
            ("rounds", args.common.rounds.into()),
        ],
        ceilings: None,
        figures,
        rows: PHASES.into_iter().chain([("step", "time/step_s")]).map(row).collect(),
        peak_rss_mib: steps.peak_rss_mib,
    })
}

fn check(args: &GrpoStepArgs) -> Result<(), Diagnostic> {
    args.common.check()?;
    at_least("--prompts", args.prompts, 1)?;
    at_least("--group", args.group, 2)?;
    at_least("--new-tokens", args.new_tokens, 1)?;
    if args.beta.is_finite() && args.beta >= 0.0 {
        return Ok(());
    }
    let beta = args.beta;
    Err(Diagnostic::usage("usage", format!("`--beta` {beta} is not a number of 0 or more")).hint("give `--beta 0.04`"))
}

/// A recipe of one stage. The temporary folder gets its prompts, where no file has them.
fn recipe(args: &GrpoStepArgs, spec: &ModelSpec, folder: &tempfile::TempDir) -> anyhow::Result<Recipe> {
    let prompts = match &args.input {
        Some(path) => std::path::absolute(path).map_err(|e| Diagnostic::io("find", path, &e))?,
        None => folder.path().join("prompts.jsonl"),
    };
    let steps = args.common.rounds + 1;
    if args.input.is_none() {
        let mut text = String::new();
        for i in 0..args.prompts * steps {
            let (a, b) = (12 + i, 7 + 3 * (i % 31));
            let prompt =
                format!("Anna has {a} apples and buys {b} more. How many apples does she have? Work it out step by step.");
            writeln!(text, "{}", json!({ "prompt": prompt, "answer": (a + b).to_string() }))?;
        }
        std::fs::write(&prompts, text).map_err(|e| Diagnostic::io("write", &prompts, &e))?;
    }
    // Loaded once before the run to learn this; the trainer reads it again.
    let chat = spec.load()?.tokenizer.has_chat_template();
    let weights = match args.weights {
        Weights::F32 => "f32",
        Weights::Bf16 => "bf16",
        Weights::Int8 => "int8",
    };
    let mut rewards: Vec<Value> = Vec::new();
    for flag in &args.plugins {
        rewards.push(serde_json::to_value(plugin_use(flag)?)?);
    }
    rewards.push(json!({ "plugin": ODD_BYTES }));
    Ok(serde_json::from_value(json!({
        "name": "bench",
        "matmul_precision": args.common.precision.name(),
        "model": spec.source,
        "checkpoints": { "save_steps": 0, "save_total_limit": 1 },
        "stages": [{
            "name": "grpo",
            "algorithm": "grpo",
            "max_steps": steps,
            "data": { "train": [prompts], "prompt": { "chat": chat } },
            "rollout": {
                "prompts_per_step": args.prompts, "num_generations": args.group, "max_completion_length": args.new_tokens,
                "ignore_eos": true, "weights": weights,
            },
            "grpo": { "beta": args.beta, "log_kl": args.beta > 0.0 },
            "rewards": rewards,
        }],
    }))?)
}
