//! Small models to write, damage and read back.

use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use plumb_model::config::{Architecture, ModelConfig};
use plumb_model::params::Params;
use plumb_model::{LoadedModel, random_params};

/// A model that is small but wide enough for blocks of 256 weights.
pub fn config(architecture: Architecture) -> ModelConfig {
    ModelConfig {
        architecture,
        vocab_size: TOKENS.len(),
        hidden_size: 256,
        intermediate_size: 256,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 50_000.0,
        rope_scaling: None,
        max_position_embeddings: 128,
        tie_word_embeddings: architecture == Architecture::Llama,
        qkv_bias: architecture == Architecture::Qwen2,
        output_bias: false,
        qk_norm: architecture == Architecture::Qwen3,
        bos_token_id: Some(0),
        eos_token_ids: vec![1],
        pad_token_id: None,
    }
}

/// Byte-level tokens; the last are what [`MERGES`] lead to.
pub const TOKENS: [&str; 24] = [
    "<s>", "</s>", "a", "b", "c", "Ġ", "Ċ", "'", "1", "2", "3", "4", "5", "Ã", "©", "!", "<tool>", "[PAD]", "ab", "Ġa", "12",
    "123", "Ã©", "bc",
];

/// By rank.
pub const MERGES: [&str; 6] = ["a b", "Ġ a", "1 2", "12 3", "Ã ©", "b c"];

/// Random weights, biases too.
pub fn params(architecture: Architecture) -> Params {
    let mut params = random_params(config(architecture), 0.1, 3);
    params.data.iter_mut().enumerate().for_each(|(i, x)| *x += (i % 97) as f32 * 1e-4);
    params
}

/// Writes a folder with that model.
pub fn folder(path: &Path, architecture: Architecture) -> LoadedModel {
    let gguf = path.with_extension("gguf");
    let params = params(architecture);
    write_gguf(&gguf, &params, GgmlDType::F32, &[]);
    let model = plumb_model::load(&gguf).unwrap();
    plumb_model::save(path, &model.params, &model.tokenizer).unwrap();
    model
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn texts(values: &[&str]) -> Value {
    Value::Array(values.iter().map(|value| text(value)).collect())
}

/// Writes a GGUF file as llama.cpp's converter does. `changes` replace or add metadata.
pub fn write_gguf(path: &Path, params: &Params, dtype: GgmlDType, changes: &[(&str, Value)]) {
    let config = &params.config;
    let name = match config.architecture {
        Architecture::Llama | Architecture::Mistral => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    };
    let types = (0..TOKENS.len())
        .map(|id| Value::I32([(0..2, 3), (16..17, 4), (17..18, 5)].iter().find(|(ids, _)| ids.contains(&id)).map_or(1, |x| x.1)));
    let size = |value: usize| Value::U32(value as u32);
    let mut metadata = vec![
        ("general.architecture".to_owned(), text(name)),
        (format!("{name}.block_count"), size(config.num_hidden_layers)),
        (format!("{name}.context_length"), size(config.max_position_embeddings)),
        (format!("{name}.embedding_length"), size(config.hidden_size)),
        (format!("{name}.feed_forward_length"), size(config.intermediate_size)),
        (format!("{name}.attention.head_count"), size(config.num_attention_heads)),
        (format!("{name}.attention.head_count_kv"), size(config.num_key_value_heads)),
        (format!("{name}.attention.key_length"), size(config.head_dim)),
        (format!("{name}.attention.layer_norm_rms_epsilon"), Value::F32(config.rms_norm_eps as f32)),
        (format!("{name}.rope.freq_base"), Value::F32(config.rope_theta as f32)),
        ("tokenizer.ggml.model".to_owned(), text("gpt2")),
        ("tokenizer.ggml.pre".to_owned(), text("qwen2")),
        ("tokenizer.ggml.tokens".to_owned(), texts(&TOKENS)),
        ("tokenizer.ggml.token_type".to_owned(), Value::Array(types.collect())),
        ("tokenizer.ggml.merges".to_owned(), texts(&MERGES)),
        ("tokenizer.ggml.bos_token_id".to_owned(), Value::U32(0)),
        ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(1)),
        ("tokenizer.chat_template".to_owned(), text("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}")),
    ];
    for (key, value) in changes {
        metadata.retain(|(known, _)| known != key);
        metadata.push(((*key).to_owned(), value.clone()));
    }
    let tensors: Vec<(String, QTensor)> = (params.layout.tensors().iter())
        .map(|spec| {
            let mut values = params.tensor(&spec.name).to_vec();
            let rotary = spec.name.contains("q_proj") || spec.name.contains("k_proj");
            if rotary && name == "llama" {
                values = interleave(&values, spec.shape[0], config.head_dim);
            }
            let tensor = Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu).unwrap();
            // As converters do: norms and biases stay in float32.
            let dtype = if spec.shape.len() == 1 { GgmlDType::F32 } else { dtype };
            (gguf_name(&spec.name), QTensor::quantize(&tensor, dtype).unwrap())
        })
        .collect();
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut std::fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

/// The converter's order of query and key rows: the two halves of each head, one row of each in turn.
fn interleave(values: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / rows;
    let row = |i: usize| &values[i * width..(i + 1) * width];
    let heads = (0..rows).step_by(head_dim);
    heads
        .flat_map(|head| (0..head_dim / 2).flat_map(move |i| [head + i, head + head_dim / 2 + i]))
        .flat_map(|i| row(i).to_vec())
        .collect()
}

fn gguf_name(name: &str) -> String {
    let table = [
        ("model.layers.", "blk."),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ];
    table.iter().fold(name.to_owned(), |name, (theirs, ours)| name.replace(theirs, ours))
}
