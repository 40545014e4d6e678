//! Sheet 16-secrets-rlhf-ppo-max.

use anyhow::Result;
use plumb_methods::loss;
use plumb_methods::loss::ppo::{entropy_target, value_loss};
use plumb_methods::loss::reward::bradley_terry;
use plumb_methods::loss::sequence::{Reduction, negative_log_likelihood};
use plumb_methods::returns::{Divisor, RunningStats, whiten};
use serde_json::{Value, json};

use crate::groups::{flatten, regroup};
use crate::policy::clipped;
use crate::rewarded::{Rows, advantages, token_rewards};
use crate::tensor::{flat, gradients, mask_tensor, matrix, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "16-secrets-rlhf-ppo-max",
    operations: &[
        ("kl_shaped_token_rewards", kl_shaped_token_rewards),
        ("running_reward_stats", running_reward_stats),
        ("gae", gae),
        ("masked_whiten", masked_whiten),
        ("ppo_clip_policy_loss", ppo_clip_policy_loss),
        ("ppo_value_loss", ppo_value_loss),
        ("rm_loss_with_imitation", rm_loss_with_imitation),
        ("entropy_target_loss", entropy_target_loss),
    ],
};

fn kl_shaped_token_rewards(case: &Case) -> Result<Answer> {
    let rewards = token_rewards(case, &case.input::<Vec<f64>>("rewards")?, case.param("kl_coef")?)?;
    Ok(json!({ "token_rewards": rewards }))
}

fn running_reward_stats(case: &Case) -> Result<Answer> {
    let normalize = case.choice("mode", &[("normalize", true), ("scale", false)])?;
    let clip = case.param_or::<Option<f64>>("clip", None)?;
    let mut stats = RunningStats::default();
    let batches: Rows = case.input("reward_batches")?;
    let steps = batches.iter().map(|batch| {
        stats.update(batch);
        json!({ "rewards": stats.scaled(batch, normalize, clip), "running_mean": stats.mean, "running_std": stats.std() })
    });
    Ok(json!({ "steps": steps.collect::<Vec<Value>>() }))
}

fn gae(case: &Case) -> Result<Answer> {
    let (advantages, returns) = advantages(case, &case.input("token_rewards")?, case.param("gamma")?, case.param("lambda")?)?;
    Ok(json!({ "advantages": advantages, "returns": returns }))
}

fn masked_whiten(case: &Case) -> Result<Answer> {
    let (values, mask): (Rows, _) = (case.input("values")?, case.truth_rows("mask")?);
    let divisor = Divisor::Deviation(case.param_or("epsilon", 1e-6)?);
    let (shift, ddof) = (case.param_or("shift_mean", true)?, case.param_or("ddof", 0)?);
    let mut whitened = whiten(&flatten(&values), &flatten(&mask), shift, divisor, ddof);
    if let Some(clip) = case.param_or::<Option<f64>>("clip", None)? {
        whitened.iter_mut().for_each(|value| *value = value.clamp(-clip, clip));
    }
    Ok(json!({ "whitened": regroup(&whitened, &values) }))
}

fn ppo_clip_policy_loss(case: &Case) -> Result<Answer> {
    clipped(case, case.param_or("clip_range", None)?, &case.truth_rows("mask")?, "d_loss_d_policy_logps")
}

fn ppo_value_loss(case: &Case) -> Result<Answer> {
    let read = |name: &str| matrix(&case.input::<Rows>(name)?);
    let (values, old, targets) = (read("values")?, read("old_values")?, read("returns")?);
    let (mask, clip) = (mask_tensor(&case.truth_rows("mask")?)?, case.param_or("value_clip", None)?);
    let report = value_loss(&values, &old, &targets, &mask, clip)?;
    let (loss, gradients) = gradients(&[values], |v| Ok(value_loss(&v[0], &old, &targets, &mask, clip)?.loss))?;
    Ok(json!({ "loss": loss, "clip_fraction": report.clip_fraction, "d_loss_d_values": rows(&gradients[0])? }))
}

fn rm_loss_with_imitation(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    let logprobs: Rows = case.input("chosen_lm_logps")?;
    let mask = mask_tensor(&case.truth_rows("chosen_mask")?)?;
    let (lambda, beta): (f64, f64) = (case.param_or("lambda", 1.0)?, case.param_or("beta_rm", 1.0)?);
    let margins = vector(&vec![0.0; chosen.len()])?;
    let leaves = [vector(&chosen)?, vector(&rejected)?, matrix(&logprobs)?];
    let ranking = |x: &[candle_core::Tensor]| loss::mean(&bradley_terry(&x[0], &x[1], &margins, 0.0)?);
    let imitation = |x: &[candle_core::Tensor]| negative_log_likelihood(&x[2], &mask, Reduction::TokenMean);
    let (loss, gradients) = gradients(&leaves, |x| loss::with_auxiliary(&(ranking(x)? * lambda)?, &[(beta, &imitation(x)?)]))?;
    Ok(json!({
        "loss": loss,
        "ranking_loss": ranking(&leaves)?.to_scalar::<f64>()?,
        "lm_loss": imitation(&leaves)?.to_scalar::<f64>()?,
        "d_loss_d_chosen_rewards": flat(&gradients[0])?,
        "d_loss_d_rejected_rewards": flat(&gradients[1])?,
        "d_loss_d_chosen_lm_logps": rows(&gradients[2])?,
    }))
}

fn entropy_target_loss(case: &Case) -> Result<Answer> {
    let mask = mask_tensor(&case.truth_rows("mask")?)?;
    let (mean, loss) = entropy_target(&matrix(&case.input::<Rows>("entropies")?)?, &mask, case.param("target")?)?;
    Ok(json!({ "mean_entropy": mean.to_scalar::<f64>()?, "loss": loss.to_scalar::<f64>()? }))
}
