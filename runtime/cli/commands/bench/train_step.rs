//! `plumb bench train-step`: gradients and an optimizer step over given tokens, by the code that `plumb train` runs.

use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use plumb_core::recipe::{Algorithm, EngineKind, Optimizer, Stage};
use plumb_kernels::cpu::global_norm::global_norm;
use plumb_model::rollout::WeightFormat;
use plumb_train::data::Sampler;
use plumb_train::objective::registry::{self, Start};
use plumb_train::optimizer::{AdamW, clip_scale};
use plumb_train::pack::LossRow;
use plumb_train::policy::Policy;
use plumb_train::stage::StageData;
use serde_json::json;

use super::ceilings::Ceilings;
use super::model::{ModelArgs, random_prompt};
use super::report::{Report, Row, Spread};
use super::{CommonArgs, at_least, cost};
use crate::diagnostic::Diagnostic;
use crate::system;

/// Measure a training step over random tokens.
///
/// `sft` learns all tokens but the first of each sequence; `grpo` the last two thirds, against a frozen reference (`--beta 0` leaves it out);
/// `dpo` learns from pairs of sequences with one prompt, against a reference too. Sequences of a group share their prompt, which is
/// computed once. `tokens_per_s` counts all sequences in full.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb bench train-step --model smollm2 --loss sft --batch 8 --length 192
  plumb bench train-step --model random:smollm2-135m,layers=8 --loss grpo --batch 16 --group 4 --json
  plumb bench train-step --model smollm2 --loss dpo --batch 8")]
pub struct TrainStepArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    common: CommonArgs,
    /// What is minimized
    #[arg(long, value_enum, default_value_t = Loss::Sft)]
    loss: Loss,
    /// Sequences; two make a pair of dpo
    #[arg(long, default_value_t = 8, value_name = "N")]
    batch: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 192, value_name = "TOKENS")]
    length: usize,
    /// Tokens of each sequence that are its prompt [default: 1 for sft, else a third of the length]
    #[arg(long, value_name = "TOKENS")]
    prompt_tokens: Option<usize>,
    /// Sequences that share a prompt; must divide the batch [default: 1, and 2 for dpo]
    #[arg(long, value_name = "N")]
    group: Option<usize>,
    /// Weight of the KL to the reference [default: 0.04 for grpo, 0.1 for dpo]
    #[arg(long)]
    beta: Option<f64>,
}

/// Losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Loss {
    /// Negative log-likelihood
    Sft,
    /// Clipped policy gradient
    Grpo,
    /// Direct preference optimization
    Dpo,
}

/// A step's work, with what the arguments left open.
#[derive(Clone, Copy, Debug)]
struct Shape {
    loss: Loss,
    batch: usize,
    length: usize,
    prompt_tokens: usize,
    group: usize,
    beta: f64,
}

impl Shape {
    fn new(args: &TrainStepArgs) -> Result<Self, Diagnostic> {
        let TrainStepArgs { loss, batch, length, .. } = *args;
        let (prompt_tokens, group, beta) = match loss {
            Loss::Sft => (1, 1, 0.0),
            Loss::Grpo => (length / 3, 1, 0.04),
            Loss::Dpo => (length / 3, 2, 0.1),
        };
        let prompt_tokens = args.prompt_tokens.unwrap_or(prompt_tokens);
        let (group, beta) = (args.group.unwrap_or(group), args.beta.unwrap_or(beta));
        args.common.check()?;
        at_least("--batch", batch, 1)?;
        at_least("--group", group, 1)?;
        at_least("--length", length, if loss == Loss::Sft { 2 } else { 3 })?;
        at_least("--prompt-tokens", prompt_tokens, 1)?;
        let usage = |message: String| Diagnostic::usage("usage", message);
        if loss == Loss::Dpo && group != 2 {
            return Err(usage(format!("dpo learns from pairs, and `--group` is {group}")).hint("leave `--group` out"));
        }
        if !batch.is_multiple_of(group) {
            return Err(usage(format!("a batch of {batch} is no multiple of groups of {group}"))
                .hint(format!("give a multiple of {group} as `--batch`")));
        }
        if prompt_tokens >= length {
            return Err(usage(format!("prompts of {prompt_tokens} tokens leave nothing to learn of sequences of {length}"))
                .hint("give a larger `--length`"));
        }
        // A DPO of beta 0 would be a constant.
        if !(beta.is_finite() && (beta > 0.0 || (beta == 0.0 && loss != Loss::Dpo))) {
            return Err(usage(format!("`--beta {beta}` is out of range")).hint("give a number above 0, as in `--beta 0.04`"));
        }
        Ok(Shape { loss, batch, length, prompt_tokens, group, beta })
    }
}

