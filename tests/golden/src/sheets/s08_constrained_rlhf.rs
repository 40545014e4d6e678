//! Sheet 08-constrained-rlhf.

use anyhow::Result;
use plumb_methods::advantage::mean;
use plumb_methods::constraint::{Multipliers, Squash, mixed_advantages, normalised, target_tracking};
use plumb_methods::nelder_mead::{Move, NelderMead, Search};
use plumb_methods::returns::{discounted, gae};
use plumb_methods::schedule::AdaptiveKl;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "08-constrained-rlhf",
    operations: &[
        ("lagrange_mixed_advantage", lagrange_mixed_advantage),
        ("lagrange_update", lagrange_update),
        ("target_tracking_reward", target_tracking_reward),
        ("adaptive_kl_coefficient", adaptive_kl_coefficient),
        ("nelder_mead_thresholds", nelder_mead_thresholds),
        ("component_gae", component_gae),
    ],
};

type Rows = Vec<Vec<f64>>;

fn squash(case: &Case) -> Result<Squash> {
    case.choice("squash", &[("sigmoid", Squash::Sigmoid), ("tanh", Squash::Tanh), ("none", Squash::None)])
}

fn lagrange_mixed_advantage(case: &Case) -> Result<Answer> {
    let (constraints, kl): (Rows, Vec<f64>) = (case.input("constraint_advantages")?, case.input("kl_advantages")?);
    let (ddof, epsilon): (usize, f64) = (case.param_or("ddof", 1)?, case.param_or("eps", 1e-8)?);
    let normalise: bool = case.param_or("normalise", true)?;
    let squash = squash(case)?;
    let weights: Vec<f64> = case.input::<Vec<f64>>("multipliers_raw")?.into_iter().map(|raw| squash.weight(raw)).collect();
    let kl_weight = squash.kl_weight(&weights);
    let prepared = |values: Vec<f64>| if normalise { normalised(&values, ddof, epsilon) } else { values };
    let components: Rows = (0..weights.len()).map(|j| prepared(constraints.iter().map(|row| row[j]).collect())).collect();
    let advantages = mixed_advantages(&components, &prepared(kl), &weights, kl_weight);
    Ok(json!({ "weights": weights, "kl_weight": kl_weight, "advantages": advantages }))
}

fn lagrange_update(case: &Case) -> Result<Answer> {
    let mut multipliers = Multipliers {
        raw: case.input("multipliers_raw")?,
        squash: squash(case)?,
        learning_rate: case.param("lr")?,
        momentum: case.param_or("momentum", 0.0)?,
        max_grad_norm: case.param_or("max_grad_norm", None)?,
        clamp_at_zero: case.param_or("clamp_at_zero", false)?,
        direction: None,
    };
    let thresholds: Vec<f64> = case.input("thresholds")?;
    let (mut raw, mut violations) = (Vec::new(), Vec::new());
    for batch in case.input::<Vec<Rows>>("episode_rewards")? {
        let violation = |(j, threshold): (usize, &f64)| mean(&batch.iter().map(|row| row[j]).collect::<Vec<_>>()) - threshold;
        let of_batch: Vec<f64> = thresholds.iter().enumerate().map(violation).collect();
        multipliers.update(&of_batch);
        raw.push(multipliers.raw.clone());
        violations.push(of_batch);
    }
    Ok(json!({ "multipliers_raw": raw, "violations": violations, "weights": multipliers.weights() }))
}

fn target_tracking_reward(case: &Case) -> Result<Answer> {
    let targets: Map<String, Value> = case.param("targets")?;
    let mut all: Map<String, Value> = case.input("components")?;
    let components: Vec<Rows> =
        targets.keys().map(|name| Ok(serde_json::from_value(all.remove(name).unwrap_or_default())?)).collect::<Result<_>>()?;
    let targets: Vec<f64> = targets.values().map(|target| target.as_f64().unwrap_or(f64::NAN)).collect();
    let groups = components.first().map_or(0, Vec::len);
    let reward = |group: usize, i: usize| {
        target_tracking(&components.iter().map(|component| component[group][i]).collect::<Vec<_>>(), &targets)
    };
    let rewards: Rows = (0..groups).map(|group| (0..components[0][group].len()).map(|i| reward(group, i)).collect()).collect();
    Ok(json!({ "rewards": rewards }))
}

fn adaptive_kl_coefficient(case: &Case) -> Result<Answer> {
    let mut controller = AdaptiveKl {
        coefficient: case.param("initial")?,
        target: case.param_or("target", None)?,
        error_clip: case.param_or("clip", AdaptiveKl::ERROR_CLIP)?,
    };
    let gain = case.param_or("horizon_gain", 0.1)?;
    let coefficients: Vec<f64> = case.input::<Vec<f64>>("kl")?.into_iter().map(|kl| controller.update(kl, gain)).collect();
    Ok(json!({ "coefficients": coefficients }))
}

/// What cases minimize: `Σ scale · (x - centre)²`.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Objective {
    WeightedSquaredDistance { centre: Vec<f64>, scale: Vec<f64> },
}

impl Objective {
    fn at(&self, x: &[f64]) -> f64 {
        let Objective::WeightedSquaredDistance { centre, scale } = self;
        x.iter().zip(centre).zip(scale).map(|((x, centre), scale)| scale * (x - centre).powi(2)).sum()
    }
}

fn nelder_mead_thresholds(case: &Case) -> Result<Answer> {
    let default = NelderMead::default();
    let search = NelderMead {
        alpha: case.param_or("alpha", default.alpha)?,
        gamma: case.param_or("gamma", default.gamma)?,
        rho: case.param_or("rho", default.rho)?,
        sigma: case.param_or("sigma", default.sigma)?,
        iterations: case.param_or("iterations", default.iterations)?,
        tolerance: case.param_or("tolerance", default.tolerance)?,
    };
    let objective: Objective = case.input("objective")?;
    let Search { simplex, values, moves } = search.minimize(case.input("simplex")?, |x| objective.at(x));
    let name = |made: &Move| match made {
        Move::Reflect => "reflect",
        Move::Expand => "expand",
        Move::Contract => "contract",
        Move::Shrink => "shrink",
    };
    let moves: Vec<_> = moves.iter().map(name).collect();
    Ok(json!({ "simplex": simplex, "moves": moves, "best_value": values.first() }))
}

fn component_gae(case: &Case) -> Result<Answer> {
    let (rewards, values): (Vec<Rows>, Vec<Rows>) = (case.input("component_token_rewards")?, case.input("component_values")?);
    let (gamma, lambda, mask) = (case.param("gamma")?, case.param("lambda")?, case.truth_rows("mask")?);
    let (mut advantages, mut returns, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for (rewards, values) in rewards.iter().zip(&values) {
        let rows = rewards.iter().zip(values).zip(&mask);
        let gaes: Vec<_> = rows.map(|((rewards, values), mask)| gae(rewards, values, mask, gamma, lambda)).collect();
        rest.push(rewards.iter().zip(&mask).map(|(rewards, mask)| discounted(rewards, mask, 1.0)).collect::<Vec<_>>());
        returns.push(gaes.iter().map(|gae| gae.returns.clone()).collect::<Vec<_>>());
        advantages.push(gaes.into_iter().map(|gae| gae.advantages).collect::<Vec<_>>());
    }
    Ok(json!({ "advantages": advantages, "returns": returns, "episode_reward_to_go": rest }))
}
