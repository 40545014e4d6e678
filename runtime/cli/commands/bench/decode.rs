//! `plumb bench decode`: completions sampled at temperature 1 with their log-probabilities, as training samples them.

use clap::Args;
use plumb_core::rollout::{Prompt, SamplingParams};
use plumb_core::seed::Stream;
use plumb_model::LoadedModel;
use plumb_model::rollout::{RolloutEngine, RolloutOptions, RolloutStats, WeightFormat};

use super::ceilings::Ceilings;
use super::model::{ModelArgs, random_prompt};
use super::report::{Report, Row, Spread};
use super::{CommonArgs, at_least, cost};
use crate::commands::rollout::Weights;
use crate::diagnostic::Diagnostic;
use crate::system;

/// Measure the sampling of completions.
///
/// Prompts are random tokens. Every completion has the same number of tokens: an end-of-text token does not end it. `decode_tokens_per_s`
/// counts all tokens but each completion's first, over the time after the prompts; `tokens_per_s` counts all, over the whole call. Achieved
/// GB/s and GFLOP/s are those of decoding: each pass reads the weights and all keys and values once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb bench decode --model smollm2 --batch 1,16,32 --weights bf16
  plumb bench decode --model random:smollm2-135m --batch 32 --group 8 --prompt-tokens 256 --json")]
pub struct DecodeArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    common: CommonArgs,
    /// Completions decoded together; a line for each
    #[arg(long, value_delimiter = ',', default_value = "1,16,32", value_name = "N,...")]
    batch: Vec<usize>,
    /// How the packed weights are stored
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    weights: Weights,
    /// Tokens of a prompt
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    prompt_tokens: usize,
    /// Tokens of a completion
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    new_tokens: usize,
    /// Completions that share a prompt; must divide each batch
    #[arg(long, default_value_t = 1, value_name = "N")]
    group: usize,
}

/// Runs the command.
pub fn run(args: &DecodeArgs) -> anyhow::Result<Report> {
    check(args)?;
    let ceilings = Ceilings::measure(&args.common);
    let peak = system::PeakRss::start();
    let model = args.model.spec()?.load()?;
    let format = WeightFormat::from(args.weights);
    let largest = args.batch.iter().copied().max().unwrap_or(1);
    let options = RolloutOptions { weights: format, precision: args.common.precision.into(), ..RolloutOptions::from(largest) };
    let mut engine = RolloutEngine::new(&model.params, options)?;
    let mut measured = Vec::new();
    for &batch in &args.batch {
        let mut rounds = (0..=args.common.rounds).map(|_| round(&mut engine, &model, args, batch));
        // The first round makes buffers and caches.
        rounds.next().transpose()?;
        measured.push((batch, rounds.collect::<anyhow::Result<Vec<RolloutStats>>>()?));
    }
    let peak_rss_mib = peak.mib();
    let ceilings = ceilings.again(&args.common);
    let rows = measured.iter().map(|(batch, rounds)| row(args, &model, *batch, rounds, &ceilings)).collect();
    Ok(Report {
        command: "decode",
        setup: vec![
            ("model", args.model.model.clone().into()),
            ("parameters", model.params.data.len().into()),
            ("weights", format!("{format:?}").to_lowercase().into()),
            ("precision", args.common.precision.name().into()),
            ("prompt_tokens", args.prompt_tokens.into()),
            ("new_tokens", args.new_tokens.into()),
            ("group", args.group.into()),
            ("rounds", args.common.rounds.into()),
        ],
        ceilings: Some(ceilings),
        figures: Vec::new(),
        rows,
        peak_rss_mib,
    })
}

fn check(args: &DecodeArgs) -> Result<(), Diagnostic> {
    args.common.check()?;
    at_least("--prompt-tokens", args.prompt_tokens, 1)?;
    at_least("--new-tokens", args.new_tokens, 2)?;
    at_least("--group", args.group, 1)?;
    args.batch.iter().try_for_each(|&batch| at_least("--batch", batch, 1))?;
    let group = args.group;
    match args.batch.iter().find(|batch| !batch.is_multiple_of(group)) {
        Some(batch) => Err(Diagnostic::usage("usage", format!("`--batch {batch}` is no multiple of `--group {group}`"))
            .hint(format!("give multiples of {group} as `--batch`, or another `--group`"))),
        None => Ok(()),
    }
}

/// Decodes one batch.
fn round(engine: &mut RolloutEngine, model: &LoadedModel, args: &DecodeArgs, batch: usize) -> anyhow::Result<RolloutStats> {
    let vocab = model.params.config.vocab_size;
    let prompts: Vec<Prompt> = (0..batch / args.group).map(|i| random_prompt(i as u64, args.prompt_tokens, vocab)).collect();
    let sampling = SamplingParams { ignore_eos: true, ..SamplingParams::neutral(args.new_tokens) };
    let stream = |prompt, completion| Stream::new(0, "bench", &[prompt, completion]);
    Ok(engine.generate(&model.tokenizer, &prompts, args.group, &sampling, &stream, &mut |_, _| {})?)
}

fn row(args: &DecodeArgs, model: &LoadedModel, batch: usize, rounds: &[RolloutStats], ceilings: &Ceilings) -> Row {
    let config = &model.params.config;
    let format = WeightFormat::from(args.weights);
    let (passes, prompts) = (args.new_tokens - 1, batch / args.group);
    // A pass attends from each completion's last token to all before; keys and values of a shared prompt are there once.
    let of_own: usize = (1..=passes).sum();
    let attended = batch * (passes * args.prompt_tokens + of_own);
    let flop = cost::forward_flop(config, batch * passes, attended, batch * passes);
    let held = prompts * args.prompt_tokens * passes + batch * of_own;
    let bytes = passes as f64 * cost::weight_bytes(config, format) + cost::kv_bytes(config, held);

    let decode_s = Spread::of(rounds.iter().map(|stats| stats.decode_s)).median;
    let (gb_per_s, gflop_per_s) = (bytes / decode_s / 1e9, flop / decode_s / 1e9);
    let most = ceilings.gflop_per_s(format, args.common.precision);
    let decode = rounds.iter().map(|stats| stats.decode_tokens as f64 / stats.decode_s);
    let all = rounds.iter().map(|stats| (batch * args.new_tokens) as f64 / (stats.prefill_s + stats.decode_s));
    Row {
        name: format!("batch {batch}"),
        keys: vec![("batch", batch.into()), ("prompts", prompts.into())],
        figures: vec![
            ("decode_tokens_per_s", Spread::of(decode).into()),
            ("tokens_per_s", Spread::of(all).into()),
            ("gb_per_s", gb_per_s.into()),
            ("read_share", (gb_per_s / ceilings.read_gb_per_s()).into()),
            ("gflop_per_s", gflop_per_s.into()),
            ("flop_share", (gflop_per_s / most).into()),
        ],
    }
}
