//! Losses: small candle graphs over per-token log-probabilities.
//!
//! Tokens of a batch lie flat (`[M]`, no padding), each with a weight that carries the whole normalization: a loss is
//! `Σ_t weight_t · loss_t`, so that micro-batches simply add up. Losses over sequences ([`dpo`]) first make sums over tokens, and
//! have a weight per pair. The graphs take any float dtype: float32 in training, float64 where reference numbers are compared.

pub mod choice;
pub mod classification;
pub mod confidence;
pub mod constrained;
pub mod contrastive;
pub mod critique;
pub mod daa;
pub mod distillation;
pub mod divergence;
pub mod dpo;
pub mod grpo;
pub mod importance;
pub mod inter_sample;
pub mod kto;
pub mod means;
pub mod metarm;
pub mod orpo;
pub mod pairwise_judge;
pub mod plackett_luce;
pub mod ppo;
pub mod ranking;
pub mod regression;
pub mod reward;
pub mod rpo;
pub mod sequence;
pub mod sft;
pub mod simpo;
pub mod soft_preference;
pub mod steerlm;
pub mod step_preference;
pub mod superhf;
pub mod token_regularized;
pub mod trace;
pub mod views;

use candle_core::{Device, Tensor, Var, WithDType};

/// ln σ(x) by element, without overflow and with the exact gradient σ(-x) everywhere, at 0 too.
///
/// `(x - m) - ln(e^-m + e^(x - m))` with the constant m = max(x, 0).
pub fn log_sigmoid(x: &Tensor) -> candle_core::Result<Tensor> {
    let m = x.detach().relu()?;
    let shifted = (x - &m)?;
    &shifted - (m.neg()?.exp()? + shifted.exp()?)?.log()?
}

/// Mean of losses, `[]`; 0 without any.
pub fn mean(losses: &Tensor) -> candle_core::Result<Tensor> {
    losses.sum_all()? / losses.elem_count().max(1) as f64
}

/// `base + Σ_i weight_i · loss_i`: a loss with auxiliary ones, `[]` each.
pub fn with_auxiliary(base: &Tensor, auxiliary: &[(f64, &Tensor)]) -> candle_core::Result<Tensor> {
    auxiliary.iter().try_fold(base.clone(), |total, (weight, loss)| total + (*loss * *weight)?)
}

/// Weighted mean of losses, `[]`; 0 where the weights add up to 0. `losses`, `weights`: `[N]`.
pub fn weighted_mean(losses: &Tensor, weights: &Tensor) -> candle_core::Result<Tensor> {
    let total = weights.sum_all()?;
    let none = total.eq(0.0)?.to_dtype(weights.dtype())?;
    (losses * weights)?.sum_all()? / (total + none)?
}

/// Value of a loss and its gradient by the log-probabilities, `[M]`.
///
/// `loss` gets the log-probabilities as a variable and returns a scalar of the same dtype.
pub fn differentiate<F: WithDType>(
    logprobs: &[F],
    loss: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
) -> candle_core::Result<(f64, Vec<F>)> {
    let leaf = Var::from_tensor(&Tensor::from_slice(logprobs, logprobs.len(), &Device::Cpu)?)?;
    let value = loss(leaf.as_tensor())?;
    let grads = value.backward()?;
    let gradient = match grads.get(leaf.as_tensor()) {
        Some(gradient) => gradient.to_vec1::<F>()?,
        None => vec![F::zero(); logprobs.len()],
    };
    Ok((value.to_scalar::<F>()?.to_f64(), gradient))
}
