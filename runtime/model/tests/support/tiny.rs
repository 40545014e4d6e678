//! One small random model for each feature of the family, as `architectures.jsonl` names them.

use plumb_core::seed::Stream;
use plumb_model::config::{Architecture, Llama3Rope, ModelConfig};
use plumb_model::params::Params;
use plumb_model::random_params;

/// Names and weights.
pub fn models() -> Vec<(&'static str, Params)> {
    let base = ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 40,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        max_position_embeddings: 512,
        tie_word_embeddings: true,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        bos_token_id: None,
        eos_token_ids: vec![0],
        pad_token_id: None,
    };
    let rope = Llama3Rope { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 128 };
    let configs = [
        ("llama-biased", ModelConfig { qkv_bias: true, output_bias: true, ..base.clone() }),
        ("llama3-rope", ModelConfig { rope_scaling: Some(rope), tie_word_embeddings: false, ..base.clone() }),
        ("mistral", ModelConfig { architecture: Architecture::Mistral, head_dim: 16, ..base.clone() }),
        ("qwen2", ModelConfig { architecture: Architecture::Qwen2, qkv_bias: true, num_key_value_heads: 1, ..base.clone() }),
        (
            "qwen3",
            ModelConfig {
                architecture: Architecture::Qwen3,
                qk_norm: true,
                head_dim: 16,
                rms_norm_eps: 1e-6,
                rope_theta: 1e6,
                ..base
            },
        ),
    ];
    configs.into_iter().map(|(name, config)| (name, filled(config))).collect()
}

/// Random weights everywhere, biases and norms too.
fn filled(config: ModelConfig) -> Params {
    let mut params = random_params(config, 0.25, 11);
    let stream = Stream::new(11, "architectures", &[]);
    params.data.iter_mut().enumerate().for_each(|(i, x)| *x += 0.2 * stream.normal_at(i as u64) as f32);
    params
}
