//! A GGUF file's metadata to [`ModelConfig`].

use std::fs::File;
use std::io::BufReader;

use candle_core::quantized::gguf_file::Content;

use super::metadata::Metadata;
use super::read_tensor;
use crate::Result;
use crate::config::{Architecture, Llama3Rope, ModelConfig};

/// Understands the metadata; which optional tensors there are decides on biases and tied embeddings.
pub(super) fn read(metadata: &Metadata, content: &Content, reader: &mut BufReader<File>) -> Result<ModelConfig> {
    let name = metadata.required_text("general.architecture")?;
    let architecture = match name {
        // Mistral's files say `llama` too.
        "llama" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        "qwen3" => Architecture::Qwen3,
        other => return Err(metadata.unsupported(format!("architecture `{other}`; supported are llama, qwen2 and qwen3"))),
    };
    let key = |suffix: &str| format!("{name}.{suffix}");
    if metadata.size(&key("expert_count")).is_ok_and(|experts| experts.is_some()) {
        return Err(metadata.unsupported("a mixture of experts; supported are dense models".into()));
    }
    let has = |tensor: &str| content.tensor_infos.contains_key(tensor);
    let hidden_size = metadata.required_size(&key("embedding_length"))?;
    let num_attention_heads = metadata.required_size(&key("attention.head_count"))?;
    let head_dim = match metadata.size(&key("attention.key_length"))? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
        None => {
            let reason = format!(
                "the width {hidden_size} is no multiple of {num_attention_heads} heads, and `{}` is missing",
                key("attention.key_length")
            );
            return Err(metadata.malformed(reason));
        }
    };
    if metadata.size(&key("rope.dimension_count"))?.is_some_and(|dimensions| dimensions != head_dim) {
        return Err(metadata.unsupported("rotary positions on a part of each head".into()));
    }
    let context = metadata.required_size(&key("context_length"))?;
    let window = metadata.size(&key("attention.sliding_window"))?;
    let rope_theta = metadata.number(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    let mut config = ModelConfig {
        architecture,
        vocab_size: metadata.required_texts("tokenizer.ggml.tokens")?.len(),
        hidden_size,
        intermediate_size: metadata.required_size(&key("feed_forward_length"))?,
        num_hidden_layers: metadata.required_size(&key("block_count"))?,
        num_attention_heads,
        num_key_value_heads: metadata.size(&key("attention.head_count_kv"))?.unwrap_or(num_attention_heads),
        head_dim,
        rms_norm_eps: metadata.required_number(&key("attention.layer_norm_rms_epsilon"))?,
        rope_theta,
        rope_scaling: None,
        max_position_embeddings: window.map_or(context, |window| window.min(context)),
        tie_word_embeddings: !has("output.weight"),
        qkv_bias: has("blk.0.attn_q.bias"),
        output_bias: has("blk.0.attn_output.bias"),
        qk_norm: architecture == Architecture::Qwen3,
        bos_token_id: metadata.token_id("tokenizer.ggml.bos_token_id")?,
        eos_token_ids: Vec::new(),
        pad_token_id: metadata.token_id("tokenizer.ggml.padding_token_id")?,
    };
    for key in ["eos", "eot", "eom"] {
        let id = metadata.token_id(&format!("tokenizer.ggml.{key}_token_id"))?;
        config.eos_token_ids.extend(id.filter(|id| !config.eos_token_ids.contains(id)));
    }
    crate::hf::check(&config).map_err(|reason| metadata.malformed(reason))?;
    match metadata.text(&key("rope.scaling.type"))? {
        None | Some("none" | "llama3") => {}
        Some(other) => return Err(metadata.unsupported(format!("rotary scaling `{other}`; supported are none and Llama 3's"))),
    }
    if has("rope_freqs.weight") {
        let divisors = read_tensor(content, reader, "rope_freqs.weight", &[head_dim / 2], metadata.path)?;
        config.rope_scaling = Some(llama3_rope(&config, &divisors).ok_or_else(|| {
            metadata.unsupported("its rotary frequencies (`rope_freqs.weight`) are not those of Llama 3.1 to 3.3".into())
        })?);
    }
    Ok(config)
}

/// The scaling behind a file's table of frequency divisors.
///
/// Converters write the table in place of the formula's constants. All Llama 3 models have the same ones but `factor` (8 or
/// 32), which is the table's largest entry; the table they give is compared with the file's.
fn llama3_rope(config: &ModelConfig, divisors: &[f32]) -> Option<Llama3Rope> {
    let factor = divisors.iter().copied().reduce(f32::max)?;
    let scaling = Llama3Rope { factor: f64::from(factor), low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 };
    let plain = config.rope_frequencies();
    let scaled = ModelConfig { rope_scaling: Some(scaling), ..config.clone() }.rope_frequencies();
    let agrees = |((plain, scaled), divisor): ((f64, f64), &f32)| (plain / scaled / f64::from(*divisor) - 1.0).abs() < 1e-3;
    plain.into_iter().zip(scaled).zip(divisors).all(agrees).then_some(scaling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_divisors_gives_back_the_constants_of_llama3() {
        let scaling = Llama3Rope { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 };
        let mut config = crate::random::tests::tiny(Architecture::Llama);
        (config.head_dim, config.rope_theta) = (64, 500_000.0);
        let plain = config.rope_frequencies();
        config.rope_scaling = Some(scaling);
        let mut divisors: Vec<f32> =
            plain.iter().zip(config.rope_frequencies()).map(|(plain, scaled)| (plain / scaled) as f32).collect();
        config.rope_scaling = None;
        assert_eq!(llama3_rope(&config, &divisors), Some(scaling));
        divisors[20] *= 1.1;
        assert_eq!(llama3_rope(&config, &divisors), None);
    }
}
