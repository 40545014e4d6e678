//! Sheet 51-spo-preference-degree. Key phrases of texts are a plugin's.

use anyhow::Result;
use candle_core::{Device, Tensor};
use plumb_methods::loss::classification::{accuracy, cross_entropy};
use plumb_methods::loss::with_auxiliary;
use serde_json::json;

use crate::tensor::{gradients, matrix, rows, scalar, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "51-spo-preference-degree",
    operations: &[("preference_degree_ce", preference_degree_ce), ("spo_total", spo_total)],
};

fn preference_degree_ce(case: &Case) -> Result<Answer> {
    let (logits, labels): (Vec<Vec<f64>>, Vec<u32>) = (case.input("logits")?, case.input("labels")?);
    let mask: Vec<f64> = case.input("mask")?;
    let (mask_tensor, label_tensor) = (vector(&mask)?, Tensor::new(labels.as_slice(), &Device::Cpu)?);
    let (loss, gradients) = gradients(&[matrix(&logits)?], |logits| cross_entropy(&logits[0], &label_tensor, &mask_tensor))?;
    Ok(json!({ "loss": loss, "accuracy": accuracy(&logits, &labels, &mask), "d_logits": rows(&gradients[0])? }))
}

fn spo_total(case: &Case) -> Result<Answer> {
    let read = |name: &str| scalar(case.input(name)?);
    let (chosen, rejected) = (read("degree_loss_chosen")?, read("degree_loss_rejected")?);
    let weights = [case.param_or("gamma_chosen", 0.1)?, case.param_or("gamma_rejected", 0.1)?];
    let total = with_auxiliary(&read("alignment_loss")?, &[(weights[0], &chosen), (weights[1], &rejected)])?;
    Ok(json!({ "loss": total.to_scalar::<f64>()? }))
}
