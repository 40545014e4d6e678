//! Sheet 25-rm-r1.

use anyhow::Result;
use plumb_core::recipe::{Grpo, KlEstimator};
use plumb_methods::evaluation::verdicts;
use plumb_methods::loss::grpo::{Clip, Terms, TokenStats, grpo};
use serde_json::json;

use super::s20_rewardanything::grpo_advantage;
use crate::groups::{flatten, regroup};
use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "25-rm-r1",
    operations: &[("grpo_advantage", grpo_advantage), ("grpo_loss", grpo_loss), ("judge_accuracy", judge_accuracy)],
};

/// The clipped loss with a KL term, its parts and its gradient.
pub(super) fn grpo_loss(case: &Case) -> Result<Answer> {
    let read = |name: &str| case.input::<Vec<Vec<f64>>>(name);
    let (policy, old, reference) = (read("policy_logps")?, read("old_logps")?, read("ref_logps")?);
    let (mask, advantages): (_, Vec<f64>) = (case.truth_rows("mask")?, case.input("advantages")?);
    let tokens = mask.iter().flatten().filter(|seen| **seen).count().max(1) as f64;
    let weights: Vec<f64> = mask.iter().flatten().map(|&seen| if seen { 1.0 / tokens } else { 0.0 }).collect();
    let of_tokens: Vec<f64> = mask.iter().zip(&advantages).flat_map(|(row, &a)| row.iter().map(move |_| a)).collect();
    let range: f64 = case.param("clip_range")?;
    let kl_estimator =
        case.choice("kl_estimator", &[("k3", KlEstimator::K3), ("k1", KlEstimator::K1), ("k2", KlEstimator::K2)])?;
    let beta = case.param("kl_coef")?;
    let low_high = Clip::from(&Grpo { epsilon: range, beta, kl_estimator, ..Grpo::default() });
    let clip = Clip { importance_max: f64::INFINITY, ..low_high };
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
    Ok(json!({
        "loss": loss,
        "policy_loss": policy_loss,
        "kl": stats.kl / tokens,
        "clip_fraction": (stats.clipped_low + stats.clipped_high) / tokens,
        "d_loss_d_policy_logps": regroup(&flat(&gradients[0])?, &policy),
    }))
}

fn judge_accuracy(case: &Case) -> Result<Answer> {
    let predicted: Vec<Option<String>> = case.input("predicted")?;
    let (labels, categories): (Vec<String>, Vec<String>) = (case.input("labels")?, case.input("categories")?);
    let right = predicted.iter().zip(&labels).map(|(predicted, label)| predicted.as_ref() == Some(label));
    let accuracy = verdicts::judge_accuracy(categories.iter().map(String::as_str).zip(right));
    Ok(json!({
        "per_category": accuracy.by_category,
        "macro": accuracy.macro_average,
        "micro": accuracy.micro_average,
    }))
}
