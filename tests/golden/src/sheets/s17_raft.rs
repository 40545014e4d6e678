//! Sheet 17-raft.

use anyhow::Result;
use plumb_methods::loss::sequence::Reduction;
use plumb_methods::selection::best::{Share, best, less_divergence, mean_rewards};
use serde_json::json;

use crate::likelihood::likelihood;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "17-raft",
    operations: &[
        ("raft_select", raft_select),
        ("raft_kl_regularized_select", raft_kl_regularized_select),
        ("sft_token_nll", sft_token_nll),
    ],
};

fn raft_select(case: &Case) -> Result<Answer> {
    let rewards: Vec<Vec<f64>> = case.input("rewards")?;
    let local = case.choice("strategy", &[("local", true), ("global", false)])?;
    let share = if local { Share::PerGroup(case.param_or("per_group", 1)?) } else { Share::OfAll(case.param("top_fraction")?) };
    let selected = best(&rewards, share);
    let (all, of_selected) = mean_rewards(&rewards, &selected);
    let chosen: Vec<f64> = selected.iter().map(|&(group, i)| rewards[group][i]).collect();
    Ok(json!({
        "selected": selected,
        "selected_rewards": chosen,
        "mean_reward_all": all,
        "mean_reward_selected": of_selected,
    }))
}

fn raft_kl_regularized_select(case: &Case) -> Result<Answer> {
    let read = |name: &str| case.input::<Vec<Vec<f64>>>(name);
    let (rewards, policy, reference) = (read("rewards")?, read("policy_logps_sum")?, read("ref_logps_sum")?);
    let weight = case.param("kl_weight")?;
    let adjusted: Vec<Vec<f64>> =
        (0..rewards.len()).map(|i| less_divergence(&rewards[i], &policy[i], &reference[i], weight)).collect();
    Ok(json!({ "selected": best(&adjusted, Share::PerGroup(1)), "adjusted_rewards": adjusted }))
}

fn sft_token_nll(case: &Case) -> Result<Answer> {
    let reduction = case.choice("reduction", &[("token_mean", Reduction::TokenMean), ("seq_mean", Reduction::MeanOfMeans)])?;
    likelihood(case, reduction, "d_loss_d_policy_logps")
}
