//! Hugging Face folders: `config.json`, `model.safetensors` (sharded too), `tokenizer.json`, the chat template.

mod adapter;
mod config;
mod weights;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::load::{LoadedModel, ScoreHead};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

pub use adapter::merge_adapter;
pub(crate) use config::{FolderConfig, check, one_or_list, to_json};
pub(crate) use weights::SCORE;

/// Reads a folder's configuration, weights and tokenizer.
pub(crate) fn load(folder: &Path) -> Result<LoadedModel> {
    let (config, tokenizer) = read_without_weights(folder)?;
    let (params, head) = weights::read(folder, config.model, config.labels.as_ref().map(Vec::len))?;
    let score = config.labels.zip(head).map(|(labels, weights)| ScoreHead { labels, weights });
    Ok(LoadedModel { params, tokenizer, score })
}

/// Reads a folder's configuration and tokenizer.
pub(crate) fn read_without_weights(folder: &Path) -> Result<(FolderConfig, Tokenizer)> {
    let mut config = read_config(folder)?;
    let tokenizer = read_tokenizer(folder)?;
    tokenizer.check_ids(&config.model, &folder.join("tokenizer.json"))?;
    if config.model.eos_token_ids.is_empty() {
        config.model.eos_token_ids.extend(tokenizer.eos_token_id());
    }
    Ok((config, tokenizer))
}

/// Reads `config.json`, and the end-of-text tokens of `generation_config.json` where it has them.
fn read_config(folder: &Path) -> Result<FolderConfig> {
    let path = folder.join("config.json");
    let mut config = config::from_json(&read_object(&path)?, &path)?;
    let path = folder.join("generation_config.json");
    if path.is_file() {
        // What `generate` stops at; chat models list more tokens here than in `config.json`.
        let eos = config::token_ids(&read_object(&path)?, "eos_token_id", &path)?;
        if !eos.is_empty() {
            config.model.eos_token_ids = eos;
            check(&config.model).map_err(|reason| malformed(&path, reason))?;
        }
    }
    Ok(config)
}

/// Reads `tokenizer.json` and what belongs to it: `tokenizer_config.json` and `chat_template.jinja`, where they are.
fn read_tokenizer(folder: &Path) -> Result<Tokenizer> {
    let optional = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let config = optional("tokenizer_config.json").map_or(Ok(Map::new()), |path| read_object(&path))?;
    let template = match optional("chat_template.jinja") {
        Some(path) => Some(read_text(&path)?),
        None => template_in(&config),
    };
    let path = folder.join("tokenizer.json");
    let json = read_text(&path)?;
    Tokenizer::new(json, config, template).map_err(|error| malformed(&path, error.to_string()))
}

/// The template inside `tokenizer_config.json`: one text, or a list of named ones of which `default` is meant for chat.
fn template_in(config: &Map<String, Value>) -> Option<String> {
    let text = match config.get("chat_template")? {
        Value::Array(named) => named.iter().find(|entry| entry["name"] == "default")?.get("template")?,
        text => text,
    };
    text.as_str().map(str::to_owned)
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| malformed(path, format!("it is not UTF-8: {error}")))
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_str(&read_text(path)?).map_err(|error| malformed(path, format!("not a JSON object: {error}")))
}

fn malformed(path: &Path, reason: String) -> Error {
    Error::Malformed { path: PathBuf::from(path), reason }
}
