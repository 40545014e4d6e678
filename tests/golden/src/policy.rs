//! Clipped policy losses in cases.

use anyhow::Result;
use plumb_methods::loss::ppo::policy_loss;
use serde_json::json;

use crate::tensor::{gradients, mask_tensor, matrix, rows};
use crate::{Answer, Case};

/// The clipped loss of `policy_logps` where `mask` says so, its gradient under `gradient`.
pub fn clipped(case: &Case, clip: Option<f64>, mask: &[Vec<bool>], gradient: &str) -> Result<Answer> {
    let read = |name: &str| matrix(&case.input::<Vec<Vec<f64>>>(name)?);
    let (policy, old, advantages) = (read("policy_logps")?, read("old_logps")?, read("advantages")?);
    let seen = mask.iter().flatten().filter(|seen| **seen).count();
    let mask = mask_tensor(mask)?;
    let report = policy_loss(&policy, &old, &advantages, &mask, clip)?;
    let (loss, gradients) = gradients(&[policy], |l| Ok(policy_loss(&l[0], &old, &advantages, &mask, clip)?.loss))?;
    Ok(json!({
        "loss": loss,
        "clip_fraction": report.clip_fraction,
        "outside": report.outside,
        "approx_kl": report.approx_kl,
        "counted_tokens": seen,
        gradient: rows(&gradients[0])?,
    }))
}
