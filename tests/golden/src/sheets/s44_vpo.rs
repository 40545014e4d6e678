//! Sheet 44-vpo.

use anyhow::{Context, Result};
use candle_core::Tensor;
use plumb_methods::loss::rpo::vpo;
use plumb_methods::tabular::value_incentivized;
use serde_json::json;

use crate::pairs::Pairs;
use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet =
    Sheet { method: "44-vpo", operations: &[("vpo_loss", vpo_loss), ("vpo_tabular_objective", vpo_tabular_objective)] };

/// Alpha with the sign of the mode: optimism online, pessimism offline.
fn sign_alpha(case: &Case) -> Result<f64> {
    let sign: f64 = case.choice("mode", &[("none", 0.0), ("online", 1.0), ("offline", -1.0)])?;
    Ok(sign * case.param_or("alpha", 0.0)?)
}

fn vpo_loss(case: &Case) -> Result<Answer> {
    let (beta, sign_alpha) = (case.param("beta")?, sign_alpha(case)?);
    let pairs = Pairs::sums(case)?;
    let reference = pairs.reference_logps()?;
    let read = |name: &str| vector(&case.input::<Vec<f64>>(name)?);
    let (calibration, of_reference) = (read("calibration_policy_logps_sum")?, read("calibration_ref_logps_sum")?);
    let leaves = [pairs.policy[0].clone(), pairs.policy[1].clone(), calibration];
    let parts = |leaves: &[Tensor]| vpo(&pairs.logps(&leaves[..2])?, &reference, [&leaves[2], &of_reference], beta, sign_alpha);
    let (loss, gradients) = gradients(&leaves, |leaves| Ok(parts(leaves)?.loss))?;
    let parts = parts(&leaves)?;
    let [chosen, rejected] = pairs.rewards(beta)?;
    let mut answer = json!({
        "loss": loss,
        "nll": parts.nll.to_scalar::<f64>()?,
        "value_estimate": parts.value.to_scalar::<f64>()?,
        "margin": chosen.iter().zip(&rejected).map(|(chosen, rejected)| chosen - rejected).collect::<Vec<_>>(),
        "d_calibration_policy_logps_sum": flat(&gradients[2])?,
    });
    pairs.name_gradients("d", &mut answer, &gradients[..2])?;
    Ok(answer)
}

fn vpo_tabular_objective(case: &Case) -> Result<Answer> {
    let rows: Vec<Vec<f64>> = case.input("rewards")?;
    let rewards = rows.first().context("the case has no rewards")?;
    let (reference, calibration): (Vec<f64>, Vec<f64>) = (case.input("ref_probs")?, case.input("calibration_probs")?);
    let pairs: Vec<[usize; 2]> = case.input("pairs")?;
    let got = value_incentivized(&reference, &calibration, rewards, &pairs, case.param("beta")?, sign_alpha(case)?);
    Ok(json!({
        "calibrated_rewards": got.calibrated_rewards,
        "value": got.value,
        "policy": got.policy,
        "nll": got.nll,
        "objective": got.objective,
    }))
}
