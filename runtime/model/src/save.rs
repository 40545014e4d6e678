//! Writing models as Hugging Face folders.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::hf::SCORE;
use crate::load::ScoreHead;
use crate::params::Params;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, hf};

/// Writes a folder that [`load`](crate::load()) and transformers read back with the same weights.
///
/// It has `config.json`, `generation_config.json`, `model.safetensors` (float32; tied matrices once), `tokenizer.json`,
/// `tokenizer_config.json` and, where there is a template, `chat_template.jinja`. Equal models give equal bytes. Each file is
/// written under another name, synced and then renamed, so a full disk leaves the file of before.
///
/// # Errors
/// [`Error::Io`] with the file that could not be written.
pub fn save(folder: &Path, params: &Params, tokenizer: &Tokenizer) -> Result<()> {
    save_with(folder, params, tokenizer, None)
}

/// As [`save`], as a sequence-classification model (`LlamaForSequenceClassification`, ...) with this head as `score.weight`.
///
/// # Errors
/// [`Error::Io`] with the file that could not be written.
///
/// # Panics
/// When the weights have a language head of their own: see [`Params::without_language_head`].
pub fn save_classifier(folder: &Path, params: &Params, tokenizer: &Tokenizer, head: &ScoreHead) -> Result<()> {
    assert!(params.config.tie_word_embeddings, "a classifier has no language head");
    save_with(folder, params, tokenizer, Some(head))
}

fn save_with(folder: &Path, params: &Params, tokenizer: &Tokenizer, head: Option<&ScoreHead>) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io { action: "create", path: folder.to_owned(), source })?;
    let config = &params.config;
    write_json(&folder.join("config.json"), &hf::to_json(config, head.map(|head| head.labels.as_slice())))?;
    let mut generation = Map::new();
    generation.insert("bos_token_id".into(), json!(config.bos_token_id));
    generation.insert("eos_token_id".into(), hf::one_or_list(&config.eos_token_ids));
    generation.insert("pad_token_id".into(), json!(config.pad_token_id));
    generation.retain(|_, value| !value.is_null());
    write_json(&folder.join("generation_config.json"), &Value::Object(generation))?;
    write_bytes(&folder.join("tokenizer.json"), tokenizer.json().as_bytes())?;
    write_json(&folder.join("tokenizer_config.json"), &Value::Object(tokenizer.config().clone()))?;
    let template = folder.join("chat_template.jinja");
    match tokenizer.chat_template() {
        Some(source) => write_bytes(&template, source.as_bytes())?,
        // The template of a model that was here before would otherwise become this one's.
        None if template.is_file() => {
            std::fs::remove_file(&template).map_err(|source| Error::Io { action: "remove", path: template.clone(), source })?;
        }
        None => {}
    }
    write_weights(&folder.join("model.safetensors"), params, head)
}

/// Writes a safetensors file: the header's length (8 bytes, little endian), the header in JSON, the tensors' bytes.
///
/// The library's own writer makes files that only their owner may read.
fn write_weights(path: &Path, params: &Params, head: Option<&ScoreHead>) -> Result<()> {
    let mut header = Map::new();
    // transformers asks for this entry.
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    for spec in params.layout.tensors() {
        let offsets = [spec.range.start * size_of::<f32>(), spec.range.end * size_of::<f32>()];
        header.insert(spec.name.clone(), json!({"dtype": "F32", "shape": spec.shape, "data_offsets": offsets}));
    }
    if let Some(head) = head {
        let (labels, start) = (head.labels.len(), params.data.len() * size_of::<f32>());
        let offsets = [start, start + head.weights.len() * size_of::<f32>()];
        let shape = [labels, params.config.hidden_size];
        header.insert(SCORE.into(), json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}));
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Spaces up to a multiple of 8 keep the tensors aligned for readers that map the file.
    header.resize(header.len().next_multiple_of(8), b' ');
    replace(path, |partial| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(partial)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for chunk in params.data.chunks(1 << 16) {
            write_floats(&mut file, chunk)?;
        }
        head.map_or(Ok(()), |head| write_floats(&mut file, &head.weights))?;
        file.into_inner()?.sync_all()
    })
}

fn write_floats(file: &mut impl Write, values: &[f32]) -> std::io::Result<()> {
    if cfg!(target_endian = "little") {
        return file.write_all(bytemuck::cast_slice(values));
    }
    values.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value is always valid JSON");
    text.push('\n');
    write_bytes(path, text.as_bytes())
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |partial| {
        let mut file = File::create(partial)?;
        file.write_all(bytes)?;
        file.sync_all()
    })
}

/// Has `write` make a file beside `path`, and renames it to `path` when it is whole.
fn replace(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = write(&partial).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|source| {
        // Best effort: the error that matters is the one in hand.
        let _ = std::fs::remove_file(&partial);
        Error::Io { action: "write", path: path.to_owned(), source }
    })
}
