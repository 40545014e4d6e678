//! Sheet 07-secrets-rlhf-2.

use anyhow::Result;
use candle_core::{Device, Tensor};
use plumb_methods::loss;
use plumb_methods::loss::metarm::{difference, mean_difference, meta_step};
use plumb_methods::loss::reward::{bradley_terry, smoothed_bradley_terry};
use plumb_methods::loss::views::{simcse, swav};
use plumb_methods::reward::ensemble;
use plumb_methods::reward::mlp::{self, Activation, Layer};
use plumb_methods::selection::strength::{Correction, Curated, Curation, curate};
use serde_json::{Value, json};

use crate::tensor::{flat, gradients, matrix, matrix_or, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "07-secrets-rlhf-2",
    operations: &[
        ("preference_strength", preference_strength),
        ("curate_preferences", curate_preferences),
        ("reward_loss_smoothing_margin", reward_loss_smoothing_margin),
        ("simcse_loss", simcse_loss),
        ("swav_swapped_loss", swav_swapped_loss),
        ("metarm_difference", metarm_difference),
        ("metarm_step_linear", metarm_step_linear),
    ],
};

type Rows = Vec<Vec<f64>>;

fn preference_strength(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Rows, Rows) = (case.input("ensemble_chosen_rewards")?, case.input("ensemble_rejected_rewards")?);
    let (mean, std) = ensemble::preference_strength(&chosen, &rejected, case.param_or("ddof", 0)?);
    Ok(json!({ "mean": mean, "std": std }))
}

fn curate_preferences(case: &Case) -> Result<Answer> {
    let flip = Correction::Flip { fraction: case.param_or("flip_fraction", 0.0)?, below: case.param_or("flip_below", None)? };
    let soft = Correction::SoftLabel(case.param_or("smoothing", 0.0)?);
    let rules = Curation {
        correction: case.choice("mode", &[("flip", flip), ("soft_label", soft)])?,
        drop_abs_below: case.param_or("drop_abs_below", None)?,
        margin: case.param_or("margin", false)?,
    };
    let pairs = curate(&case.input::<Vec<f64>>("strength_mean")?, rules);
    let all = |field: fn(&Curated) -> Value| pairs.iter().map(field).collect::<Vec<_>>();
    Ok(json!({
        "flip": all(|pair| json!(pair.flip)),
        "drop": all(|pair| json!(pair.drop)),
        "smoothing": all(|pair| json!(pair.smoothing)),
        "margin": all(|pair| json!(pair.margin)),
        "quantile_group": all(|pair| json!(pair.decile)),
    }))
}

fn reward_loss_smoothing_margin(case: &Case) -> Result<Answer> {
    let read = |name: &str| vector(&case.input::<Vec<f64>>(name)?);
    let leaves = [read("chosen_rewards")?, read("rejected_rewards")?];
    let or_zeros = |name: &str| match case.input_opt::<Vec<f64>>(name)? {
        Some(values) => vector(&values),
        None => Ok(leaves[0].zeros_like()?),
    };
    let (smoothing, margins) = (or_zeros("smoothing")?, or_zeros("margin")?);
    let (loss, gradients) = gradients(&leaves, |l| loss::mean(&smoothed_bradley_terry(&l[0], &l[1], &smoothing, &margins)?))?;
    let [chosen, rejected] = [flat(&gradients[0])?, flat(&gradients[1])?];
    Ok(json!({ "loss": loss, "grad_chosen_rewards": chosen, "grad_rejected_rewards": rejected }))
}

fn simcse_loss(case: &Case) -> Result<Answer> {
    let temperature = case.param("temperature")?;
    let leaves = [matrix_or(&case.input::<Rows>("view_s")?, 1)?, matrix_or(&case.input::<Rows>("view_t")?, 1)?];
    let (loss, gradients) = gradients(&leaves, |l| loss::mean(&simcse(&l[0], &l[1], temperature)?))?;
    Ok(json!({
        "loss": loss,
        "per_item": flat(&simcse(&leaves[0], &leaves[1], temperature)?)?,
        "grad_view_s": rows(&gradients[0])?,
        "grad_view_t": rows(&gradients[1])?,
    }))
}

fn swav_swapped_loss(case: &Case) -> Result<Answer> {
    let prototypes = matrix(&case.input::<Rows>("prototypes")?)?;
    let (clusters, width) = prototypes.dims2()?;
    let read = |name: &str, columns| matrix_or(&case.input::<Rows>(name)?, columns);
    let views = [read("view_s", width)?, read("view_t", width)?];
    let codes = [read("codes_s", clusters)?, read("codes_t", clusters)?];
    let losses = swav([&views[0], &views[1]], &prototypes, [&codes[0], &codes[1]], case.param("temperature")?)?;
    Ok(json!({ "loss": loss::mean(&losses)?.to_scalar::<f64>()?, "per_item": flat(&losses)? }))
}

/// Rewards of groups, each a tensor.
fn tensors(groups: &Rows) -> Result<Vec<Tensor>> {
    groups.iter().map(|rewards| vector(rewards)).collect()
}

fn metarm_difference(case: &Case) -> Result<Answer> {
    let groups: Rows = case.input("rewards")?;
    let per_group = tensors(&groups)?.iter().map(|group| Ok(difference(group)?.to_scalar()?)).collect::<Result<Vec<f64>>>()?;
    let (objective, gradients) = gradients(&tensors(&groups)?, |groups| mean_difference(groups)?.map_or_else(zero, Ok))?;
    let gradients = gradients.iter().map(flat).collect::<Result<Rows>>()?;
    Ok(json!({ "per_group": per_group, "objective": objective, "grad_rewards": gradients }))
}

fn zero() -> candle_core::Result<Tensor> {
    Tensor::new(0f64, &Device::Cpu)
}

/// Rewards `[N]` of features, by a linear head without bias.
fn linear(features: &Rows, theta: &Tensor) -> candle_core::Result<Tensor> {
    let width = theta.elem_count();
    let inputs = Tensor::from_vec(features.concat(), (features.len(), width), theta.device())?;
    let head = Layer { weight: theta.reshape((1, width))?, bias: Tensor::zeros(1, theta.dtype(), theta.device())? };
    mlp::rewards(&inputs, &[head], Activation::None)
}

fn metarm_step_linear(case: &Case) -> Result<Answer> {
    case.choice("order", &[("first", ())])?;
    let groups: Vec<Rows> = case.input("meta_features")?;
    let (chosen, rejected): (Rows, Rows) = (case.input("chosen_features")?, case.input("rejected_features")?);
    let objective = |theta: &Tensor| {
        let rewards = groups.iter().map(|features| linear(features, theta)).collect::<candle_core::Result<Vec<_>>>()?;
        mean_difference(&rewards)?.map_or_else(zero, Ok)
    };
    let loss = |theta: &Tensor| {
        let (chosen, rejected) = (linear(&chosen, theta)?, linear(&rejected, theta)?);
        loss::mean(&bradley_terry(&chosen, &rejected, &chosen.zeros_like()?, 0.0)?)
    };
    let step = meta_step(&case.input::<Vec<f64>>("theta")?, objective, loss, case.param("meta_lr")?, case.param("lr")?)?;
    Ok(json!({
        "difference": step.objective,
        "theta_prime": step.displaced,
        "loss_at_theta_prime": step.loss,
        "theta_next": step.next,
    }))
}
