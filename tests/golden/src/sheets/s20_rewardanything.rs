//! Sheet 20-rewardanything.

use anyhow::Result;
use plumb_methods::advantage::normalised_group;
use plumb_methods::evaluation::listwise::{self, Gain, kendall_tau_b, ndcg, pairwise_accuracy};
use serde_json::{Map, Value, json};

use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "20-rewardanything",
    operations: &[
        ("weighted_pair_reward", weighted_pair_reward),
        ("listwise_metrics", listwise_metrics),
        ("grpo_advantage", grpo_advantage),
    ],
};

fn weighted_pair_reward(case: &Case) -> Result<Answer> {
    let (predicted, consensus): (Vec<Map<String, Value>>, Vec<Map<String, Value>>) =
        (case.input("predicted")?, case.input("consensus")?);
    let reward = |(predicted, consensus): (&Map<String, Value>, &Map<String, Value>)| {
        let number = |value: &Value| value.as_f64();
        let common = consensus.iter().filter_map(|(name, truth)| Some((number(predicted.get(name)?)?, number(truth)?)));
        let (predicted, truth): (Vec<f64>, Vec<f64>) = common.unzip();
        listwise::weighted_pair_reward(&predicted, &truth)
    };
    Ok(json!({ "rewards": predicted.iter().zip(&consensus).map(reward).collect::<Vec<_>>() }))
}

fn listwise_metrics(case: &Case) -> Result<Answer> {
    let (predicted, consensus): (Vec<f64>, Vec<f64>) = (case.input("predicted")?, case.input("consensus")?);
    let gain = case.choice("ndcg_gain", &[("linear", Gain::Linear), ("exp2", Gain::Exponential)])?;
    Ok(json!({
        "pairwise_accuracy": pairwise_accuracy(&predicted, &consensus),
        "kendall_tau_b": kendall_tau_b(&predicted, &consensus),
        "ndcg": ndcg(&predicted, &consensus, gain),
    }))
}

/// Advantages of groups by verl's convention.
pub(super) fn grpo_advantage(case: &Case) -> Result<Answer> {
    let (ddof, epsilon) = (case.param_or("ddof", 1)?, case.param_or("epsilon", 1e-6)?);
    let groups: Vec<Vec<f64>> = case.input("rewards")?;
    let advantages: Vec<_> = groups.iter().map(|rewards| normalised_group(rewards, ddof, epsilon)).collect();
    Ok(json!({ "advantages": advantages }))
}
