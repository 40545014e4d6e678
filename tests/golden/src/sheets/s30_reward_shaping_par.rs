//! Sheet 30-reward-shaping-par.

use anyhow::Result;
use plumb_methods::returns::discounted;
use plumb_methods::reward::length::excess_penalty;
use serde_json::json;

use crate::rewarded::{Rows, advantages, token_rewards};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "30-reward-shaping-par",
    operations: &[
        ("length_penalty", length_penalty),
        ("token_rewards_with_kl", token_rewards_with_kl),
        ("discounted_returns_and_gae", discounted_returns_and_gae),
    ],
};

fn length_penalty(case: &Case) -> Result<Answer> {
    let (rewards, lengths): (Rows, Vec<Vec<usize>>) = (case.input("rewards")?, case.input("lengths")?);
    let (valid, penalty) = (case.param("valid_len")?, case.param("penalty_per_token")?);
    let of_row = |(rewards, lengths): (&Vec<f64>, &Vec<usize>)| {
        rewards.iter().zip(lengths).map(|(reward, length)| reward - excess_penalty(*length, valid, penalty)).collect::<Vec<_>>()
    };
    Ok(json!({ "rewards": rewards.iter().zip(&lengths).map(of_row).collect::<Vec<_>>() }))
}

fn token_rewards_with_kl(case: &Case) -> Result<Answer> {
    let rewards = token_rewards(case, &case.input::<Vec<f64>>("rewards_flat")?, case.param("kl_coef")?)?;
    Ok(json!({ "token_rewards": rewards }))
}

fn discounted_returns_and_gae(case: &Case) -> Result<Answer> {
    let (rewards, gamma): (Rows, f64) = (case.input("token_rewards")?, case.param("gamma")?);
    let (advantages, _) = advantages(case, &rewards, gamma, case.param("lam")?)?;
    let mask = case.truth_rows("mask")?;
    let returns: Rows = rewards.iter().zip(&mask).map(|(rewards, mask)| discounted(rewards, mask, gamma)).collect();
    Ok(json!({ "gae_advantages": advantages, "monte_carlo_returns": returns }))
}
