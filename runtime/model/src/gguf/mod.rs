//! GGUF files: llama.cpp's format, with metadata, tokenizer and (quantized) weights in one file.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Parsing and dequantization are candle's.

mod config;
mod metadata;
mod vocabulary;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, TensorInfo};

use crate::config::{Architecture, ModelConfig};
use crate::load::LoadedModel;
use crate::params::{Layout, Params, TensorSpec};
use crate::{Error, Result};

use metadata::Metadata;

/// Reads configuration, weights and tokenizer.
pub(crate) fn load(path: &Path) -> Result<LoadedModel> {
    let file = File::open(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    let mut reader = BufReader::new(file);
    let content = Content::read(&mut reader).map_err(|error| broken(path, "header", &error))?;
    let metadata = Metadata::new(&content.metadata, path);
    let config = config::read(&metadata, &content, &mut reader)?;
    let tokenizer = vocabulary::read(&metadata)?;
    tokenizer.check_ids(&config, path)?;
    // All is checked before memory is taken for it: metadata may ask for any size.
    let layout = Layout::new(&config);
    for spec in layout.tensors() {
        tensor_info(&content, &ggml_name(&spec.name), &spec.shape, path)?;
    }
    let mut params = Params::zeros(config);
    for spec in layout.tensors() {
        let values = read_tensor(&content, &mut reader, &ggml_name(&spec.name), &spec.shape, path)?;
        store(&params.config, spec, &values, &mut params.data[spec.range.clone()]);
    }
    Ok(LoadedModel { params, tokenizer, score: None })
}

/// ggml's name of a tensor that Hugging Face calls `name`.
fn ggml_name(name: &str) -> String {
    let Some(block) = name.strip_prefix("model.layers.") else {
        return match name {
            "model.embed_tokens.weight" => "token_embd.weight",
            "model.norm.weight" => "output_norm.weight",
            "lm_head.weight" => "output.weight",
            other => unreachable!("layouts have no tensor `{other}`"),
        }
        .into();
    };
    let (layer, rest) = block.split_once('.').expect("a layer's tensor has a name after the layer");
    let (module, kind) = rest.rsplit_once('.').expect("a tensor is a weight or a bias");
    let module = match module {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => unreachable!("layouts have no module `{other}`"),
    };
    format!("blk.{layer}.{module}.{kind}")
}

/// Finds a tensor of that shape (`[out, in]`: candle has turned ggml's order around).
fn tensor_info<'a>(content: &'a Content, name: &str, shape: &[usize], path: &Path) -> Result<&'a TensorInfo> {
    let info = content.tensor_infos.get(name);
    let got = info.map_or(&[][..], |info| info.shape.dims());
    let mismatch = || Error::Shape { path: path.to_owned(), name: name.into(), expected: shape.into(), got: got.into() };
    info.filter(|_| got == shape).ok_or_else(mismatch)
}

/// Reads and dequantizes a tensor of that shape.
fn read_tensor(content: &Content, reader: &mut BufReader<File>, name: &str, shape: &[usize], path: &Path) -> Result<Vec<f32>> {
    let info = tensor_info(content, name, shape, path)?;
    let tensor = info.read(reader, content.tensor_data_offset, &Device::Cpu).and_then(|blocks| blocks.dequantize(&Device::Cpu));
    let values = tensor.and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
    values.map_err(|error| broken(path, &format!("tensor `{name}` ({:?})", info.ggml_dtype), &error))
}

/// Copies a tensor into the layout of Hugging Face.
///
/// Files of the `llama` architecture have the rows of queries and keys in the order of interleaved rotary pairs: row 2i + j of a
/// head is row j · `head_dim`/2 + i here, where the pair is (i, i + `head_dim`/2).
fn store(config: &ModelConfig, spec: &TensorSpec, values: &[f32], out: &mut [f32]) {
    let rotary = [".q_proj.", ".k_proj."].iter().any(|part| spec.name.contains(part));
    if !rotary || config.architecture != Architecture::Llama {
        out.copy_from_slice(values);
        return;
    }
    let (head_dim, width) = (config.head_dim, values.len() / spec.shape[0]);
    for (row, out) in out.chunks_exact_mut(width).enumerate() {
        let (head, within) = (row / head_dim, row % head_dim);
        let (half, i) = (within / (head_dim / 2), within % (head_dim / 2));
        let from = head * head_dim + 2 * i + half;
        out.copy_from_slice(&values[from * width..(from + 1) * width]);
    }
}

/// What candle says about a broken file, under the name of the thing that it could not read.
fn broken(path: &Path, what: &str, error: &candle_core::Error) -> Error {
    // The display of candle's errors may carry a backtrace on further lines.
    let reason = error.to_string();
    Error::Malformed { path: path.to_owned(), reason: format!("{what}: {}", reason.lines().next().unwrap_or_default()) }
}
