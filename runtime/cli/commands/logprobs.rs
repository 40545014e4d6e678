//! `plumb logprobs`: how likely a model finds given completions.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use plumb_model::engine::{Engine, Packed, Target};
use plumb_model::{LoadedModel, Tokenizer};
use serde_json::json;

use crate::commands::precision::MatmulPrecision;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Sink;
use crate::rows;

/// Most tokens evaluated at once. Results do not depend on it, memory does.
const BATCH_TOKENS: usize = 4096;

/// Compute log-probabilities of completions.
///
/// Each input line has `prompt` and `completion`, raw text without a chat template. Each output line has the completion's
/// `tokens` (those of prompt and completion together, after the prompt's own), their `logprobs` in nats, and the `sum`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb logprobs --model SmolLM2-135M-Instruct.Q8_0.gguf --input pairs.jsonl
  plumb logprobs --model runs/quickstart/model --input pairs.jsonl --engine candle --output logprobs.jsonl")]
pub struct LogprobsArgs {
    /// A Hugging Face folder or a .gguf file
    #[arg(long)]
    pub model: PathBuf,
    /// JSONL with `prompt`, `completion` and, if wanted, `id`; `-` is stdin
    #[arg(long)]
    pub input: PathBuf,
    /// Where to write; stdout when absent
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// What computes
    #[arg(long, value_enum, default_value_t)]
    pub engine: EngineName,
    /// What the native engine's matrix products are made of
    #[arg(long, value_enum, default_value_t, value_name = "PRECISION")]
    pub precision: MatmulPrecision,
}

/// What computes log-probabilities.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum EngineName {
    /// Hand-written kernels
    #[default]
    Native,
    /// candle's autograd, the plain reference
    Candle,
}

/// A line's tokens.
struct Question {
    id: serde_json::Value,
    prompt: Vec<u32>,
    completion: Vec<u32>,
}

/// Runs the command.
pub fn run(args: &LogprobsArgs) -> anyhow::Result<ExitStatus> {
    let rows = rows::read(&args.input)?;
    let model = plumb_model::load(&args.model)?;
    let questions = rows.iter().map(|row| question(row, &args.input, &model.tokenizer)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut engine: Box<dyn Engine> = match args.engine {
        EngineName::Native => {
            Box::new(plumb_model::engine::native::NativeEngine::with_precision(&model.params.config, args.precision.into()))
        }
        EngineName::Candle => Box::new(plumb_model::engine::candle::CandleEngine::new(&model.params.config)),
    };
    let mut sink = Sink::open(args.output.as_deref())?;
    let mut rest = &questions[..];
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(batch_len(rest));
        for (question, logprobs) in batch.iter().zip(evaluate(batch, &model, engine.as_mut())?) {
            // Summed in double precision: a long completion's sum would lose digits in single.
            let sum: f64 = logprobs.iter().map(|logprob| f64::from(*logprob)).sum();
            let line =
                json!({ "id": question.id, "tokens": question.completion, "logprobs": rows::json_f32s(&logprobs), "sum": sum });
            sink.line(&line.to_string())?;
        }
        rest = after;
    }
    sink.finish()?;
    Ok(ExitStatus::Success)
}

/// Tokens = encode(prompt + completion) after the prompt's own tokens.
fn question(row: &rows::Row, path: &Path, tokenizer: &Tokenizer) -> anyhow::Result<Question> {
    let (prompt, completion) = (row.text("prompt", path)?, row.text("completion", path)?);
    let place = || format!("`{}`, line {}", path.display(), row.line);
    let prompt_tokens = tokenizer.encode(prompt).with_context(place)?;
    let mut all = tokenizer.encode(&format!("{prompt}{completion}")).with_context(place)?;
    if prompt_tokens.is_empty() && !all.is_empty() {
        let error = Diagnostic::resource("input.empty_prompt", format!("{}: the prompt has no tokens", place()));
        return Err(error
            .hint("the first token needs one before it: begin the prompt with the model's begin-of-text token")
            .into());
    }
    let completion = all.split_off(prompt_tokens.len().min(all.len()));
    Ok(Question { id: row.id(), prompt: all, completion })
}

/// How many of the questions go into one batch: at least one.
fn batch_len(questions: &[Question]) -> usize {
    let mut tokens = 0;
    let fits = questions.iter().take_while(|question| {
        tokens += question.prompt.len() + question.completion.len();
        tokens <= BATCH_TOKENS
    });
    fits.count().max(1)
}

fn evaluate(batch: &[Question], model: &LoadedModel, engine: &mut dyn Engine) -> anyhow::Result<Vec<Vec<f32>>> {
    let (mut packed, mut targets) = (Packed::default(), Vec::new());
    for question in batch.iter().filter(|question| !question.completion.is_empty()) {
        let tokens: Vec<u32> = question.prompt.iter().chain(&question.completion).copied().collect();
        let first = packed.tokens.len() + question.prompt.len() - 1;
        packed.push(&tokens, None);
        targets
            .extend(question.completion.iter().enumerate().map(|(i, token)| Target { row: (first + i) as u32, token: *token }));
    }
    let mut logprobs = if targets.is_empty() {
        Vec::new().into_iter()
    } else {
        engine.evaluate(&model.params, &packed, &targets, 1.0)?.logprobs.into_iter()
    };
    Ok(batch.iter().map(|question| logprobs.by_ref().take(question.completion.len()).collect()).collect())
}
