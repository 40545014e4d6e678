//! Supervised fine-tuning: negative log-likelihood of completion tokens.

use candle_core::Tensor;

/// `-Σ_t weight_t · logprob_t`; with weights 1 / tokens of the step it is the mean over all completion tokens of the step.
///
/// # Shapes
/// - `logprobs`, `weights`: `[M]`, one dtype; nats.
/// - returns a `[]` scalar.
pub fn sft(logprobs: &Tensor, weights: &Tensor) -> candle_core::Result<Tensor> {
    (logprobs * weights)?.sum_all()?.neg()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::differentiate;
    use super::*;

    #[test]
    fn sft_loss_is_the_mean_over_tokens_and_its_gradient_the_weights() {
        let weights = Tensor::new(&[0.25f64, 0.25, 0.25, 0.25], &Device::Cpu).unwrap();
        let (loss, gradient) = differentiate(&[-1.0f64, -2.0, -3.0, -6.0], |logprobs| sft(logprobs, &weights)).unwrap();
        assert_eq!(loss, 3.0);
        assert_eq!(gradient, [-0.25; 4]);
    }
}
