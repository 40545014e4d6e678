//! Sheet 11-armorm.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use plumb_methods::evaluation::benchmark::{mean_of_known, section_score};
use plumb_methods::reward::gating::{
    PENALTY_GRID, adjust, coefficients, gate, preference_loss, score, top_objectives, verbosity_penalties,
};
use plumb_methods::reward::ridge::{Head, Labelled, masked_heads};
use serde_json::json;

use crate::tensor::{flat, gradients, matrix, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "11-armorm",
    operations: &[
        ("masked_ridge_heads", masked_ridge_heads),
        ("verbosity_penalty_search", verbosity_penalty_search),
        ("gated_reward", gated_reward),
        ("gating_preference_loss", gating_preference_loss),
        ("benchmark_section_scores", benchmark_section_scores),
    ],
};

fn masked_ridge_heads(case: &Case) -> Result<Answer> {
    let (features, labels): (Vec<Vec<f64>>, Vec<Vec<Option<f64>>>) = (case.input("features")?, case.input("labels")?);
    let validation_features: Vec<Vec<f64>> = case.input_opt("validation_features")?.unwrap_or_default();
    let validation_labels: Vec<Vec<Option<f64>>> = case.input_opt("validation_labels")?.unwrap_or_default();
    let training = Labelled { features: &features, labels: &labels };
    let validation = Labelled { features: &validation_features, labels: &validation_labels };
    let alphas: Vec<f64> = case.param("alphas")?;
    let heads = masked_heads(training, validation, &alphas).context("the normal equations are singular")?;
    let column = |f: fn(&Head) -> serde_json::Value| heads.iter().map(f).collect::<Vec<_>>();
    Ok(json!({
        "weights": column(|head| json!(head.weights)),
        "alpha": column(|head| json!(head.alpha)),
        "validation_mse": column(|head| json!(head.validation_mse)),
    }))
}

fn verbosity_penalty_search(case: &Case) -> Result<Answer> {
    let rewards: Vec<Vec<f64>> = case.input("objective_rewards")?;
    let grid = case.param_or("grid", PENALTY_GRID.to_vec())?;
    let found = verbosity_penalties(&rewards, case.param("verbosity_index")?, case.param_or("threshold", 0.03)?, &grid);
    Ok(json!({ "penalty": found.values, "unresolved": found.unresolved }))
}

/// The parameters `logit_scale` and `temperature`.
fn scale(case: &Case) -> Result<(Tensor, f64)> {
    Ok((Tensor::new(case.param_or("logit_scale", 1.0)?, &Device::Cpu)?, case.param_or("temperature", 10.0)?))
}

fn gated_reward(case: &Case) -> Result<Answer> {
    let (scale, temperature) = scale(case)?;
    let verbosity = case.param("verbosity_index")?;
    let penalties = vector(&case.param::<Vec<f64>>("penalty")?)?;
    let gating = gate(&matrix(&case.input::<Vec<Vec<f64>>>("gating_logits")?)?, temperature, &scale)?;
    let adjusted = adjust(&matrix(&case.input::<Vec<Vec<f64>>>("objective_rewards")?)?, &penalties, verbosity)?;
    let coefficients = rows(&coefficients(&gating, &penalties, verbosity)?)?;
    let top: Vec<Vec<usize>> = coefficients.iter().map(|row| top_objectives(row, 3)).collect();
    Ok(json!({
        "gating": rows(&gating)?,
        "adjusted_rewards": rows(&adjusted)?,
        "coefficients": coefficients,
        "score": flat(&score(&gating, &adjusted)?)?,
        "top_objectives": top,
    }))
}

fn gating_preference_loss(case: &Case) -> Result<Answer> {
    let (scale, temperature) = scale(case)?;
    let chosen = matrix(&case.input::<Vec<Vec<f64>>>("chosen_objective_rewards")?)?;
    let rejected = matrix(&case.input::<Vec<Vec<f64>>>("rejected_objective_rewards")?)?;
    let leaves = [matrix(&case.input::<Vec<Vec<f64>>>("gating_logits")?)?, scale];
    let pairs = |l: &[Tensor]| preference_loss(&gate(&l[0], temperature, &l[1])?, &chosen, &rejected);
    let (loss, gradients) = gradients(&leaves, |l| pairs(l)?.0.mean_all())?;
    Ok(json!({
        "loss": loss,
        "margin": flat(&pairs(&leaves)?.1)?,
        "grad_gating_logits": rows(&gradients[0])?,
        "grad_logit_scale": gradients[1].to_scalar::<f64>()?,
    }))
}

fn benchmark_section_scores(case: &Case) -> Result<Answer> {
    let mapping: BTreeMap<String, Vec<String>> = case.param("mapping")?;
    let accuracy: BTreeMap<String, Option<f64>> = case.input("accuracy")?;
    let counts: BTreeMap<String, f64> = case.input("counts")?;
    let result = |subset: &String| Some((accuracy.get(subset).copied().flatten()?, *counts.get(subset)?));
    let section = |subsets: &Vec<String>| section_score(&subsets.iter().filter_map(result).collect::<Vec<_>>());
    let sections: BTreeMap<&String, Option<f64>> = mapping.iter().map(|(name, subsets)| (name, section(subsets))).collect();
    let score = mean_of_known(&sections.values().copied().collect::<Vec<_>>());
    Ok(json!({ "sections": sections, "score": score }))
}
