//! `plumb model`: what a model is, and conversion to a Hugging Face folder.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Look at models and convert them.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  plumb model info SmolLM2-135M-Instruct.Q8_0.gguf
  plumb model convert SmolLM2-135M-Instruct.Q8_0.gguf --output smollm2")]
pub enum ModelCommand {
    /// Print a model's architecture, sizes and tokens
    Info {
        /// A Hugging Face folder or a .gguf file
        model: PathBuf,
    },
    /// Write a model as a Hugging Face folder with float32 weights
    Convert {
        /// A Hugging Face folder or a .gguf file
        model: PathBuf,
        /// The folder to write; must be empty or not there
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
    },
}

/// Runs the command.
pub fn run(command: &ModelCommand, output: Output) -> anyhow::Result<ExitStatus> {
    match command {
        ModelCommand::Info { model } => info(model, output),
        ModelCommand::Convert { model, output: folder } => convert(model, folder, output),
    }
}

fn info(path: &Path, output: Output) -> anyhow::Result<ExitStatus> {
    let model = plumb_model::load(path)?;
    let config = &model.params.config;
    let architecture = serde_json::to_value(config.architecture)?;
    let facts = [
        ("architecture", architecture),
        ("parameters", json!(model.params.layout.len())),
        ("vocab_size", json!(config.vocab_size)),
        ("hidden_size", json!(config.hidden_size)),
        ("intermediate_size", json!(config.intermediate_size)),
        ("num_hidden_layers", json!(config.num_hidden_layers)),
        ("num_attention_heads", json!(config.num_attention_heads)),
        ("num_key_value_heads", json!(config.num_key_value_heads)),
        ("head_dim", json!(config.head_dim)),
        ("max_position_embeddings", json!(config.max_position_embeddings)),
        ("rope_theta", json!(config.rope_theta)),
        ("rms_norm_eps", json!(config.rms_norm_eps)),
        ("tie_word_embeddings", json!(config.tie_word_embeddings)),
        ("bos_token_id", json!(config.bos_token_id)),
        ("eos_token_ids", json!(config.eos_token_ids)),
        ("chat_template", json!(model.tokenizer.has_chat_template())),
    ];
    if output.json {
        let data: serde_json::Map<String, serde_json::Value> =
            facts.into_iter().map(|(name, value)| (name.into(), value)).collect();
        output.data(json!({ "type": "model", "v": 1, "data": data }).to_string())?;
    } else {
        for (name, value) in facts {
            let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            output.data(format!("{name:<24} {value}"))?;
        }
    }
    Ok(ExitStatus::Success)
}

fn convert(path: &Path, folder: &Path, output: Output) -> anyhow::Result<ExitStatus> {
    if folder.exists() && std::fs::read_dir(folder).map_err(|e| Diagnostic::io("read", folder, &e))?.next().is_some() {
        let error = Diagnostic::usage("output.exists", format!("`{}` is not empty", folder.display()));
        return Err(error.hint("choose another folder with `--output`").into());
    }
    let model = plumb_model::load(path)?;
    std::fs::create_dir_all(folder).map_err(|e| Diagnostic::io("create", folder, &e))?;
    plumb_model::save(folder, &model.params, &model.tokenizer)?;
    output.note(format!("wrote `{}`: {} parameters in float32", folder.display(), model.params.layout.len()));
    Ok(ExitStatus::Success)
}
