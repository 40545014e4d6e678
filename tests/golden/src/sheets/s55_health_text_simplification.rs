//! Sheet 55-health-text-simplification: what is made of its components. The texts' metrics belong to plugins.

use std::collections::BTreeMap;

use anyhow::Result;
use plumb_methods::reward::combine::{Rule, combine};
use serde_json::json;

use crate::groups::{flatten, regroup};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet =
    Sheet { method: "55-health-text-simplification", operations: &[("combine_components", combine_components)] };

fn combine_components(case: &Case) -> Result<Answer> {
    let rule = case.choice(
        "mode",
        &[
            ("harmonic", Rule::Harmonic),
            ("weighted_sum", Rule::WeightedSum),
            ("weighted_mean", Rule::WeightedMean),
            ("product", Rule::Product),
            ("min", Rule::Min),
        ],
    )?;
    let components: BTreeMap<String, Vec<Vec<f64>>> = case.input("components")?;
    let weights: BTreeMap<String, f64> = case.param_or("weights", BTreeMap::new())?;
    let columns: Vec<(f64, Vec<f64>)> = components
        .iter()
        .map(|(name, groups)| (weights.get(name).copied(), flatten(groups)))
        // A component that has no weight is part of the least alone, which reads none.
        .filter_map(|(weight, values)| Some((if rule == Rule::Min { weight.or(Some(1.0)) } else { weight }?, values)))
        .collect();
    let samples = components.values().next().map_or(0, |groups| flatten(groups).len());
    let sample = |i: usize| combine(&columns.iter().map(|(weight, values)| (*weight, values[i])).collect::<Vec<_>>(), rule);
    let rewards: Vec<f64> = (0..samples).map(sample).collect();
    Ok(json!({ "rewards": components.values().next().map(|groups| regroup(&rewards, groups)).unwrap_or_default() }))
}
