//! `plumb rollout`: completions sampled from a model, as training samples them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::{Args, ValueEnum};
use plumb_core::recipe;
use plumb_core::rollout::{Group, Prompt, SamplingParams};
use plumb_core::seed::Stream;
use plumb_model::rollout::{RolloutEngine, RolloutOptions, Speculation, WeightFormat};
use plumb_model::{Message, Tokenizer};
use serde_json::{Value, json};

use crate::commands::precision::MatmulPrecision;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::{Output, Sink};
use crate::rows::{self, Row};

/// Sample completions.
///
/// Each input line has `prompt` (or `messages`). Each output line is one completion with the columns of its input line and
/// `completion`, `index` (0 to N - 1), `tokens`, `logprobs` (nats, at the temperature) and `finish` (`stop` or `length`). The
/// same seed gives the same completions, whatever the number of threads and `--max-batch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb rollout --model smollm2 --input prompts.jsonl --num-generations 8 --max-completion-length 64 --output samples.jsonl
  plumb rollout --model runs/quickstart/model --raw --temperature 0 --max-completion-length 4 --input test.jsonl --stats stats.json")]
pub struct RolloutArgs {
    /// A Hugging Face folder or a .gguf file
    #[arg(long)]
    pub model: PathBuf,
    /// JSONL with `prompt` or `messages`; `-` is stdin
    #[arg(long)]
    pub input: PathBuf,
    /// Completions per prompt
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub num_generations: usize,
    /// Most tokens of a completion
    #[arg(long, default_value_t = 256, value_name = "TOKENS")]
    pub max_completion_length: usize,
    /// Divides the logits; 0 is greedy
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f32,
    /// Nucleus; 1 keeps all
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// Likeliest tokens kept; 0 keeps all
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Least probability relative to the likeliest token; 0 keeps all
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// Text that ends a completion; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Go on after an end-of-text token, to the most tokens
    #[arg(long)]
    pub ignore_eos: bool,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Most sequences decoded at once
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub max_batch: usize,
    /// How the packed weights are stored; completions and log-probabilities are those of the policy rounded so
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub weights: Weights,
    /// Guess up to that many next tokens at a time, from what followed the same words before, while few sequences are decoded. The completions
    /// are the same, and sooner done where they repeat themselves or the prompt
    #[arg(long, value_name = "TOKENS")]
    pub speculate: Option<usize>,
    /// Latest tokens that must have occurred before for a guess
    #[arg(long, default_value_t = recipe::Speculation::default().ngram, value_name = "TOKENS", requires = "speculate")]
    pub speculate_ngram: usize,
    /// What matrix products are made of
    #[arg(long, value_enum, default_value_t, value_name = "PRECISION")]
    pub precision: MatmulPrecision,
    /// Use the prompt as it is, without the model's chat template; a begin-of-text token is added where the model expects one
    #[arg(long)]
    pub raw: bool,
    /// Where to write; stdout when absent
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Where to write speed and memory, as JSON
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
}

/// Formats of packed weights.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Weights {
    /// float32
    #[default]
    F32,
    /// bfloat16: half the memory
    Bf16,
    /// 8 bits and a scale per output channel: a quarter of the memory
    Int8,
}

impl From<Weights> for WeightFormat {
    fn from(weights: Weights) -> Self {
        match weights {
            Weights::F32 => WeightFormat::F32,
            Weights::Bf16 => WeightFormat::Bf16,
            Weights::Int8 => WeightFormat::Int8,
        }
    }
}

