//! Sheet 41-mm-rlhf.

use anyhow::{Context, Result};
use candle_core::Tensor;
use plumb_methods::evaluation::benchmark::{Pair, accuracy};
use plumb_methods::loss;
use plumb_methods::loss::critique::{CritiqueLoss, CritiqueWeights, critique_loss};
use plumb_methods::loss::sequence::{Reduction, negative_log_likelihood};
use plumb_methods::loss::soft_preference::{batch_beta, dpo_of_betas, dynamic_beta};
use plumb_methods::loss::with_auxiliary;
use plumb_methods::selection::pairs;
use plumb_methods::stats::mean_opt;
use serde_json::{Value, json};

use crate::pairs::Pairs;
use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "41-mm-rlhf",
    operations: &[
        ("dynamic_beta", betas),
        ("mm_dpo_loss", mm_dpo_loss),
        ("all_rank_pairs", all_rank_pairs),
        ("hardest_pair", hardest_pair),
        ("critique_reward_loss", critique_reward_loss),
        ("critique_mean_score", critique_mean_score),
        ("reward_bench_acc_plus", reward_bench_acc_plus),
        ("beta_dpo_batch", beta_dpo_batch),
    ],
};

fn margin_betas(case: &Case) -> Result<Vec<f64>> {
    let (beta, w, k) = (case.param("beta_ori")?, case.param("w")?, case.param("k")?);
    Ok(case.input::<Vec<f64>>("reward_margins")?.iter().map(|&margin| dynamic_beta(margin, beta, w, k)).collect())
}

fn betas(case: &Case) -> Result<Answer> {
    Ok(json!({ "beta": margin_betas(case)? }))
}

fn mm_dpo_loss(case: &Case) -> Result<Answer> {
    let (betas, gamma) = (margin_betas(case)?, case.param_or("gamma", 0.0)?);
    let betas_tensor = vector(&betas)?;
    let pairs = Pairs::tokens(case)?;
    let reference = pairs.reference_logps()?;
    let [mask, _] = pairs.masks.as_ref().context("the loss is over tokens")?;
    let mask = vector(&mask.concat())?;
    let nll = |policy: &[Tensor]| negative_log_likelihood(&policy[0], &mask, Reduction::TokenMean);
    let losses = |policy: &[Tensor]| dpo_of_betas(&pairs.logps(policy)?, &reference, &betas_tensor);
    let (loss, gradients) =
        gradients(&pairs.policy, |policy| with_auxiliary(&loss::mean(&losses(policy)?)?, &[(gamma, &nll(policy)?)]))?;
    let mut answer = json!({
        "beta": betas,
        "per_pair_dpo": flat(&losses(&pairs.policy)?)?,
        "sft_nll": nll(&pairs.policy)?.to_scalar::<f64>()?,
        "loss": loss,
    });
    pairs.name_gradients("d", &mut answer, &gradients)?;
    Ok(answer)
}

fn all_rank_pairs(case: &Case) -> Result<Answer> {
    let queries: Vec<Vec<Option<i64>>> = case.input("ranks")?;
    let of_query = |(query, ranks): (usize, &Vec<Option<i64>>)| {
        let pairs = pairs::all_rank_pairs(ranks).into_iter();
        pairs.map(move |(better, worse, difference)| json!([query, better, worse, difference])).collect::<Vec<_>>()
    };
    Ok(json!({ "pairs": queries.iter().enumerate().flat_map(of_query).collect::<Vec<_>>() }))
}

fn hardest_pair(case: &Case) -> Result<Answer> {
    let queries: Vec<Vec<Option<i64>>> = case.input("ranks")?;
    let of_query =
        |(query, ranks): (usize, &Vec<Option<i64>>)| pairs::hardest_pair(ranks).map(|(better, worse)| [query, better, worse]);
    Ok(json!({ "pairs": queries.iter().enumerate().filter_map(of_query).collect::<Vec<_>>() }))
}

/// 0 and 1 of numbers or of truth.
fn flags(case: &Case, name: &str) -> Result<Tensor> {
    let values: Vec<Value> = case.input(name)?;
    vector(
        &values
            .iter()
            .map(|value| f64::from(u8::from(value.as_bool() == Some(true) || value.as_f64().is_some_and(|x| x != 0.0))))
            .collect::<Vec<_>>(),
    )
}

fn critique_reward_loss(case: &Case) -> Result<Answer> {
    let read = |name: &str| vector(&case.input::<Vec<f64>>(name)?);
    let rewards = [read("chosen_rewards")?, read("rejected_rewards")?];
    let (ties, without) = (flags(case, "is_tie")?, flags(case, "no_critique")?);
    let nll = (read("chosen_critique_nll")? + read("rejected_critique_nll")?)?;
    let weights = CritiqueWeights {
        reward: case.param_or("reward_weight", 1.0)?,
        tie: case.param_or("tie_weight", 0.0)?,
        center: case.param_or("center_coefficient", 0.01)?,
        critique: case.param_or("critique_weight", 1.0)?,
    };
    let parts = |rewards: &[Tensor]| critique_loss(&rewards[0], &rewards[1], &ties, &nll, &without, weights);
    let (loss, gradients) = gradients(&rewards, |rewards| Ok(parts(rewards)?.loss))?;
    let CritiqueLoss { bradley_terry, tie, center, critique, .. } = parts(&rewards)?;
    Ok(json!({
        "bt": bradley_terry.to_scalar::<f64>()?,
        "tie": tie.to_scalar::<f64>()?,
        "center": center.to_scalar::<f64>()?,
        "critique": critique.to_scalar::<f64>()?,
        "loss": loss,
        "d_chosen_rewards": flat(&gradients[0])?,
        "d_rejected_rewards": flat(&gradients[1])?,
    }))
}

fn critique_mean_score(case: &Case) -> Result<Answer> {
    let scores: Vec<Vec<Vec<f64>>> = case.input("critique_scores")?;
    let means = |answers: &Vec<Vec<f64>>| answers.iter().map(|scores| mean_opt(scores)).collect::<Vec<_>>();
    Ok(json!({ "rewards": scores.iter().map(means).collect::<Vec<_>>() }))
}

fn reward_bench_acc_plus(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    let ids: Vec<String> = case.input::<Vec<Value>>("ids")?.iter().map(Value::to_string).collect();
    let pairs: Vec<Pair<'_>> = ids
        .iter()
        .zip(chosen.iter().zip(&rejected))
        .map(|(sample, (&chosen, &rejected))| Pair { chosen, rejected, sample, category: "" })
        .collect();
    let accuracy = accuracy(&pairs);
    Ok(json!({ "acc": accuracy.pairs, "acc_plus": accuracy.samples }))
}

fn beta_dpo_batch(case: &Case) -> Result<Answer> {
    let margins: Vec<f64> = case.input("implicit_margins")?;
    let (beta, alpha, floor) = (case.param("beta_ori")?, case.param("alpha")?, case.param_or("floor", 1e-3)?);
    Ok(json!({ "beta": batch_beta(&margins, case.input("running_margin")?, beta, alpha, floor) }))
}
