//! Sheet 38-micro-mixture-routing.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::Tensor;
use plumb_methods::advantage::mean;
use plumb_methods::evaluation::benchmark::mean_of_known;
use plumb_methods::loss::reward::bradley_terry;
use plumb_methods::reward::mixture::{
    ScoreRule, head_accuracies, hedge_minimum, hedge_objective, hedge_targets, mixture_bradley_terry, preference, router_loss,
    score, shared_base_loss,
};
use serde_json::json;

use crate::tensor::{flat, gradients, matrix, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "38-micro-mixture-routing",
    operations: &[
        ("mixture_bt_loss", mixture_bt_loss),
        ("static_mixture_loss", static_mixture_loss),
        ("shared_base_ensemble_loss", shared_base_ensemble_loss),
        ("hedge_targets", hedge_targets_of),
        ("hedge_objective", hedge_objective_of),
        ("mixture_score", mixture_score),
        ("mixture_preference", mixture_preference),
        ("best_head_accuracy", best_head_accuracy),
    ],
};

fn heads(case: &Case, name: &str) -> Result<Tensor> {
    matrix(&case.input::<Vec<Vec<f64>>>(name)?)
}

fn mixture_bt_loss(case: &Case) -> Result<Answer> {
    let leaves = [heads(case, "chosen_head_rewards")?, heads(case, "rejected_head_rewards")?, heads(case, "router_logits")?];
    let alpha = case.param_or("alpha", 0.5)?;
    let parts = |l: &[Tensor]| mixture_bradley_terry(&(&l[0] - &l[1])?, &l[2], alpha);
    let (loss, gradients) = gradients(&leaves, |l| Ok(parts(l)?.loss))?;
    let parts = parts(&leaves)?;
    Ok(json!({
        "loss": loss,
        "mle": parts.mle.to_scalar::<f64>()?,
        "reg": parts.regulariser.to_scalar::<f64>()?,
        "posterior": rows(&parts.posterior)?,
        "d_chosen_head_rewards": rows(&gradients[0])?,
        "d_rejected_head_rewards": rows(&gradients[1])?,
        "d_router_logits": rows(&gradients[2])?,
    }))
}

fn static_mixture_loss(case: &Case) -> Result<Answer> {
    let logits = vector(&case.input::<Vec<f64>>("mixture_logits")?)?.unsqueeze(0)?;
    let leaves = [heads(case, "chosen_head_rewards")?, heads(case, "rejected_head_rewards")?, logits];
    let graph = |l: &[Tensor]| Ok(mixture_bradley_terry(&(&l[0] - &l[1])?, &l[2], 0.0)?.loss);
    let (loss, gradients) = gradients(&leaves, graph)?;
    Ok(json!({
        "loss": loss,
        "d_chosen_head_rewards": rows(&gradients[0])?,
        "d_rejected_head_rewards": rows(&gradients[1])?,
        "d_mixture_logits": flat(&gradients[2])?,
    }))
}

fn shared_base_ensemble_loss(case: &Case) -> Result<Answer> {
    let leaves = [heads(case, "chosen_head_rewards")?, heads(case, "rejected_head_rewards")?];
    let (loss, gradients) = gradients(&leaves, |l| shared_base_loss(&(&l[0] - &l[1])?))?;
    Ok(json!({
        "loss": loss,
        "d_chosen_head_rewards": rows(&gradients[0])?,
        "d_rejected_head_rewards": rows(&gradients[1])?,
    }))
}

fn hedge_targets_of(case: &Case) -> Result<Answer> {
    let (chosen, rejected) = (heads(case, "chosen_head_rewards")?, heads(case, "rejected_head_rewards")?);
    let losses = bradley_terry(&chosen, &rejected, &chosen.zeros_like()?, 0.0)?;
    let logits = heads(case, "router_logits")?;
    let targets = hedge_targets(&logits, &losses, case.param("tau")?)?;
    let (loss, gradients) = gradients(&[logits], |l| router_loss(&l[0], &targets))?;
    Ok(json!({
        "head_losses": rows(&losses)?,
        "targets": rows(&targets)?,
        "router_loss": loss,
        "d_router_logits": rows(&gradients[0])?,
    }))
}

fn hedge_objective_of(case: &Case) -> Result<Answer> {
    let (prior, candidate): (Vec<f64>, Vec<f64>) = (case.input("prior")?, case.input("candidate")?);
    let (losses, tau): (Vec<f64>, f64) = (case.input("head_losses")?, case.param("tau")?);
    let value = hedge_objective(&candidate, &prior, &losses, tau);
    Ok(json!({ "value": value, "minimum": hedge_minimum(&prior, &losses, tau) }))
}

fn mixture_score(case: &Case) -> Result<Answer> {
    let rule = case.choice(
        "rule",
        &[
            ("weighted_reward", ScoreRule::WeightedReward),
            ("weighted_log_sigmoid", ScoreRule::WeightedLogSigmoid),
            ("argmax", ScoreRule::Argmax),
        ],
    )?;
    let (rewards, weights): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (case.input("head_rewards")?, case.input("router_weights")?);
    let scores: Vec<f64> = rewards.iter().zip(&weights).map(|(rewards, weights)| score(rewards, weights, rule)).collect();
    Ok(json!({ "scores": scores }))
}

fn mixture_preference(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<Vec<f64>>, Vec<Vec<f64>>) =
        (case.input("chosen_head_rewards")?, case.input("rejected_head_rewards")?);
    let weights: Vec<Vec<f64>> = case.input("router_weights")?;
    let wins: Vec<f64> = (0..chosen.len()).map(|i| preference(&chosen[i], &rejected[i], &weights[i])).collect();
    let right: Vec<f64> = wins.iter().map(|p| f64::from(u8::from(*p > 0.5))).collect();
    Ok(json!({ "p_chosen": wins, "accuracy": mean(&right) }))
}

fn best_head_accuracy(case: &Case) -> Result<Answer> {
    let margins: BTreeMap<String, Vec<Vec<f64>>> = case.input("margins")?;
    let (mut attributes, mut best_accuracies) = (serde_json::Map::new(), Vec::new());
    for (name, margins) in &margins {
        let found = head_accuracies(margins);
        let accuracy = found.as_ref().map(|(accuracies, best)| accuracies[*best]);
        let (accuracies, best) = found.unzip();
        attributes.insert(
            name.clone(),
            json!({ "head_accuracy": accuracies.unwrap_or_default(), "best_head": best, "best_accuracy": accuracy }),
        );
        best_accuracies.push(accuracy);
    }
    Ok(json!({ "attributes": attributes, "average_best": mean_of_known(&best_accuracies) }))
}
