//! Sheet 25-rm-r1.

use anyhow::Result;
use plumb_core::recipe::{Grpo, KlEstimator};
use plumb_methods::evaluation::verdicts;
use serde_json::json;

use super::s20_rewardanything::grpo_advantage;
use crate::policy::group_relative;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "25-rm-r1",
    operations: &[("grpo_advantage", grpo_advantage), ("grpo_loss", grpo_loss), ("judge_accuracy", judge_accuracy)],
};

/// The clipped loss with a KL term, its parts and its gradient.
pub(super) fn grpo_loss(case: &Case) -> Result<Answer> {
    let kl_estimator =
        case.choice("kl_estimator", &[("k3", KlEstimator::K3), ("k1", KlEstimator::K1), ("k2", KlEstimator::K2)])?;
    let got = group_relative(
        case,
        &Grpo { epsilon: case.param("clip_range")?, beta: case.param("kl_coef")?, kl_estimator, ..Grpo::default() },
    )?;
    Ok(json!({
        "loss": got.loss,
        "policy_loss": got.policy_loss,
        "kl": got.kl,
        "clip_fraction": got.clip_fraction,
        "d_loss_d_policy_logps": got.gradient,
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
