//! Sheet 29-maxmin-rlhf.

use anyhow::{Context, Result};
use plumb_methods::evaluation::benchmark::egalitarian;
use plumb_methods::reward::ensemble::{normalised, weighted, worst_by_batch, worst_by_sample};
use plumb_methods::reward::expectation_maximization::{
    cluster_sizes, hard_assignment, log_likelihoods, soft_responsibilities, weighted_bradley_terry,
};
use serde_json::json;

use crate::groups::{flatten_members, regroup, regroup_members};
use crate::tensor::{flat, gradients, matrix, rows};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "29-maxmin-rlhf",
    operations: &[
        ("em_hard_assignment", em_hard_assignment),
        ("em_soft_responsibilities", em_soft_responsibilities),
        ("em_weighted_bt_loss", em_weighted_bt_loss),
        ("maxmin_per_sample", maxmin_per_sample),
        ("maxmin_batch_utility", maxmin_batch_utility),
        ("single_reward_baseline", single_reward_baseline),
        ("egalitarian_report", egalitarian_report),
    ],
};

type Members = Vec<Vec<Vec<f64>>>;

fn em_hard_assignment(case: &Case) -> Result<Answer> {
    let margins: Members = case.input("user_pair_margins")?;
    let likelihoods = log_likelihoods(&margins);
    let assignment = hard_assignment(&likelihoods);
    let sizes = cluster_sizes(&assignment, margins.len());
    Ok(json!({ "user_log_likelihood": likelihoods, "assignment": assignment, "cluster_sizes": sizes }))
}

fn em_soft_responsibilities(case: &Case) -> Result<Answer> {
    let likelihoods = log_likelihoods(&case.input::<Members>("user_pair_margins")?);
    let soft = soft_responsibilities(&likelihoods, &case.input::<Vec<f64>>("mixture_weights")?);
    Ok(json!({
        "responsibilities": soft.values,
        "updated_mixture_weights": soft.mixture_weights,
        "log_evidence": soft.log_evidence,
    }))
}

fn em_weighted_bt_loss(case: &Case) -> Result<Answer> {
    let margins: Members = case.input("user_pair_margins")?;
    let responsibilities: Vec<Vec<f64>> = case.input("responsibilities")?;
    let by_pair = |(member, annotators): (usize, &Vec<Vec<f64>>)| {
        let of = |(annotator, pairs): (usize, &Vec<f64>)| vec![responsibilities[annotator][member]; pairs.len()];
        annotators.iter().enumerate().flat_map(of).collect::<Vec<f64>>()
    };
    let weights = matrix(&margins.iter().enumerate().map(by_pair).collect::<Vec<_>>())?;
    let flat_margins = matrix(&flatten_members(&margins))?;
    let losses = weighted_bradley_terry(&flat_margins, &weights)?;
    let (_, gradients) = gradients(&[flat_margins], |l| weighted_bradley_terry(&l[0], &weights)?.sum_all())?;
    let by_member = rows(&gradients[0])?;
    let d_margins: Vec<_> = margins.iter().zip(&by_member).map(|(like, gradient)| regroup(gradient, like)).collect();
    Ok(json!({ "member_loss": flat(&losses)?, "d_margins": d_margins }))
}

fn maxmin_per_sample(case: &Case) -> Result<Answer> {
    let members: Members = case.input("ensemble_rewards")?;
    let (selected, rewards): (Vec<usize>, Vec<f64>) = worst_by_sample(&flatten_members(&members)).into_iter().unzip();
    Ok(json!({ "rewards": regroup_members(&rewards, &members), "selected_member": regroup_members(&selected, &members) }))
}

fn maxmin_batch_utility(case: &Case) -> Result<Answer> {
    let members: Members = case.input("ensemble_rewards")?;
    let (utilities, selected) = worst_by_batch(&flatten_members(&members));
    // Without completions there are no rewards to choose, and what is given back are the empty groups.
    let rewards = members.get(selected.unwrap_or(0));
    Ok(json!({ "member_utility": utilities, "selected_member": selected, "rewards": rewards }))
}

fn single_reward_baseline(case: &Case) -> Result<Answer> {
    let members: Members = case.input("ensemble_rewards")?;
    let shares = normalised(&case.input::<Vec<f64>>("population_shares")?).context("the shares add up to nothing")?;
    Ok(json!({ "rewards": regroup_members(&weighted(&flatten_members(&members), &shares), &members) }))
}

fn egalitarian_report(case: &Case) -> Result<Answer> {
    let report = egalitarian(&case.input::<Vec<Vec<f64>>>("wins")?);
    Ok(json!({
        "group_win_rate": report.rates,
        "min_win_rate": report.min,
        "mean_win_rate": report.mean,
        "gap": report.gap,
    }))
}