/// Seconds of a step.
#[derive(Clone, Copy, Debug, Default)]
struct Phases {
    reference: f64,
    forward: f64,
    backward: f64,
    optimizer: f64,
    step: f64,
}

/// Runs the command.
pub fn run(args: &TrainStepArgs) -> anyhow::Result<Report> {
    let shape = Shape::new(args)?;
    let ceilings = Ceilings::measure(&args.common);
    let peak = system::PeakRss::start();
    let mut policy = Policy::new(args.model.spec()?.load()?, EngineKind::Native, args.common.precision.into());
    let (parameters, vocab) = (policy.params.data.len(), policy.params.config.vocab_size);
    if shape.length > policy.params.config.max_position_embeddings {
        let (length, limit) = (shape.length, policy.params.config.max_position_embeddings);
        return Err(plumb_model::Error::TooLong { length, limit }.into());
    }
    let rows = rows(&shape, vocab);
    let mut steps = Steps::new(&shape, &policy)?;
    steps.step(&mut policy, rows.clone())?;
    let rounds = (0..args.common.rounds).map(|_| steps.step(&mut policy, rows.clone())).collect::<anyhow::Result<Vec<_>>>()?;
    let peak_rss_mib = peak.mib();
    let ceilings = ceilings.again(&args.common);

    let tokens = shape.batch * shape.length;
    let step_s = Spread::of(rounds.iter().map(|round| round.step));
    let (run, flop) = flop(&shape, &policy, steps.reference.is_some());
    let gflop_per_s = flop / step_s.median / 1e9;
    let row = |(name, of): (&str, fn(&Phases) -> f64)| Row {
        name: name.into(),
        keys: Vec::new(),
        figures: vec![
            ("s", Spread::of(rounds.iter().map(of)).into()),
            ("step_share", Spread::of(rounds.iter().map(|round| of(round) / round.step)).median.into()),
        ],
    };
    let mut phases: Vec<(&str, fn(&Phases) -> f64)> = vec![
        ("forward", |phases| phases.forward),
        ("backward", |phases| phases.backward),
        ("optimizer", |phases| phases.optimizer),
        ("step", |phases| phases.step),
    ];
    if steps.reference.is_some() {
        phases.insert(0, ("reference", |phases| phases.reference));
    }
    Ok(Report {
        command: "train-step",
        setup: vec![
            ("model", args.model.model.clone().into()),
            ("parameters", parameters.into()),
            ("loss", shape.loss.to_possible_value().expect("no loss is hidden").get_name().into()),
            ("batch", shape.batch.into()),
            ("length", shape.length.into()),
            ("prompt_tokens", shape.prompt_tokens.into()),
            ("group", shape.group.into()),
            // What is left when each shared prompt is there once and last tokens, which predict nothing, are not run.
            ("computed_tokens", run.into()),
            ("rounds", args.common.rounds.into()),
        ],
        ceilings: Some(ceilings),
        figures: vec![
            ("tokens_per_s", Spread::of(rounds.iter().map(|round| tokens as f64 / round.step)).into()),
            ("gflop_per_s", gflop_per_s.into()),
            ("flop_share", (gflop_per_s / ceilings.gflop_per_s(WeightFormat::F32, args.common.precision)).into()),
        ],
        rows: phases.into_iter().map(row).collect(),
        peak_rss_mib,
    })
}

