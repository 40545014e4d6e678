//! Sheet 09-domain-knowledge-reward.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use plumb_methods::loss::reward::{RewardStats, bradley_terry};
use plumb_methods::reward::features::{Scale, influence};
use plumb_methods::reward::mlp::{self, Layer};
use serde_json::json;

use super::layers;
use crate::groups::{flatten, regroup};
use crate::tensor::{flat, gradients, matrix, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "09-domain-knowledge-reward",
    operations: &[
        ("feature_reward_mlp", feature_reward_mlp),
        ("feature_standardise", feature_standardise),
        ("elo_preference_loss", elo_preference_loss),
        ("feature_influence", feature_influence),
    ],
};

fn feature_reward_mlp(case: &Case) -> Result<Answer> {
    let names: Vec<String> = case.param("features")?;
    let components: BTreeMap<String, Vec<Vec<f64>>> = case.input("components")?;
    let scale = Scale { mean: case.param("mean")?, std: case.param("std")? };
    let feature = |name: &String| components.get(name).with_context(|| format!("there is no component `{name}`"));
    let groups = names.iter().map(feature).collect::<Result<Vec<_>>>()?;
    let columns: Vec<Vec<f64>> = groups.iter().map(|groups| flatten(groups)).collect();
    let samples = columns.first().map_or(0, Vec::len);
    let row = |i: usize| scale.standardise(&columns.iter().map(|column| column[i]).collect::<Vec<f64>>());
    let features: Vec<Vec<f64>> = (0..samples).map(row).collect();
    let rewards = if features.is_empty() {
        Vec::new()
    } else {
        flat(&mlp::rewards(&matrix(&features)?, &layers::layers(case)?, layers::activation(case, "relu")?)?)?
    };
    Ok(json!({ "rewards": groups.first().map_or_else(Vec::new, |groups| regroup(&rewards, groups)) }))
}

fn feature_standardise(case: &Case) -> Result<Answer> {
    let features: Vec<Vec<f64>> = case.input("features")?;
    let scale = Scale::of(&features, case.param_or("ddof", 0)?);
    let standardised: Vec<Vec<f64>> = features.iter().map(|row| scale.standardise(row)).collect();
    Ok(json!({ "mean": scale.mean, "std": scale.std, "standardised": standardised }))
}

fn elo_preference_loss(case: &Case) -> Result<Answer> {
    let chosen = matrix(&case.input::<Vec<Vec<f64>>>("chosen_features")?)?;
    let rejected = matrix(&case.input::<Vec<Vec<f64>>>("rejected_features")?)?;
    let (layers, activation) = (layers::layers(case)?, layers::activation(case, "relu")?);
    let margins = vector(&vec![0.0; chosen.dim(0)?])?;
    let leaves: Vec<_> = layers.iter().flat_map(|layer| [layer.weight.clone(), layer.bias.clone()]).collect();
    let (loss, gradients) = gradients(&leaves, |l| {
        let layers: Vec<Layer> = l.chunks(2).map(|l| Layer { weight: l[0].clone(), bias: l[1].clone() }).collect();
        let rewards = |features| mlp::rewards(features, &layers, activation);
        bradley_terry(&rewards(&chosen)?, &rewards(&rejected)?, &margins, 0.0)?.mean_all()
    })?;
    let mut stats = RewardStats::default();
    let rewards = |features| flat(&mlp::rewards(features, &layers, activation)?);
    rewards(&chosen)?.iter().zip(rewards(&rejected)?).for_each(|(chosen, rejected)| stats.add(*chosen, rejected));
    let mut answer = json!({ "loss": loss, "accuracy": stats.accurate / stats.pairs.max(1.0) });
    for (l, gradient) in gradients.chunks(2).enumerate() {
        answer[format!("grad_weight_{l}")] = json!(rows(&gradient[0])?);
        answer[format!("grad_bias_{l}")] = json!(flat(&gradient[1])?);
    }
    Ok(answer)
}

fn feature_influence(case: &Case) -> Result<Answer> {
    let features = matrix(&case.input::<Vec<Vec<f64>>>("features")?)?;
    let influence = influence(&features, &layers::layers(case)?, layers::activation(case, "relu")?)?;
    Ok(json!({ "influence": flat(&influence)? }))
}
