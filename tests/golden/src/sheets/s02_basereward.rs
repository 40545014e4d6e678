//! Sheet 02-basereward.

use anyhow::{Context, Result};
use plumb_methods::evaluation::benchmark::{Pair, accuracy};
use plumb_methods::loss::ranking::length_normalised;
use plumb_methods::loss::reward::bradley_terry;
use plumb_methods::reward::combine::{match_or_score, pairwise_sums};
use plumb_methods::reward::ensemble::{Weighting, validation_weights, weighted};
use plumb_methods::reward::mlp;
use serde_json::{Value, json};

use super::layers;
use crate::groups::{flatten, flatten_members, regroup, regroup_members};
use crate::tensor::{flat, gradients, matrix, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "02-basereward",
    operations: &[
        ("reward_model_loss", reward_model_loss),
        ("reward_head_mlp", reward_head_mlp),
        ("hybrid_reward", hybrid_reward),
        ("pairwise_sum_reward", pairwise_sum_reward),
        ("ensemble_reward", ensemble_reward),
        ("reward_bench_accuracy", reward_bench_accuracy),
    ],
};

fn reward_model_loss(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    let leaves = [vector(&chosen)?, vector(&rejected)?];
    let lengths: Option<[Vec<usize>; 2]> = if case.param_or("length_normalisation", false)? {
        Some([case.input("chosen_lengths")?, case.input("rejected_lengths")?])
    } else {
        None
    };
    let zero_coefficient = case.param_or("zero_coefficient", 0.0)?;
    let margins = vector(&vec![0.0; chosen.len()])?;
    let loss = |centre: f64| {
        gradients(&leaves, |l| match &lengths {
            None => bradley_terry(&l[0], &l[1], &margins, centre)?.mean_all(),
            Some([c, r]) => {
                bradley_terry(&length_normalised(&l[0], c)?, &length_normalised(&l[1], r)?, &margins, centre)?.mean_all()
            }
        })
    };
    let ((ranking, _), (total, gradients)) = (loss(0.0)?, loss(zero_coefficient)?);
    Ok(json!({
        "loss": total,
        "ranking_loss": ranking,
        "zero_loss": total - ranking,
        "grad_chosen_rewards": flat(&gradients[0])?,
        "grad_rejected_rewards": flat(&gradients[1])?,
    }))
}

fn reward_head_mlp(case: &Case) -> Result<Answer> {
    let hidden = matrix(&case.input::<Vec<Vec<f64>>>("hidden")?)?;
    let rewards = mlp::rewards(&hidden, &layers::layers(case)?, layers::activation(case, "silu")?)?;
    Ok(json!({ "rewards": flat(&rewards)? }))
}

fn hybrid_reward(case: &Case) -> Result<Answer> {
    let (scores, matches): (Vec<Vec<f64>>, _) = (case.input("rewards")?, case.truth_rows("exact_match")?);
    let rewards: Vec<f64> =
        flatten(&scores).into_iter().zip(flatten(&matches)).map(|(score, exact)| match_or_score(score, exact)).collect();
    Ok(json!({ "rewards": regroup(&rewards, &scores) }))
}

fn pairwise_sum_reward(case: &Case) -> Result<Answer> {
    Ok(json!({ "rewards": pairwise_sums(&case.input::<Vec<Vec<f64>>>("pair_scores")?) }))
}

fn ensemble_reward(case: &Case) -> Result<Answer> {
    let weighting = case.choice(
        "weighting",
        &[("mean", Weighting::Mean), ("accuracy", Weighting::Accuracy), ("confidence", Weighting::Confidence)],
    )?;
    let members: Vec<Vec<Vec<f64>>> = case.input("ensemble_rewards")?;
    let chosen: Vec<Vec<f64>> = case.input_opt("validation_chosen")?.unwrap_or_else(|| vec![Vec::new(); members.len()]);
    let rejected: Vec<Vec<f64>> = case.input_opt("validation_rejected")?.unwrap_or_else(|| vec![Vec::new(); members.len()]);
    let weights = validation_weights(&chosen, &rejected, weighting).context("the validation gives no weights to average by")?;
    let rewards = regroup_members(&weighted(&flatten_members(&members), &weights), &members);
    Ok(json!({ "weights": weights, "rewards": rewards }))
}

fn reward_bench_accuracy(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    // Samples are numbered or named.
    let names = |name: &str| Ok(case.input::<Vec<Value>>(name)?.iter().map(Value::to_string).collect::<Vec<String>>());
    let (samples, categories): (Result<Vec<String>>, Result<Vec<String>>) = (names("sample"), names("category"));
    let (samples, categories) = (samples?, categories?);
    let pair = |i: usize| Pair { chosen: chosen[i], rejected: rejected[i], sample: &samples[i], category: &categories[i] };
    let result = accuracy(&(0..chosen.len()).map(pair).collect::<Vec<_>>());
    Ok(json!({ "accuracy": result.pairs, "accuracy_plus": result.samples, "macro_accuracy": result.categories }))
}
