//! Sheet 12-reward-ensembles.

use anyhow::Result;
use plumb_methods::evaluation::best_of_n::{best_of_n_kl, unbiased};
use plumb_methods::returns::{Tokens, kl_penalised_final_score};
use plumb_methods::reward::ensemble::{Objective, combine, variances};
use plumb_methods::selection::top_k::label_noise;
use plumb_methods::stats::first_max;
use serde_json::json;

use crate::groups::{flatten_members, regroup_members};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "12-reward-ensembles",
    operations: &[
        ("ensemble_combine", ensemble_combine),
        ("best_of_n_unbiased", best_of_n_unbiased),
        ("best_of_n_select", best_of_n_select),
        ("label_noise", label_noise_of),
        ("kl_penalised_token_rewards", kl_penalised_token_rewards),
    ],
};

/// Combined rewards and variances in groups.
fn combined(case: &Case) -> Result<[Vec<Vec<f64>>; 2]> {
    let members: Vec<Vec<Vec<f64>>> = case.input("ensemble_rewards")?;
    let ddof = case.param_or("ddof", 0)?;
    let uncertainty = Objective::Uncertainty { coefficient: case.param_or("coefficient", 0.5)?, ddof };
    let objective = case.choice("objective", &[("mean", Objective::Mean), ("wco", Objective::Worst), ("uwo", uncertainty)])?;
    let flat = flatten_members(&members);
    Ok([combine(&flat, objective), variances(&flat, ddof)].map(|values| regroup_members(&values, &members)))
}

fn ensemble_combine(case: &Case) -> Result<Answer> {
    let [rewards, variance] = combined(case)?;
    Ok(json!({ "rewards": rewards, "variance": variance }))
}

fn best_of_n_select(case: &Case) -> Result<Answer> {
    let [rewards, _] = combined(case)?;
    let selected: Vec<Option<usize>> = rewards.iter().map(|group| first_max(group)).collect();
    Ok(json!({ "selected": selected, "rewards": rewards }))
}

fn best_of_n_unbiased(case: &Case) -> Result<Answer> {
    let (proxy, gold): (Vec<f64>, Vec<f64>) = (case.input("rewards")?, case.input("gold_rewards")?);
    let point = |n: &usize| {
        let (proxy, gold) = unbiased(&proxy, &gold, *n).unzip();
        json!({ "n": n, "proxy": proxy, "gold": gold, "kl": best_of_n_kl(*n) })
    };
    Ok(json!({ "points": case.param::<Vec<usize>>("n")?.iter().map(point).collect::<Vec<_>>() }))
}

fn label_noise_of(case: &Case) -> Result<Answer> {
    Ok(json!({ "flipped": label_noise(&case.input::<Vec<f64>>("uniforms")?, case.param("rate")?) }))
}

fn kl_penalised_token_rewards(case: &Case) -> Result<Answer> {
    let (scores, beta, clip): (Vec<f64>, f64, Option<f64>) =
        (case.input("rewards")?, case.param("kl_coefficient")?, case.param_or("reward_clip", None)?);
    let (policy, reference): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (case.input("policy_logps")?, case.input("ref_logps")?);
    let mask = case.truth_rows("mask")?;
    let row = |i: usize| {
        let tokens = Tokens { policy: &policy[i], reference: &reference[i], mask: &mask[i] };
        kl_penalised_final_score(scores[i], clip, tokens, beta)
    };
    Ok(json!({ "token_rewards": (0..scores.len()).map(row).collect::<Vec<_>>() }))
}
