//! How much arithmetic and reading a model's work is, by its shapes.
//!
//! Counted is what the result needs: two operations for a multiply-add, causal attention over the tokens that are really there, each byte of
//! weights once a pass. What an implementation computes twice (in attention's backward pass, say) or reads twice does not raise
//! what it achieves.

use plumb_model::config::ModelConfig;
use plumb_model::rollout::WeightFormat;

/// Weights of the matrices in all blocks.
fn block_weights(config: &ModelConfig) -> f64 {
    let (d, f, q, kv) = (config.hidden_size, config.intermediate_size, config.query_size(), config.key_value_size());
    (config.num_hidden_layers * (d * (q + 2 * kv) + q * d + 3 * d * f)) as f64
}

/// Weights of the output matrix.
fn head_weights(config: &ModelConfig) -> f64 {
    (config.vocab_size * config.hidden_size) as f64
}

/// Operations of running `tokens` tokens that attend to `attended` tokens in all (themselves included) and have `logits` distributions over
/// the vocabulary among them: `2 · weights` a token, `4 · layers · query size` an attended token, `2 · v · d` a distribution.
pub fn forward_flop(config: &ModelConfig, tokens: usize, attended: usize, logits: usize) -> f64 {
    let attention = (4 * config.num_hidden_layers * config.query_size()) as f64;
    2.0 * block_weights(config) * tokens as f64 + attention * attended as f64 + 2.0 * head_weights(config) * logits as f64
}

/// Operations of the forward and the backward pass: each product has two more in the backward pass.
pub fn training_flop(config: &ModelConfig, tokens: usize, attended: usize, logits: usize) -> f64 {
    3.0 * forward_flop(config, tokens, attended, logits)
}

/// Tokens that the tokens of a sequence of `length` attend to, `from` being the first that is run: Σ (i + 1).
pub fn attended(from: usize, length: usize) -> usize {
    (length * (length + 1) - from * (from + 1)) / 2
}

/// Bytes of the packed matrices that a pass reads. Per-channel scales, norms and single rows of the embedding are left out.
pub fn weight_bytes(config: &ModelConfig, format: WeightFormat) -> f64 {
    let bytes = match format {
        WeightFormat::F32 => 4.0,
        WeightFormat::Bf16 => 2.0,
        WeightFormat::Int8 => 1.0,
    };
    bytes * (block_weights(config) + head_weights(config))
}

/// Bytes of the float32 keys and values of `tokens` tokens.
pub fn kv_bytes(config: &ModelConfig, tokens: usize) -> f64 {
    (2 * 4 * config.num_hidden_layers * config.key_value_size() * tokens) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::model::ModelArgs;

    /// The sizes of SmolLM2-135M.
    fn smollm2() -> ModelConfig {
        let tiny = ModelArgs { model: "random:tiny".into() }.spec().unwrap().load().unwrap().params.config;
        ModelConfig {
            vocab_size: 49_152,
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 64,
            ..tiny
        }
    }

    #[test]
    fn smollm2_costs_what_its_parameters_say() {
        // 134,515,008 parameters, of which 61 · 576 are norms.
        let matrices = 134_515_008.0 - 61.0 * 576.0;
        assert_eq!(weight_bytes(&smollm2(), WeightFormat::F32), 4.0 * matrices);
        assert_eq!(weight_bytes(&smollm2(), WeightFormat::Int8), matrices);
        assert_eq!(forward_flop(&smollm2(), 1, 0, 1), 2.0 * matrices);
        assert_eq!(kv_bytes(&smollm2(), 1), 46_080.0);
    }

    #[test]
    fn attention_counts_each_pair_of_tokens_once() {
        assert_eq!(attended(0, 4), 1 + 2 + 3 + 4);
        assert_eq!(attended(2, 4), 3 + 4, "a completion of 2 after a prompt of 2");
        let config = smollm2();
        assert_eq!(forward_flop(&config, 0, 1, 0), 4.0 * 30.0 * 576.0);
        assert_eq!(training_flop(&config, 2, 3, 1), 3.0 * forward_flop(&config, 2, 3, 1));
    }
}
