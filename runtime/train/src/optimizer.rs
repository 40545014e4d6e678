//! AdamW over flat buffers, and clipping by the global norm.

use plumb_core::recipe::Optimizer as Settings;
use plumb_kernels::cpu::adamw;
use plumb_model::params::{Layout, Params};

/// AdamW (Loshchilov & Hutter 2019, algorithm 2) over all weights of a model; the update itself is [`adamw::adamw`].
///
/// Weights of two or more dimensions decay, the embedding too; norms and biases do not: Hugging Face's rule.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// First moments, `[layout.len()]`, and those of a head behind them.
    pub exp_avg: Vec<f32>,
    /// Second moments, likewise.
    pub exp_avg_sq: Vec<f32>,
    /// Updates done.
    pub steps: u64,
}

impl AdamW {
    /// An optimizer that has done nothing yet.
    pub fn new(layout: &Layout) -> Self {
        Self::with_head(layout, 0)
    }

    /// An optimizer of a model and a head of so many weights.
    pub fn with_head(layout: &Layout, head: usize) -> Self {
        let moments = vec![0.0; layout.len() + head];
        AdamW { exp_avg: moments.clone(), exp_avg_sq: moments, steps: 0 }
    }

    /// One update of all weights with gradients multiplied by `grad_scale` (see [`clip_scale`]).
    ///
    /// # Panics
    /// When the gradients or moments are not as many as the weights.
    pub fn step(&mut self, params: &mut Params, grads: &[f32], grad_scale: f64, learning_rate: f64, settings: &Settings) {
        self.step_with_head(params, &mut [], grads, grad_scale, learning_rate, settings);
    }

    /// [`AdamW::step`] of a model and the matrix of a head, whose gradients and moments lie behind the model's.
    ///
    /// # Panics
    /// As [`AdamW::step`].
    pub fn step_with_head(
        &mut self,
        params: &mut Params,
        head: &mut [f32],
        grads: &[f32],
        grad_scale: f64,
        learning_rate: f64,
        settings: &Settings,
    ) {
        self.steps += 1;
        let layout = params.layout.clone();
        let tensors = layout.tensors().iter().map(|tensor| (tensor.range.clone(), tensor.shape.len() >= 2));
        let of_head = (layout.len()..layout.len() + head.len(), true);
        for (range, decays) in tensors.chain(std::iter::once(of_head)) {
            let constants = adamw::AdamW {
                learning_rate,
                beta1: settings.adam_beta1,
                beta2: settings.adam_beta2,
                eps: settings.adam_epsilon,
                weight_decay: if decays { settings.weight_decay } else { 0.0 },
                step: self.steps,
                grad_scale,
            };
            let weights = if range.start < layout.len() { &mut params.data[range.clone()] } else { &mut *head };
            let (first, second) = (&mut self.exp_avg[range.clone()], &mut self.exp_avg_sq[range.clone()]);
            adamw::adamw(&constants, weights, &grads[range], first, second);
        }
    }
}

/// What gradients of norm `norm` are multiplied by so that it becomes at most `max_norm`; 1 when that is 0. As PyTorch, which
/// divides by `norm + 1e-6`.
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use plumb_model::config::{Architecture, ModelConfig};

    use super::*;

    fn params() -> Params {
        let mut params = Params::zeros(ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: 3,
            hidden_size: 2,
            intermediate_size: 2,
            num_hidden_layers: 0,
            num_attention_heads: 1,
            num_key_value_heads: 1,
            head_dim: 2,
            rms_norm_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: None,
            max_position_embeddings: 8,
            tie_word_embeddings: true,
            qkv_bias: false,
            output_bias: false,
            qk_norm: false,
            bos_token_id: None,
            eos_token_ids: vec![0],
            pad_token_id: None,
        });
        params.data.fill(1.0);
        params
    }

    #[test]
    fn first_steps_match_the_formula_by_hand() {
        let mut params = params();
        let settings = Settings { weight_decay: 0.1, ..Settings::default() };
        let mut optimizer = AdamW::new(&params.layout.clone());
        let grads = vec![0.5; params.data.len()];
        optimizer.step(&mut params, &grads, 0.5, 0.01, &settings);
        // With one gradient the corrected moments are g and g², so the weight moves by lr; matrices decay besides.
        let matrix = 1.0 - 0.01 * 0.1 - 0.01;
        assert!((f64::from(params.tensor("model.embed_tokens.weight")[0]) - matrix).abs() < 1e-6);
        assert!((f64::from(params.tensor("model.norm.weight")[0]) - 0.99).abs() < 1e-6);
        optimizer.step(&mut params, &vec![-0.5; grads.len()], 1.0, 0.01, &settings);
        // m = 0.9 · 0.025 - 0.05, v = 0.999 · 6.25e-5 + 2.5e-4.
        let m = (0.9 * 0.025 - 0.05) / (1.0 - 0.81);
        let v: f64 = (0.999 * 6.25e-5 + 2.5e-4) / (1.0 - 0.999 * 0.999);
        let want = 0.99 - 0.01 * m / (v.sqrt() + 1e-8);
        assert!((f64::from(params.tensor("model.norm.weight")[0]) - want).abs() < 1e-6);
        assert_eq!(optimizer.steps, 2);
    }

    #[test]
    fn clipping_scales_to_the_norm_and_leaves_small_gradients() {
        assert!((5.0 * clip_scale(5.0, 1.0) - 1.0).abs() < 1e-6);
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert_eq!(clip_scale(5.0, 0.0), 1.0);
    }
}
