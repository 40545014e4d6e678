//! `plumb bench prefill`: prompts run through the rollout engine, up to the first token of a completion.

use clap::Args;
use plumb_core::rollout::{Prompt, SamplingParams};
use plumb_core::seed::Stream;
use plumb_model::rollout::{RolloutEngine, RolloutOptions, RolloutStats, WeightFormat};

use super::ceilings::Ceilings;
use super::model::{ModelArgs, random_prompt};
use super::report::{Report, Row, Spread};
use super::{CommonArgs, at_least, cost};
use crate::commands::rollout::Weights;
use crate::system;

/// Measure the reading of prompts.
///
/// Prompts are random tokens, each with one completion of one token, which is part of the time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb bench prefill --model smollm2 --tokens 512
  plumb bench prefill --model random:smollm2-135m --tokens 128 --batch 4 --weights bf16 --json")]
pub struct PrefillArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    common: CommonArgs,
    /// Tokens of a prompt
    #[arg(long, default_value_t = 512)]
    tokens: usize,
    /// Prompts
    #[arg(long, default_value_t = 1, value_name = "N")]
    batch: usize,
    /// How the packed weights are stored
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    weights: Weights,
}

/// Runs the command.
pub fn run(args: &PrefillArgs) -> anyhow::Result<Report> {
    args.common.check()?;
    at_least("--tokens", args.tokens, 1)?;
    at_least("--batch", args.batch, 1)?;
    let ceilings = Ceilings::measure(&args.common);
    let peak = system::PeakRss::start();
    let model = args.model.spec()?.load()?;
    let config = &model.params.config;
    let format = WeightFormat::from(args.weights);
    let mut engine = RolloutEngine::new(
        &model.params,
        RolloutOptions { weights: format, precision: args.common.precision.into(), ..RolloutOptions::from(args.batch) },
    )?;
    let prompts: Vec<Prompt> = (0..args.batch).map(|i| random_prompt(i as u64, args.tokens, config.vocab_size)).collect();
    let stream = |prompt, completion| Stream::new(0, "bench", &[prompt, completion]);
    let mut rounds = (0..=args.common.rounds)
        .map(|_| engine.generate(&model.tokenizer, &prompts, 1, &SamplingParams::neutral(1), &stream, &mut |_, _| {}));
    // The first round makes buffers and caches.
    rounds.next().transpose()?;
    let rounds = rounds.collect::<Result<Vec<RolloutStats>, _>>()?;
    let peak_rss_mib = peak.mib();
    let ceilings = ceilings.again(&args.common);

    let tokens = args.batch * args.tokens;
    let flop = cost::forward_flop(config, tokens, args.batch * cost::attended(0, args.tokens), args.batch);
    let prefill_s = Spread::of(rounds.iter().map(|stats| stats.prefill_s));
    let gflop_per_s = flop / prefill_s.median / 1e9;
    let most = ceilings.gflop_per_s(format, args.common.precision);
    let row = Row {
        name: format!("{} × {}", args.batch, args.tokens),
        keys: vec![("batch", args.batch.into()), ("tokens", args.tokens.into())],
        figures: vec![
            ("prefill_tokens_per_s", Spread::of(rounds.iter().map(|stats| tokens as f64 / stats.prefill_s)).into()),
            ("prefill_s", prefill_s.into()),
            ("gflop_per_s", gflop_per_s.into()),
            ("flop_share", (gflop_per_s / most).into()),
        ],
    };
    Ok(Report {
        command: "prefill",
        setup: vec![
            ("model", args.model.model.clone().into()),
            ("parameters", model.params.data.len().into()),
            ("weights", format!("{format:?}").to_lowercase().into()),
            ("precision", args.common.precision.name().into()),
            ("rounds", args.common.rounds.into()),
        ],
        ceilings: Some(ceilings),
        figures: Vec::new(),
        rows: vec![row],
        peak_rss_mib,
    })
}
