//! Sheet 06-reward-calibration-ppo-m-c.

use anyhow::Result;
use candle_core::Tensor;
use plumb_methods::advantage::mean;
use plumb_methods::evaluation::calibration::{Edges, calibration_error};
use plumb_methods::loss::confidence::{Comparison, Confident, calibrated_dpo, calibrated_reward};
use plumb_methods::reward::confident::{Adjustment, Calibrator};
use plumb_methods::stats::auroc;
use serde_json::{Map, Value, json};

use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "06-reward-calibration-ppo-m-c",
    operations: &[
        ("calibrated_reward_model_loss", calibrated_reward_model_loss),
        ("calibrated_reward_calculation", calibrated_reward_calculation),
        ("calibration_metrics", calibration_metrics),
        ("calibrated_dpo_loss", calibrated_dpo_loss),
    ],
};

const SIDES: [&str; 6] = ["chosen_high", "chosen_low", "rejected_high", "rejected_low", "chosen", "rejected"];

fn read(case: &Case, suffix: &str) -> Result<Vec<Tensor>> {
    SIDES.iter().map(|side| vector(&case.input::<Vec<f64>>(&format!("{side}_{suffix}"))?)).collect()
}

fn confident(values: &[Tensor]) -> Confident {
    let [chosen_high, chosen_low, rejected_high, rejected_low, chosen, rejected] = std::array::from_fn(|i| values[i].clone());
    Confident { chosen_high, chosen_low, rejected_high, rejected_low, chosen, rejected }
}

fn answer(loss: f64, gradients: &[Tensor], suffix: &str) -> Result<Answer> {
    let mut answer = Map::from_iter([("loss".to_owned(), Value::from(loss))]);
    for (side, gradient) in SIDES.iter().zip(gradients) {
        answer.insert(format!("grad_{side}_{suffix}"), json!(flat(gradient)?));
    }
    Ok(answer.into())
}

fn calibrated_reward_model_loss(case: &Case) -> Result<Answer> {
    let comparisons = [("base", Comparison::Base), ("combined", Comparison::Combined), ("cross", Comparison::Cross)];
    let comparison = case.choice("variant", &comparisons)?;
    let (loss, gradients) = gradients(&read(case, "rewards")?, |r| calibrated_reward(&confident(r), comparison))?;
    answer(loss, &gradients, "rewards")
}

fn calibrated_dpo_loss(case: &Case) -> Result<Answer> {
    let reference = confident(&read(case, "ref_logps_sum")?);
    let (beta, coefficient) = (case.param("beta")?, case.param("coefficient")?);
    let graph = |policy: &[Tensor]| calibrated_dpo(&confident(policy), &reference, beta, coefficient);
    let (loss, gradients) = gradients(&read(case, "policy_logps_sum")?, graph)?;
    answer(loss, &gradients, "policy_logps_sum")
}

fn calibrated_reward_calculation(case: &Case) -> Result<Answer> {
    let adjustment =
        case.choice("adjustment", &[("difference", Adjustment::Difference), ("threshold", Adjustment::Threshold)])?;
    let mut calibrator = Calibrator {
        average: case.param_or("initial_average", 0.0)?,
        alpha: case.param("alpha")?,
        weight: case.param("w")?,
        adjustment,
        clamp: case.param_or("clamp", f64::INFINITY)?,
    };
    let (rewards, confidences): (Vec<Vec<f64>>, Vec<Vec<f64>>) =
        (case.input("reward_batches")?, case.input("confidence_batches")?);
    let batches = rewards.iter().zip(&confidences);
    let (rewards, averages): (Vec<_>, Vec<_>) =
        batches.map(|(rewards, confidences)| (calibrator.rewards(rewards, confidences), calibrator.average)).unzip();
    Ok(json!({ "rewards": rewards, "running_average": averages }))
}

fn calibration_metrics(case: &Case) -> Result<Answer> {
    let (confidence, correct): (Vec<f64>, Vec<bool>) = (case.input("confidence")?, case.truths("correct")?);
    let report = calibration_error(&confidence, &correct, case.param("bins")?, Edges::Above);
    let truths: Vec<f64> = correct.iter().map(|correct| f64::from(u8::from(*correct))).collect();
    Ok(json!({
        "ece": report.ece,
        "auroc": auroc(&confidence, &correct),
        "brier": report.mse,
        "accuracy": mean(&truths),
        "mean_confidence_when_wrong_mass": report.wrong_confidence,
    }))
}
