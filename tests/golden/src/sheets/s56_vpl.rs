//! Sheet 56-vpl.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use plumb_methods::reward::gaussian::{categorical_log_win, mean_variance};
use plumb_methods::reward::latent::{
    Attention, Gain, Gaussian, Sampling, attention_pool, elbo, information_gain, position_weighted_pool, sample,
};
use plumb_methods::reward::scaling::{log_mean_exp, normalised, win_probability};
use plumb_methods::schedule::{Annealing, Rise};
use serde_json::json;

use crate::tensor::{flat, gradients, mask_tensor, matrix, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "56-vpl",
    operations: &[
        ("vpl_elbo", vpl_elbo),
        ("latent_sample", latent_sample),
        ("attention_pool", attention_pool_of),
        ("position_weighted_pool", position_weighted_pool_of),
        ("kl_anneal", kl_anneal),
        ("spo_reward_scaling", spo_reward_scaling),
        ("logsumexp_normalisation", logsumexp_normalisation),
        ("information_gain", information_gain_of),
        ("mean_variance_loss", mean_variance_loss),
        ("categorical_loss", categorical_loss),
    ],
};

fn read(case: &Case, name: &str) -> Result<Tensor> {
    vector(&case.input::<Vec<f64>>(name)?)
}

fn read_rows(case: &Case, name: &str) -> Result<Tensor> {
    matrix(&case.input::<Vec<Vec<f64>>>(name)?)
}

fn vpl_elbo(case: &Case) -> Result<Answer> {
    let prior = match (case.input_opt::<Vec<f64>>("prior_mean")?, case.input_opt::<Vec<f64>>("prior_log_var")?) {
        (Some(mean), Some(log_var)) => Some(Gaussian { mean: vector(&mean)?, log_var: vector(&log_var)? }),
        _ => None,
    };
    let leaves =
        [read(case, "chosen_rewards")?, read(case, "rejected_rewards")?, read_rows(case, "mean")?, read_rows(case, "log_var")?];
    let kl_weight = case.param("kl_weight")?;
    let parts = |l: &[Tensor]| {
        let posterior = Gaussian { mean: l[2].clone(), log_var: l[3].clone() };
        elbo(&(&l[0] - &l[1])?, &posterior, prior.as_ref(), kl_weight)
    };
    let (loss, gradients) = gradients(&leaves, |l| Ok(parts(l)?.loss))?;
    let parts = parts(&leaves)?;
    Ok(json!({
        "loss": loss,
        "reconstruction": parts.reconstruction.to_scalar::<f64>()?,
        "kl": parts.kl.to_scalar::<f64>()?,
        "d_chosen_rewards": flat(&gradients[0])?,
        "d_rejected_rewards": flat(&gradients[1])?,
        "d_mean": rows(&gradients[2])?,
        "d_log_var": rows(&gradients[3])?,
    }))
}

fn latent_sample(case: &Case) -> Result<Answer> {
    let posterior = Gaussian { mean: read_rows(case, "mean")?, log_var: read_rows(case, "log_var")? };
    let sampling = Sampling { clip: case.param_or("clip", None)?, scale_norm: case.param_or("scale_norm", false)? };
    let noise = if case.param_or("train", true)? { Some(read_rows(case, "noise")?) } else { None };
    Ok(json!({ "z": rows(&sample(&posterior, noise.as_ref(), sampling)?)? }))
}

fn attention_pool_of(case: &Case) -> Result<Answer> {
    let weights: BTreeMap<String, Vec<Vec<f64>>> = case.input("weights")?;
    let weight = |name: &str| matrix(weights.get(name).with_context(|| format!("there are no weights `{name}`"))?);
    let weights = Attention { q: weight("q")?, k: weight("k")?, v: weight("v")? };
    Ok(json!({ "pooled": flat(&attention_pool(&read_rows(case, "pairs")?, &weights)?)? }))
}

fn position_weighted_pool_of(case: &Case) -> Result<Answer> {
    let hidden: Vec<Vec<Vec<f64>>> = case.input("hidden")?;
    let shape = (hidden.len(), hidden.first().map_or(0, Vec::len), hidden.concat().first().map_or(0, Vec::len));
    let hidden = Tensor::from_vec(hidden.concat().concat(), shape, &Device::Cpu)?;
    Ok(json!({ "pooled": rows(&position_weighted_pool(&hidden, &mask_tensor(&case.truth_rows("mask")?)?)?)? }))
}

fn kl_anneal(case: &Case) -> Result<Answer> {
    let annealing = Annealing {
        total_steps: case.param("total_steps")?,
        rise: case.choice(
            "shape",
            &[("cosine", Rise::Cosine), ("linear", Rise::Linear), ("logistic", Rise::Logistic), ("none", Rise::None)],
        )?,
        baseline: case.param_or("baseline", 0.0)?,
        cyclical: case.param_or("cyclical", false)?,
    };
    let weights: Vec<f64> = case.input::<Vec<u64>>("steps")?.iter().map(|step| annealing.weight(*step)).collect();
    Ok(json!({ "weights": weights }))
}

fn spo_reward_scaling(case: &Case) -> Result<Answer> {
    let comparisons: Vec<f64> = case.input("comparison_rewards")?;
    let rewards: Vec<f64> = case.input("rewards")?;
    Ok(json!({ "rewards": rewards.iter().map(|reward| win_probability(*reward, &comparisons)).collect::<Vec<_>>() }))
}

fn logsumexp_normalisation(case: &Case) -> Result<Answer> {
    let normaliser = log_mean_exp(&case.input::<Vec<f64>>("comparison_rewards")?);
    let (rewards, temperature): (Vec<f64>, f64) = (case.input("rewards")?, case.param_or("temperature", 1.0)?);
    let rewards: Vec<f64> = rewards.iter().map(|reward| normalised(*reward, normaliser, temperature)).collect();
    Ok(json!({ "normaliser": normaliser, "rewards": rewards }))
}

fn information_gain_of(case: &Case) -> Result<Answer> {
    let gain = case.choice("mode", &[("moment_matched", Gain::MomentMatched), ("public_code", Gain::PublicCode)])?;
    let (means, log_vars): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (case.input("means")?, case.input("log_vars")?);
    Ok(json!({ "gain": information_gain(&means, &log_vars, gain) }))
}

fn mean_variance_loss(case: &Case) -> Result<Answer> {
    let names = ["chosen_mean", "chosen_log_var", "rejected_mean", "rejected_log_var"];
    let leaves = names.iter().map(|name| read(case, name)).collect::<Result<Vec<_>>>()?;
    let parts = |l: &[Tensor]| mean_variance((&l[0], &l[1]), (&l[2], &l[3]));
    let (loss, gradients) = gradients(&leaves, |l| parts(l)?.0.mean_all())?;
    let mut answer = json!({ "loss": loss, "z": flat(&parts(&leaves)?.1)? });
    for (name, gradient) in names.iter().zip(&gradients) {
        answer[format!("d_{name}")] = json!(flat(gradient)?);
    }
    Ok(answer)
}

fn categorical_loss(case: &Case) -> Result<Answer> {
    let leaves = [read_rows(case, "chosen_logits")?, read_rows(case, "rejected_logits")?];
    let log_win = |l: &[Tensor]| categorical_log_win(&l[0], &l[1]);
    let (loss, gradients) = gradients(&leaves, |l| log_win(l)?.mean_all()?.neg())?;
    Ok(json!({
        "probability": flat(&log_win(&leaves)?.exp()?)?,
        "loss": loss,
        "d_chosen_logits": rows(&gradients[0])?,
        "d_rejected_logits": rows(&gradients[1])?,
    }))
}
