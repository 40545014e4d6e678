//! Sheet 46-dr-po.

use anyhow::Result;
use plumb_methods::resets::{forced_tokens, scored};
use plumb_methods::returns::{Divisor, Tokens, gae, kl_penalised_final_score, whiten};
use serde_json::json;

use crate::groups::{flatten, regroup};
use crate::policy::clipped;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "46-dr-po",
    operations: &[("rollin_mask", rollin_mask), ("drpo_advantages", drpo_advantages), ("drpo_policy_loss", drpo_policy_loss)],
};

type Rows = Vec<Vec<f64>>;

/// Added to variances.
const EPSILON: f64 = 1e-8;

fn rollin_mask(case: &Case) -> Result<Answer> {
    let (lengths, width): (Vec<usize>, usize) = (case.input("reference_lengths")?, case.param("width")?);
    let (resets, cuts): (Vec<f64>, Vec<f64>) = (case.input("reset_uniform")?, case.input("cut_uniform")?);
    let probability = case.param("reset_probability")?;
    let forced: Vec<usize> = (0..lengths.len()).map(|i| forced_tokens(lengths[i], probability, resets[i], cuts[i])).collect();
    let masks: Vec<Vec<u8>> = forced.iter().map(|&forced| (0..width).map(|t| u8::from(t < forced)).collect()).collect();
    Ok(json!({ "forced_tokens": forced, "rollin_mask": masks }))
}

fn drpo_advantages(case: &Case) -> Result<Answer> {
    let read = |name: &str| case.input::<Rows>(name);
    let (policy, reference, values) = (read("policy_logps")?, read("ref_logps")?, read("values")?);
    let (mask, rollin) = (case.truth_rows("mask")?, case.truth_rows("rollin_mask")?);
    let (beta, gamma, lambda): (f64, f64, f64) = (case.param("kl_coef")?, case.param("gamma")?, case.param("lam")?);
    let missing: Option<f64> = case.param_or("missing_eos_score", None)?;
    let scores: Vec<f64> = flatten(&read("rewards")?);
    let ended = case.truths("has_eos")?;
    let of_row = |i: usize| {
        let tokens = Tokens { policy: &policy[i], reference: &reference[i], mask: &mask[i] };
        kl_penalised_final_score(scored(scores[i], ended[i], missing), None, tokens, beta)
    };
    let rewards: Rows = (0..policy.len()).map(of_row).collect();
    let divisor = Divisor::Deviation(EPSILON);
    let used = if case.param_or("whiten_rewards", true)? {
        regroup(&whiten(&flatten(&rewards), &flatten(&mask), false, divisor, 0), &rewards)
    } else {
        rewards.clone()
    };
    let gaes: Vec<_> = (0..policy.len()).map(|i| gae(&used[i], &values[i], &mask[i], gamma, lambda)).collect();
    let returns: Rows = gaes.iter().map(|gae| gae.returns.clone()).collect();
    let advantages: Rows = gaes.into_iter().map(|gae| gae.advantages).collect();
    let generated = case.choice("whiten_scope", &[("response", false), ("generated", true)])?;
    let scope: Vec<bool> =
        flatten(&mask).into_iter().zip(flatten(&rollin)).map(|(seen, forced)| seen && !(generated && forced)).collect();
    let advantages = if case.param_or("whiten_advantages", true)? {
        regroup(&whiten(&flatten(&advantages), &scope, true, divisor, 0), &advantages)
    } else {
        advantages
    };
    Ok(json!({ "token_rewards": rewards, "advantages": advantages, "returns": returns }))
}

fn drpo_policy_loss(case: &Case) -> Result<Answer> {
    let (mut mask, rollin) = (case.truth_rows("mask")?, case.truth_rows("rollin_mask")?);
    for (mask, rollin) in mask.iter_mut().zip(&rollin) {
        mask.iter_mut().zip(rollin).for_each(|(seen, forced)| *seen &= !forced);
    }
    clipped(case, Some(case.param("clip")?), &mask, "d_policy_logps")
}
