//! Sheet 04-pairwise-rl.

use anyhow::Result;
use serde_json::json;

use crate::policy::clipped;
use crate::rewarded::{advantages, token_rewards};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "04-pairwise-rl",
    operations: &[("token_rewards_and_gae", token_rewards_and_gae), ("ppo_clip_loss", ppo_clip_loss)],
};

fn token_rewards_and_gae(case: &Case) -> Result<Answer> {
    let rewards = token_rewards(case, &case.input::<Vec<f64>>("rewards")?, case.param("kl_coefficient")?)?;
    let (advantages, returns) = advantages(case, &rewards, case.param("gamma")?, case.param("lambda")?)?;
    Ok(json!({ "token_rewards": rewards, "advantages": advantages, "returns": returns }))
}

fn ppo_clip_loss(case: &Case) -> Result<Answer> {
    let mut answer = clipped(case, Some(case.param("clip")?), &case.truth_rows("mask")?, "grad_policy_logps")?;
    // This sheet counts ratios beyond the bounds.
    answer["clip_fraction"] = answer["outside"].take();
    Ok(answer)
}
