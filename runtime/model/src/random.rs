//! New models with random weights.
//!
//! Weights are normal with a given standard deviation; the matrices that write to the residual stream (`o_proj`, `down_proj`)
//! have it divided by √(2 · layers), so that the stream's variance does not grow with depth (Radford et al. 2019, GPT-2, section
//! 2.3). Norms are 1, biases 0. Each tensor has a random stream of its own, named by the tensor.

use std::path::Path;

use plumb_core::recipe::RandomModel;
use plumb_core::seed::Stream;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::config::{Architecture, ModelConfig};
use crate::load::LoadedModel;
use crate::params::Params;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, hf};

/// The end-of-text token of character tokenizers; its id is 0.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A new model as the recipe describes it, with a tokenizer of single characters.
///
/// Embeddings are tied. Token 0 is [`END_OF_TEXT`], then come the characters in the order of the alphabet.
///
/// # Errors
/// [`Error::Tokenizer`] when the alphabet is empty or names a character twice; [`Error::Malformed`] when the sizes do not fit
/// together.
pub fn random(spec: &RandomModel, seed: u64) -> Result<LoadedModel> {
    let refuse = |reason: String| Error::Malformed { path: "model.random".into(), reason };
    let sizes = [
        ("hidden_size", spec.hidden_size),
        ("intermediate_size", spec.intermediate_size),
        ("num_hidden_layers", spec.num_hidden_layers),
        ("num_attention_heads", spec.num_attention_heads),
        ("num_key_value_heads", spec.num_key_value_heads.unwrap_or(1)),
        ("max_position_embeddings", spec.max_position_embeddings),
    ];
    if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
        return Err(refuse(format!("`{name}` should be above 0")));
    }
    if !spec.hidden_size.is_multiple_of(spec.num_attention_heads) {
        return Err(refuse(format!("`hidden_size` {} is no multiple of {} heads", spec.hidden_size, spec.num_attention_heads)));
    }
    let tokenizer = character_tokenizer(&spec.alphabet)?;
    let config = ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: tokenizer.vocab_size(),
        hidden_size: spec.hidden_size,
        intermediate_size: spec.intermediate_size,
        num_hidden_layers: spec.num_hidden_layers,
        num_attention_heads: spec.num_attention_heads,
        num_key_value_heads: spec.num_key_value_heads.unwrap_or(spec.num_attention_heads),
        head_dim: spec.hidden_size / spec.num_attention_heads,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: None,
        max_position_embeddings: spec.max_position_embeddings,
        tie_word_embeddings: true,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        bos_token_id: None,
        eos_token_ids: vec![0],
        pad_token_id: Some(0),
    };
    hf::check(&config).map_err(refuse)?;
    Ok(LoadedModel { params: random_params(config, spec.initializer_range, seed), tokenizer, score: None })
}

/// A new model from a Hugging Face folder that has `config.json` and `tokenizer.json`; weights in it are not read.
///
/// # Errors
/// As [`load`](crate::load()).
pub fn random_from_config(folder: &Path, seed: u64) -> Result<LoadedModel> {
    let (config, tokenizer) = hf::read_without_weights(folder)?;
    Ok(LoadedModel { params: random_params(config.model, config.initializer_range, seed), tokenizer, score: None })
}

/// Random weights for a configuration; `std` is the standard deviation of the embedding and the matrices.
pub fn random_params(config: ModelConfig, std: f64, seed: u64) -> Params {
    let residual_std = std / (2.0 * config.num_hidden_layers as f64).sqrt();
    let mut params = Params::zeros(config);
    for spec in params.layout.clone().tensors() {
        let values = &mut params.data[spec.range.clone()];
        if spec.name.ends_with("norm.weight") {
            values.fill(1.0);
        } else if spec.shape.len() == 2 {
            let residual = spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
            let std = if residual { residual_std } else { std };
            let stream = Stream::new(seed, &format!("init {}", spec.name), &[]);
            values.par_iter_mut().enumerate().for_each(|(i, value)| *value = (std * stream.normal_at(i as u64)) as f32);
        }
    }
    params
}

