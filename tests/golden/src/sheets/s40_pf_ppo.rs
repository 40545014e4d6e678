//! Sheet 40-pf-ppo.

use anyhow::{Result, bail};
use plumb_methods::evaluation::filtration::{filtered_r_squared, grouped_r_squared};
use plumb_methods::reward::ensemble::normalised;
use plumb_methods::selection::filtration::{Filter, Ranks, Reweighting, buffer_weights};
use plumb_methods::stats::r_squared;
use serde_json::{Map, Value, json};

use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "40-pf-ppo",
    operations: &[
        ("filter_weights", filter_weights),
        ("filter_probabilities", filter_probabilities),
        ("filter_sample", filter_sample),
        ("buffer_weights", reweighted_buffer),
        ("r_squared", r_squared_of),
        ("grouped_r_squared", r_squared_of_groups),
        ("strategy_table", strategy_table),
    ],
};

type Groups = Vec<Vec<f64>>;

const FILTERS: [(&str, Filter); 4] =
    [("all", Filter::All), ("bon", Filter::Best), ("br", Filter::BestRandom), ("bw", Filter::BestWorst)];

fn filter_weights(case: &Case) -> Result<Answer> {
    let (strategies, n): (Vec<String>, Vec<usize>) = (case.input("strategies")?, case.input("n")?);
    let weights = |(name, n): (&String, &usize)| match FILTERS.iter().find(|(filter, _)| filter == name) {
        Some((_, filter)) => Ok(filter.weights(*n)),
        None => bail!("no strategy `{name}`"),
    };
    Ok(json!({ "weights": strategies.iter().zip(&n).map(weights).collect::<Result<Groups>>()? }))
}

/// Groups of rewards and their ranks.
fn ranks(case: &Case) -> Result<Vec<(Vec<f64>, Ranks)>> {
    let (rewards, filter): (Groups, Filter) = (case.input("rewards")?, case.choice("strategy", &FILTERS)?);
    Ok(rewards.into_iter().map(|group| (group.clone(), Ranks::new(&group, filter))).collect())
}

fn filter_probabilities(case: &Case) -> Result<Answer> {
    let groups = ranks(case)?;
    Ok(json!({
        "order": groups.iter().map(|(_, ranks)| &ranks.order).collect::<Vec<_>>(),
        "probabilities": groups.iter().map(|(rewards, ranks)| ranks.probabilities(rewards.len())).collect::<Groups>(),
        "expected_reward": groups.iter().map(|(rewards, ranks)| ranks.expected_reward(rewards)).collect::<Vec<_>>(),
    }))
}

fn filter_sample(case: &Case) -> Result<Answer> {
    let uniforms: Groups = case.input("uniforms")?;
    let draw = |((_, ranks), uniforms): (&(Vec<f64>, Ranks), &Vec<f64>)| {
        uniforms.iter().filter_map(|&uniform| ranks.draw(uniform)).collect::<Vec<_>>()
    };
    Ok(json!({ "selected": ranks(case)?.iter().zip(&uniforms).map(draw).collect::<Vec<_>>() }))
}

fn reweighted_buffer(case: &Case) -> Result<Answer> {
    let random = Reweighting::MaxRandom { best: case.param_or("best_weight", 0.4)?, rest: case.param_or("rest_weight", 0.1)? };
    let power = Reweighting::Power(case.param_or("power", 2.0)?);
    let by = case.choice("method", &[("max_min", Reweighting::MaxMin), ("max_random", random), ("pow", power)])?;
    let prompts: Vec<Value> = case.input_opt("prompt_ids")?.unwrap_or_default();
    let prompts: Vec<String> = prompts.iter().map(Value::to_string).collect();
    let weights = buffer_weights(&case.input::<Vec<f64>>("scores")?, &prompts, by);
    Ok(json!({ "probabilities": normalised(&weights), "weights": weights }))
}

/// Rewards and true scores of samples.
fn samples(case: &Case) -> Result<(Vec<f64>, Vec<f64>)> {
    Ok((case.input("rewards_flat")?, case.input("scores")?))
}

fn r_squared_of(case: &Case) -> Result<Answer> {
    let (rewards, scores) = samples(case)?;
    Ok(json!({ "r2": r_squared(&rewards, &scores) }))
}

fn r_squared_of_groups(case: &Case) -> Result<Answer> {
    let (rewards, scores) = samples(case)?;
    let grouped = grouped_r_squared(&rewards, &scores, case.param("groups")?);
    Ok(json!({ "group_rewards": grouped.rewards, "group_scores": grouped.scores, "r2": grouped.r_squared }))
}

fn strategy_table(case: &Case) -> Result<Answer> {
    let (rewards, scores): (Groups, Groups) = (case.input("rewards")?, case.input("gold")?);
    let row = |(name, filter): (&str, Filter)| (name.to_owned(), json!(filtered_r_squared(&rewards, &scores, filter)));
    Ok(json!({ "r2": FILTERS.into_iter().map(row).collect::<Map<_, _>>() }))
}