/// Random sequences; those of a group have one prompt.
fn rows(shape: &Shape, vocab: usize) -> Vec<LossRow> {
    let mut rows = Vec::with_capacity(shape.batch);
    let learned = shape.length - shape.prompt_tokens;
    let weight = match shape.loss {
        Loss::Sft | Loss::Grpo => 1.0 / (shape.batch * learned) as f64,
        Loss::Dpo => 2.0 / shape.batch as f64,
    };
    for group in 0..shape.batch / shape.group {
        let prompt: Arc<[u32]> = random_prompt(group as u64, shape.prompt_tokens, vocab).tokens.into();
        for i in 0..shape.group {
            let completion = random_prompt((shape.batch + group * shape.group + i) as u64, learned, vocab).tokens;
            let mut row = LossRow::new(prompt.clone(), completion, weight);
            if shape.loss == Loss::Grpo {
                row.advantages = vec![if i % 2 == 0 { 1.0 } else { -1.0 }];
            }
            rows.push(row);
        }
    }
    rows
}

/// Everything that steps need besides the policy.
struct Steps {
    stage: Stage,
    data: StageData,
    loss: Loss,
    reference: Option<Policy>,
    optimizer: AdamW,
    settings: Optimizer,
    grads: Vec<f32>,
}

impl Steps {
    fn new(shape: &Shape, policy: &Policy) -> anyhow::Result<Self> {
        let beta = json!({ "beta": shape.beta });
        let stage = json!({
            "name": "bench", "algorithm": "grpo", "max_steps": 1, "data": { "train": [] }, "grpo": beta, "dpo": beta,
        });
        Ok(Steps {
            stage: serde_json::from_value(stage)?,
            data: StageData::default(),
            loss: shape.loss,
            reference: (shape.loss != Loss::Sft && shape.beta > 0.0).then(|| policy.copy()),
            optimizer: AdamW::new(&policy.params.layout),
            settings: Optimizer::default(),
            grads: vec![0.0; policy.params.data.len()],
        })
    }

    /// One step, as the trainer makes it once there are completions and advantages.
    fn step(&mut self, policy: &mut Policy, mut rows: Vec<LossRow>) -> anyhow::Result<Phases> {
        let start = Instant::now();
        let sampler = Sampler::new(0, 0, 1, 1).expect("one row fills a step of one");
        let algorithm = match self.loss {
            Loss::Sft => Algorithm::Sft,
            Loss::Grpo => Algorithm::Grpo,
            Loss::Dpo => Algorithm::Dpo,
        };
        let start_of = Start { seed: 0, stage: &self.stage, data: &self.data, sampler };
        let objective = registry::method(algorithm).objective(start_of);
        if let Some(reference) = &mut self.reference {
            // Pairs stay together, as they do in the pass with gradients.
            let together = if self.loss == Loss::Dpo { 2 } else { 1 };
            let of_reference = reference.logprobs(&rows, together, 1.0)?;
            rows.iter_mut().zip(of_reference).for_each(|(row, logprobs)| row.ref_logprobs = logprobs);
        }
        let reference = start.elapsed().as_secs_f64();
        self.grads.fill(0.0);
        let whole = 0..rows.len();
        policy.add_gradients(&*objective, &rows, &[whole], &mut self.grads)?;
        let times = policy.take_times();
        let optimizer = Instant::now();
        let scale = clip_scale(global_norm(&self.grads), self.settings.max_grad_norm);
        let rate = self.settings.learning_rate;
        self.optimizer.step(&mut policy.params, &self.grads, scale, rate, &self.settings);
        policy.weights_changed();
        let step = start.elapsed().as_secs_f64();
        let optimizer = optimizer.elapsed().as_secs_f64();
        Ok(Phases { reference, forward: times.forward_s, backward: times.backward_s, optimizer, step })
    }
}

/// Tokens that are run in a forward pass, and operations of a step.
fn flop(shape: &Shape, policy: &Policy, with_reference: bool) -> (usize, f64) {
    let config = &policy.params.config;
    let Shape { batch, length, prompt_tokens, group, .. } = *shape;
    let groups = batch / group;
    // The last token of a sequence predicts nothing.
    let (own, last) = (length - prompt_tokens - 1, length - 1);
    let tokens = groups * prompt_tokens + batch * own;
    let attended = groups * cost::attended(0, prompt_tokens) + batch * cost::attended(prompt_tokens, last);
    // Completions of a group draw their first token from one distribution.
    let logits = groups + batch * own;
    let reference = if with_reference { cost::forward_flop(config, tokens, attended, logits) } else { 0.0 };
    (tokens, cost::training_flop(config, tokens, attended, logits) + reference)
}
