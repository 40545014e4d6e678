//! Sheet 54-superhf. The texts' metrics belong to plugins.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use plumb_methods::evaluation::calibration::{Edges, calibration_error};
use plumb_methods::loss::superhf::{Aggregate, Direction, Settings, superhf};
use plumb_methods::selection::top_k::top_k;
use serde_json::json;

use crate::tensor::{flat, gradients, mask_tensor};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "54-superhf",
    operations: &[("top_k_filter", top_k_filter), ("superhf_loss", superhf_loss), ("calibration_error", calibration_error_of)],
};

fn top_k_filter(case: &Case) -> Result<Answer> {
    let (rewards, lengths): (Vec<Vec<f64>>, Vec<Vec<usize>>) = (case.input("rewards")?, case.input("lengths")?);
    let (k, penalty) = (case.param_or("top_k", 1)?, case.param_or("length_penalty", 0.0)?);
    let group = |(rewards, lengths): (&Vec<f64>, &Vec<usize>)| top_k(rewards, lengths, k, penalty).into_iter().unzip();
    let (selected, scores): (Vec<Vec<usize>>, Vec<Vec<f64>>) = rewards.iter().zip(&lengths).map(group).unzip();
    Ok(json!({ "selected": selected, "scores": scores }))
}

fn superhf_loss(case: &Case) -> Result<Answer> {
    let (values, reference): (Vec<Vec<Vec<f64>>>, Vec<Vec<Vec<f64>>>) = (case.input("logits")?, case.input("ref_logits")?);
    let shape = (values.len(), values.first().map_or(0, Vec::len), values.concat().first().map_or(0, Vec::len));
    let tensor = |values: &[Vec<Vec<f64>>]| Tensor::from_vec(values.concat().concat(), shape, &Device::Cpu);
    let mask = case.truth_rows("mask")?;
    // Masked targets may be anything, -100 for one.
    let targets = case.input::<Vec<Vec<i64>>>("targets")?.concat();
    let targets: Vec<u32> = targets.iter().zip(mask.concat()).map(|(t, mask)| if mask { *t as u32 } else { 0 }).collect();
    let targets = Tensor::from_vec(targets, (shape.0, shape.1), &Device::Cpu)?;
    let settings = Settings {
        kl_coefficient: case.param_or("kl_coefficient", 0.35)?,
        direction: case.choice("kl_direction", &[("ref_policy", Direction::RefPolicy), ("policy_ref", Direction::PolicyRef)])?,
        aggregate: case.choice("kl_aggregate", &[("sum", Aggregate::Sum), ("mean", Aggregate::Mean)])?,
        inverse_loss_penalty: case.param_or("inverse_loss_penalty", 0.0)?,
    };
    let (leaf, reference, mask) = (tensor(&values)?, tensor(&reference)?, mask_tensor(&mask)?);
    let parts = |l: &Tensor| superhf(l, &reference, &targets, &mask, settings);
    let (loss, gradients) = gradients(std::slice::from_ref(&leaf), |l| Ok(parts(&l[0])?.loss))?;
    let parts = parts(&leaf)?;
    Ok(json!({
        "loss": loss,
        "nll": parts.nll.to_scalar::<f64>()?,
        "kl_per_sample": flat(&parts.kl)?,
        "d_logits": gradients[0].to_vec3::<f64>()?,
    }))
}

fn calibration_error_of(case: &Case) -> Result<Answer> {
    let (confidence, correct): (Vec<f64>, _) = (case.input("confidence")?, case.truths("correct")?);
    ensure!(confidence.len() == correct.len(), "each confidence needs a truth");
    let error = calibration_error(&confidence, &correct, case.param_or("bins", 10)?, Edges::Below);
    Ok(json!({ "ece": error.ece, "mse": error.mse }))
}
