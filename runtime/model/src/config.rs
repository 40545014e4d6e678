//! What a model of the Llama family is made of.

/// Members of the family, as `architectures` in a Hugging Face `config.json` names them. All are pre-norm transformers with
/// RMSNorm, rotary positions, grouped-query attention and SwiGLU; they differ in biases and head norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2: no biases (unless `attention_bias`).
    #[serde(rename = "LlamaForCausalLM")]
    Llama,
    /// As Llama; a sliding window limits the context.
    #[serde(rename = "MistralForCausalLM")]
    Mistral,
    /// Qwen2 and 2.5: biases on queries, keys and values.
    #[serde(rename = "Qwen2ForCausalLM")]
    Qwen2,
    /// RMSNorm over each query and key head.
    #[serde(rename = "Qwen3ForCausalLM")]
    Qwen3,
}

/// Llama 3's change of the rotary frequencies for long contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Rope {
    /// Divides the frequencies of long wavelengths.
    pub factor: f64,
    /// Wavelengths above `original_context / low_freq_factor` are divided by `factor`.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_context / high_freq_factor` stay.
    pub high_freq_factor: f64,
    /// Context of the original training, in tokens.
    pub original_context: usize,
}

/// Shapes and constants of a model.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each says whether a part of the model exists, independently of the others")]
pub struct ModelConfig {
    /// Which member of the family.
    pub architecture: Architecture,
    /// Number of token ids (rows of the embedding).
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Llama 3's long-context frequencies.
    pub rope_scaling: Option<Llama3Rope>,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub output_bias: bool,
    /// Whether each query and key head is normalized (Qwen3).
    pub qk_norm: bool,
    /// Begin-of-text token.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Padding token, only passed on.
    pub pad_token_id: Option<u32>,
}

impl ModelConfig {
    /// Width of all query heads together.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Rotary frequencies, `[head_dim / 2]`, radians per position: `theta^(-2i / head_dim)`, changed by [`Llama3Rope`].
    ///
    /// A position p turns the pair (x[i], x[i + head_dim/2]) by p · frequency[i]: the half-split layout of Hugging Face.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        (0..self.head_dim / 2)
            .map(|i| {
                let frequency = self.rope_theta.powf(-2.0 * i as f64 / self.head_dim as f64);
                let Some(scaling) = self.rope_scaling else { return frequency };
                let wavelength = std::f64::consts::TAU / frequency;
                let context = scaling.original_context as f64;
                if wavelength < context / scaling.high_freq_factor {
                    return frequency;
                }
                if wavelength > context / scaling.low_freq_factor {
                    return frequency / scaling.factor;
                }
                let smooth =
                    (context / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
                (1.0 - smooth) * frequency / scaling.factor + smooth * frequency
            })
            .collect()
    }
}
