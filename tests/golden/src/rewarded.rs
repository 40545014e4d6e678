//! Token rewards and advantages in cases.

use anyhow::Result;
use plumb_methods::returns::{Gae, Tokens, gae, kl_penalised_final_score};

use crate::Case;

/// Rows of numbers, one a sequence.
pub type Rows = Vec<Vec<f64>>;

/// Scores on the last tokens of sequences, and penalties of `beta` by their KL.
pub fn token_rewards(case: &Case, scores: &[f64], beta: f64) -> Result<Rows> {
    let (policy, reference): (Rows, Rows) = (case.input("policy_logps")?, case.input("ref_logps")?);
    let mask = case.truth_rows("mask")?;
    let of_row = |i: usize| {
        let tokens = Tokens { policy: &policy[i], reference: &reference[i], mask: &mask[i] };
        kl_penalised_final_score(scores[i], None, tokens, beta)
    };
    Ok((0..scores.len()).map(of_row).collect())
}

/// Advantages and returns of sequences under `mask`.
pub fn advantages(case: &Case, rewards: &Rows, gamma: f64, lambda: f64) -> Result<(Rows, Rows)> {
    let values: Rows = case.input("values")?;
    let rows = rewards.iter().zip(&values).zip(case.truth_rows("mask")?);
    Ok(rows
        .map(|((rewards, values), mask)| {
            let Gae { advantages, returns } = gae(rewards, values, &mask, gamma, lambda);
            (advantages, returns)
        })
        .unzip())
}
