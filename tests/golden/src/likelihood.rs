//! Likelihoods of masked tokens in cases.

use anyhow::Result;
use plumb_methods::loss::sequence::{Reduction, negative_log_likelihood};
use serde_json::json;

use crate::tensor::{gradients, mask_tensor, matrix, rows};
use crate::{Answer, Case};

/// The loss of `policy_logps` under `mask`, its gradient under `gradient`.
pub fn likelihood(case: &Case, reduction: Reduction, gradient: &str) -> Result<Answer> {
    let (logprobs, mask) = (case.input::<Vec<Vec<f64>>>("policy_logps")?, case.truth_rows("mask")?);
    let tokens = mask.iter().flatten().filter(|seen| **seen).count();
    let mask = mask_tensor(&mask)?;
    let (loss, gradients) = gradients(&[matrix(&logprobs)?], |l| negative_log_likelihood(&l[0], &mask, reduction))?;
    Ok(json!({ "loss": loss, gradient: rows(&gradients[0])?, "tokens": tokens }))
}
