//! Clipped policy losses in cases.

use anyhow::Result;
use plumb_core::recipe::Grpo;
use plumb_methods::loss::grpo::{Clip, Terms, TokenStats, grpo};
use plumb_methods::loss::ppo::policy_loss;
use serde_json::json;

use crate::groups::{flatten, regroup};
use crate::tensor::{flat, gradients, mask_tensor, matrix, rows, vector};
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

/// A group-relative loss, a mean over unmasked tokens; what is reported of them is 0 without any.
pub struct GroupRelative {
    /// With the KL term.
    pub loss: f64,
    /// Without it.
    pub policy_loss: f64,
    /// Mean estimate, nats.
    pub kl: f64,
    /// Share of the tokens that are beyond the bound that holds for their advantage.
    pub clip_fraction: f64,
    /// By `policy_logps`.
    pub gradient: Vec<Vec<f64>>,
}

/// The group-relative loss of `policy_logps` under `mask`, with an advantage for each row.
pub fn group_relative(case: &Case, settings: &Grpo) -> Result<GroupRelative> {
    let read = |name: &str| case.input::<Vec<Vec<f64>>>(name);
    let (policy, old, reference) = (read("policy_logps")?, read("old_logps")?, read("ref_logps")?);
    let (mask, advantages): (_, Vec<f64>) = (case.truth_rows("mask")?, case.input("advantages")?);
    let tokens = mask.iter().flatten().filter(|seen| **seen).count().max(1) as f64;
    let weights: Vec<f64> = mask.iter().flatten().map(|&seen| if seen { 1.0 / tokens } else { 0.0 }).collect();
    let of_tokens: Vec<f64> = mask.iter().zip(&advantages).flat_map(|(row, &a)| row.iter().map(move |_| a)).collect();
    let clip = Clip { importance_max: f64::INFINITY, ..Clip::from(settings) };
    let terms = Terms {
        old_logprobs: Some(vector(&flatten(&old))?),
        ref_logprobs: Some(vector(&flatten(&reference))?),
        rollout_logprobs: None,
        advantages: vector(&of_tokens)?,
        weights: vector(&weights)?,
        lengths: mask.iter().map(Vec::len).collect(),
    };
    let leaf = [vector(&flatten(&policy))?];
    let (loss, gradients) = gradients(&leaf, |l| grpo(&l[0], &terms, &clip))?;
    let policy_loss = grpo(&leaf[0], &terms, &Clip { beta: 0.0, ..clip })?.to_scalar::<f64>()?;
    let mut stats = TokenStats::default();
    for (i, _) in mask.iter().flatten().enumerate().filter(|(_, seen)| **seen) {
        let at = |rows: &[Vec<f64>]| flatten(rows)[i];
        stats.add(&clip, at(&policy), Some(at(&old)), Some(at(&reference)), of_tokens[i], 0.0);
    }
    Ok(GroupRelative {
        loss,
        policy_loss,
        kl: stats.kl / tokens,
        clip_fraction: (stats.clipped_low + stats.clipped_high) / tokens,
        gradient: regroup(&flat(&gradients[0])?, &policy),
    })
}
