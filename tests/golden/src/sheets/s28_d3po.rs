//! Sheet 28-d3po.

use anyhow::Result;
use plumb_methods::diffusion::{DdimStep, Reduction, guided_noise};
use plumb_methods::loss;
use plumb_methods::loss::step_preference::d3po;
use plumb_methods::prompt_statistics::{PromptScaling, PromptStatistics};
use plumb_methods::selection::pairs::{label_pairs, pareto_preference};
use serde::Deserialize;
use serde_json::json;

use crate::tensor::{flat, gradients, matrix, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "28-d3po",
    operations: &[
        ("d3po_loss", d3po_loss),
        ("preference_from_rewards", preference_from_rewards),
        ("pairs_from_labels", pairs_from_labels),
        ("ddim_step_log_prob", ddim_step_log_prob),
        ("guided_noise", guidance),
        ("per_prompt_advantage", per_prompt_advantage),
    ],
};

fn d3po_loss(case: &Case) -> Result<Answer> {
    let read = |name: &str| matrix(&case.input::<Vec<Vec<f64>>>(name)?);
    let policy = [read("policy_logps_0")?, read("policy_logps_1")?];
    let reference = [read("ref_logps_0")?, read("ref_logps_1")?];
    let preference = vector(&case.input::<Vec<f64>>("preference")?)?;
    let (beta, clip) = (case.param("beta")?, case.param_or("ratio_clip", None)?);
    let losses =
        |policy: &[candle_core::Tensor]| d3po([&policy[0], &policy[1]], [&reference[0], &reference[1]], &preference, beta, clip);
    let (loss, gradients) = gradients(&policy, |policy| loss::mean(&losses(policy)?))?;
    Ok(json!({
        "step_losses": rows(&losses(&policy)?)?,
        "loss": loss,
        "d_loss_d_policy_logps_0": rows(&gradients[0])?,
        "d_loss_d_policy_logps_1": rows(&gradients[1])?,
    }))
}

fn preference_from_rewards(case: &Case) -> Result<Answer> {
    let (first, second): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (case.input("rewards_0")?, case.input("rewards_1")?);
    let preference: Vec<i8> = first.iter().zip(&second).map(|(first, second)| pareto_preference(first, second)).collect();
    Ok(json!({ "preference": preference }))
}

fn pairs_from_labels(case: &Case) -> Result<Answer> {
    let labels: Vec<Vec<f64>> = case.input("labels")?;
    let of_group = |(group, labels): (usize, &Vec<f64>)| {
        label_pairs(labels).into_iter().map(move |(i, j, sign)| json!([group, i, j, sign])).collect::<Vec<_>>()
    };
    Ok(json!({ "pairs": labels.iter().enumerate().flat_map(of_group).collect::<Vec<_>>() }))
}

fn ddim_step_log_prob(case: &Case) -> Result<Answer> {
    let step = DdimStep {
        alpha_prod: case.param("alpha_prod")?,
        alpha_prod_prev: case.param("alpha_prod_prev")?,
        eta: case.param("eta")?,
    };
    let reduction = case.choice("reduction", &[("mean", Reduction::Mean), ("sum", Reduction::Sum)])?;
    let read = |name: &str| matrix(&case.input::<Vec<Vec<f64>>>(name)?);
    let (latents, noise, next) = (read("latents")?, read("predicted_noise")?, read("previous_latents")?);
    let density = step.density(&latents, &noise, &next, reduction)?;
    let (_, gradients) = gradients(&[noise], |noise| step.density(&latents, &noise[0], &next, reduction)?.log_prob.sum_all())?;
    Ok(json!({
        "mean": rows(&density.mean)?,
        "std": density.std,
        "log_prob": flat(&density.log_prob)?,
        "d_log_prob_d_noise": rows(&gradients[0])?,
    }))
}

fn guidance(case: &Case) -> Result<Answer> {
    let read = |name: &str| vector(&case.input::<Vec<f64>>(name)?);
    Ok(json!({ "noise": flat(&guided_noise(&read("unconditional")?, &read("conditional")?, case.param("scale")?)?)? }))
}

#[derive(Deserialize)]
struct Batch {
    prompts: Vec<String>,
    rewards: Vec<f64>,
}

fn per_prompt_advantage(case: &Case) -> Result<Answer> {
    let mut statistics = PromptStatistics::new(PromptScaling {
        buffer_size: case.param("buffer_size")?,
        min_count: case.param("min_count")?,
        clip: case.param_or("clip", f64::INFINITY)?,
        ddof: case.param_or("ddof", 0)?,
        epsilon: case.param_or("epsilon", 1e-6)?,
    });
    let batches: Vec<Batch> = case.input("batches")?;
    let advantages: Vec<Vec<f64>> = batches.iter().map(|batch| statistics.advantages(&batch.prompts, &batch.rewards)).collect();
    Ok(json!({ "advantages": advantages }))
}