/// One token per character, in a form that transformers reads.
fn character_tokenizer(alphabet: &str) -> Result<Tokenizer> {
    let mut vocab = Map::new();
    vocab.insert(END_OF_TEXT.into(), 0.into());
    for c in alphabet.chars() {
        if vocab.insert(c.to_string(), vocab.len().into()).is_some() {
            return Err(Error::Tokenizer(format!("the alphabet has {c:?} twice")));
        }
    }
    if vocab.len() == 1 {
        return Err(Error::Tokenizer("the alphabet is empty".into()));
    }
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{"id": 0, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": false},
        "post_processor": null,
        "decoder": {"type": "Fuse"},
        // No entry for unknown characters: encoding one is an error, not a token that stands for something else.
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.insert("clean_up_tokenization_spaces".into(), Value::Bool(false));
    config.insert("eos_token".into(), END_OF_TEXT.into());
    config.insert("pad_token".into(), END_OF_TEXT.into());
    Tokenizer::new(json.to_string(), config, None)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small model of each architecture, grouped heads and all.
    pub(crate) fn tiny(architecture: Architecture) -> ModelConfig {
        ModelConfig {
            architecture,
            vocab_size: 23,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: if architecture == Architecture::Qwen3 { 6 } else { 4 },
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            max_position_embeddings: 64,
            tie_word_embeddings: architecture != Architecture::Mistral,
            qkv_bias: architecture == Architecture::Qwen2,
            output_bias: false,
            qk_norm: architecture == Architecture::Qwen3,
            bos_token_id: None,
            eos_token_ids: vec![0],
            pad_token_id: None,
        }
    }

    fn spec() -> RandomModel {
        RandomModel {
            alphabet: "0123456789+=? é\n".into(),
            hidden_size: 32,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: Some(2),
            max_position_embeddings: 64,
            initializer_range: 0.05,
        }
    }

    #[test]
    fn random_model_has_the_moments_asked_for() {
        let params = random(&spec(), 7).unwrap().params;
        let std = |name: &str| {
            let values = params.tensor(name);
            (values.iter().map(|x| f64::from(x * x)).sum::<f64>() / values.len() as f64).sqrt()
        };
        assert!((std("model.layers.1.mlp.up_proj.weight") - 0.05).abs() < 0.003);
        assert!((std("model.layers.1.mlp.down_proj.weight") - 0.025).abs() < 0.0015);
        assert!(params.tensor("model.layers.0.input_layernorm.weight").iter().all(|&x| x == 1.0));
    }

    #[test]
    fn random_model_depends_on_its_seed_alone() {
        let data = |seed| random(&spec(), seed).unwrap().params.data;
        assert_eq!(data(1), data(1));
        assert_ne!(data(1), data(2));
    }

    #[test]
    fn character_tokenizer_gives_one_token_per_character() {
        let tokenizer = random(&spec(), 0).unwrap().tokenizer;
        assert_eq!(tokenizer.vocab_size(), 17);
        let ids = tokenizer.encode("12+ é\n=<|endoftext|>").unwrap();
        assert_eq!(ids, [2, 3, 11, 14, 15, 16, 12, 0]);
        assert_eq!(tokenizer.decode(&ids), "12+ é\n=");
        assert_eq!(tokenizer.decode_raw(&ids), "12+ é\n=<|endoftext|>");
    }

    #[test]
    fn character_outside_the_alphabet_is_an_error_that_names_it() {
        let error = random(&spec(), 0).unwrap().tokenizer.encode("1+x").unwrap_err();
        assert_eq!(error.to_string(), "tokenizer: the vocabulary has no token for 'x' (byte 2 of the text)");
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let odd = RandomModel { num_key_value_heads: Some(3), ..spec() };
        assert!(matches!(random(&odd, 0), Err(Error::Malformed { reason, .. }) if reason.contains("4 query heads")));
        let twice = RandomModel { alphabet: "aba".into(), ..spec() };
        assert!(matches!(random(&twice, 0), Err(Error::Tokenizer(reason)) if reason.contains("'a' twice")));
    }
}