/// Runs the command.
pub fn run(args: &RolloutArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let began = Instant::now();
    let rows = rows::read(&args.input)?;
    let model = plumb_model::load(&args.model)?;
    let prompt = |(i, row): (usize, &Row)| {
        let text = prompt_text(row, args, &model.tokenizer)?;
        let encoded = if args.raw { model.tokenizer.encode_prompt(&text) } else { model.tokenizer.encode(&text) };
        let tokens = encoded.with_context(|| place(&args.input, row))?;
        if tokens.is_empty() {
            return Err(Diagnostic::resource(
                "input.empty_prompt",
                format!("{}: the prompt has no tokens", place(&args.input, row)),
            )
            .into());
        }
        Ok(Prompt { id: i as u64, tokens })
    };
    let prompts = rows.iter().enumerate().map(prompt).collect::<anyhow::Result<Vec<_>>>()?;
    let sampling = SamplingParams {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        max_completion_length: args.max_completion_length,
        stop: args.stop.clone(),
        ignore_eos: args.ignore_eos,
    };
    let speculation = args.speculate.map(|max_draft| Speculation { max_draft, ngram: args.speculate_ngram });
    let options =
        RolloutOptions { max_batch: args.max_batch, weights: args.weights.into(), precision: args.precision.into(), speculation };
    let mut engine = RolloutEngine::new(&model.params, options)?;
    let bar = output.bar(prompts.len() as u64, "prompts");
    let mut groups: Vec<Option<Group>> = vec![None; prompts.len()];
    let stream = |prompt: u64, completion: u64| Stream::new(args.seed, "rollout", &[prompt, completion]);
    let generation = Instant::now();
    let stats = engine.generate(&model.tokenizer, &prompts, args.num_generations, &sampling, &stream, &mut |i, group| {
        groups[i] = Some(group);
        bar.inc(1);
    })?;
    let wall_s = generation.elapsed().as_secs_f64();
    bar.finish_and_clear();

    let mut sink = Sink::open(args.output.as_deref())?;
    for (row, group) in rows.iter().zip(&groups) {
        let group = group.as_ref().expect("each prompt's group was handed over");
        for (index, completion) in group.completions.iter().enumerate() {
            let mut line = row.columns.clone();
            line.insert("id".into(), row.id());
            line.insert("index".into(), index.into());
            line.insert("completion".into(), completion.text.clone().into());
            line.insert("tokens".into(), json!(completion.tokens));
            line.insert("logprobs".into(), rows::json_f32s(&completion.logprobs));
            line.insert("finish".into(), serde_json::to_value(completion.finish)?);
            sink.line(&Value::Object(line).to_string())?;
        }
    }
    sink.finish()?;

    let rate = |tokens: u64, seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
    let (prefill, decode) = (rate(stats.prefill_tokens, stats.prefill_s), rate(stats.decode_tokens, stats.decode_s));
    if let Some(path) = &args.stats {
        let facts = json!({
            "prefill_tokens": stats.prefill_tokens, "prefill_s": stats.prefill_s, "prefill_tokens_per_s": prefill,
            "decode_tokens": stats.decode_tokens, "decode_s": stats.decode_s, "decode_tokens_per_s": decode,
            "reused_prompt_tokens": stats.reused_tokens, "passes": stats.passes,
            "drafted_tokens": stats.drafted_tokens, "accepted_tokens": stats.accepted_tokens,
            "kv_pages_peak": stats.kv_pages_peak, "kv_page_bytes": stats.kv_page_bytes,
            "wall_s": wall_s, "total_s": began.elapsed().as_secs_f64(), "peak_rss_mib": crate::system::peak_rss_mib(),
            "prompts": prompts.len(), "completions": prompts.len() * args.num_generations, "threads": rayon::current_num_threads(),
        });
        let text = serde_json::to_string_pretty(&facts)? + "\n";
        std::fs::write(path, text).map_err(|e| Diagnostic::io("write", path, &e))?;
    }
    let completions = prompts.len() * args.num_generations;
    output
        .note(format!("{completions} completions in {wall_s:.1} s: prefill {prefill:.0} tokens/s, decode {decode:.0} tokens/s"));
    Ok(ExitStatus::Success)
}

fn place(path: &Path, row: &Row) -> String {
    format!("`{}`, line {}", path.display(), row.line)
}

/// The text that the model continues: `prompt` as it is with `--raw`, else a conversation through the chat template.
fn prompt_text(row: &Row, args: &RolloutArgs, tokenizer: &Tokenizer) -> anyhow::Result<String> {
    if args.raw {
        return Ok(row.text("prompt", &args.input)?.to_owned());
    }
    if !tokenizer.has_chat_template() {
        let error = Diagnostic::usage("model.no_chat_template", format!("`{}` has no chat template", args.model.display()));
        return Err(error.hint("continue the prompts as they are with `--raw`").into());
    }
    let conversation = || row.columns.get("prompt").filter(|prompt| prompt.is_array());
    let messages = match row.columns.get("messages").or_else(conversation) {
        Some(messages) => {
            let wrong = || format!("{}: messages must be a list of {{\"role\", \"content\"}}", place(&args.input, row));
            messages
                .as_array()
                .and_then(|list| list.iter().map(message).collect())
                .ok_or_else(|| Diagnostic::resource("input.broken_line", wrong()))?
        }
        None => vec![Message { role: "user".into(), content: row.text("prompt", &args.input)?.into() }],
    };
    tokenizer.render_chat(&messages, true).with_context(|| place(&args.input, row))
}

fn message(value: &Value) -> Option<Message> {
    let field = |name: &str| value.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    Some(Message { role: field("role")?, content: field("content")? })
}
