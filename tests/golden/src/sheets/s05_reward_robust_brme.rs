//! Sheet 05-reward-robust-brme.

use anyhow::Result;
use plumb_methods::reward::ensemble::{Nominal, Scope, robust, surest_by_sample};
use plumb_methods::reward::gaussian::gaussian_mse;
use serde_json::json;

use crate::groups::{flatten_members, regroup_members};
use crate::tensor::{gradients, matrix, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "05-reward-robust-brme",
    operations: &[("gaussian_head_mse", gaussian_head_mse), ("nominal_reward", nominal_reward), ("robust_reward", robust_reward)],
};

fn gaussian_head_mse(case: &Case) -> Result<Answer> {
    let leaves = [matrix(&case.input::<Vec<Vec<f64>>>("means")?)?, matrix(&case.input::<Vec<Vec<f64>>>("stds")?)?];
    let targets = vector(&case.input::<Vec<f64>>("targets")?)?;
    let noise = case.input_opt::<Vec<Vec<f64>>>("noise")?.map(|noise| matrix(&noise)).transpose()?;
    let (loss, gradients) = gradients(&leaves, |l| gaussian_mse(&l[0], &l[1], &targets, noise.as_ref()))?;
    Ok(json!({ "loss": loss, "grad_means": rows(&gradients[0])?, "grad_stds": rows(&gradients[1])? }))
}

fn nominal_reward(case: &Case) -> Result<Answer> {
    let members: Vec<Vec<Vec<f64>>> = case.input("ensemble_rewards")?;
    let stds = flatten_members(&case.input::<Vec<Vec<Vec<f64>>>>("ensemble_stds")?);
    let (heads, rewards): (Vec<usize>, Vec<f64>) = surest_by_sample(&flatten_members(&members), &stds).into_iter().unzip();
    Ok(json!({ "rewards": regroup_members(&rewards, &members), "selected_head": regroup_members(&heads, &members) }))
}

fn robust_reward(case: &Case) -> Result<Answer> {
    let members: Vec<Vec<Vec<f64>>> = case.input("ensemble_rewards")?;
    let stds = case.input_opt::<Vec<Vec<Vec<f64>>>>("ensemble_stds")?.map(|stds| flatten_members(&stds)).unwrap_or_default();
    let nominal = case.choice("nominal", &[("min_std", Nominal::MinStd(&stds)), ("mean", Nominal::Mean)])?;
    let scope = case.choice("min_scope", &[("sample", Scope::Sample), ("batch", Scope::Batch)])?;
    let result = robust(&flatten_members(&members), nominal, case.param("nominal_weight")?, scope);
    Ok(json!({
        "rewards": regroup_members(&result.rewards, &members),
        "worst_head": result.worst_head,
        "objective": result.objective,
        "spread_nominal": result.spread_nominal,
        "spread_robust": result.spread_robust,
    }))
}
