//! Sheet 27-dpo.

use anyhow::Result;
use candle_core::Tensor;
use plumb_core::recipe::{Dpo, DpoLoss};
use plumb_methods::evaluation::preference::{Ties, agreement};
use plumb_methods::loss;
use plumb_methods::loss::dpo::{dpo, sequence_logps};
use plumb_methods::loss::plackett_luce::plackett_luce;
use plumb_methods::tabular::{implicit_rewards, optimal_policy};
use serde_json::json;

use crate::pairs::Pairs;
use crate::tensor::{flat, gradients, matrix, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "27-dpo",
    operations: &[
        ("sequence_logprob", sequence_logprob),
        ("dpo_loss", dpo_loss),
        ("dpo_loss_tokens", dpo_loss),
        ("plackett_luce_dpo_loss", plackett_luce_dpo_loss),
        ("optimal_policy", optimal),
    ],
};

fn sequence_logprob(case: &Case) -> Result<Answer> {
    let (logps, mask): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (case.input("policy_logps")?, case.input("mask")?);
    let averages = case.choice("reduction", &[("sum", false), ("mean", true)])?;
    let weights: Vec<f64> = mask.iter().flat_map(|mask| loss::dpo::mask_weights(mask, averages)).collect();
    let lengths: Vec<usize> = mask.iter().map(Vec::len).collect();
    let sums = sequence_logps(&vector(&logps.concat())?, &vector(&weights)?, &lengths)?;
    Ok(json!({ "policy_logps_sum": flat(&sums)? }))
}

fn dpo_loss(case: &Case) -> Result<Answer> {
    let settings = Dpo {
        loss_type: case.choice("variant", &[("sigmoid", DpoLoss::Sigmoid), ("ipo", DpoLoss::Ipo)])?,
        beta: case.param("beta")?,
        label_smoothing: case.param_or("label_smoothing", 0.0)?,
        reference_free: case.param_or("reference_free", false)?,
        ..Dpo::default()
    };
    preference_loss(case, &settings, "d_loss_d", "losses")
}

/// A loss of pairs with its gradients, named by `prefix`, and what is reported of the pairs.
pub(super) fn preference_loss(case: &Case, settings: &Dpo, prefix: &str, losses: &str) -> Result<Answer> {
    let pairs = Pairs::read(case)?;
    let reference = pairs.reference_logps()?;
    let [chosen, rejected] = pairs.rewards(settings.beta)?;
    let margins: Vec<f64> = chosen.iter().zip(&rejected).map(|(chosen, rejected)| chosen - rejected).collect();
    let mut answer = json!({
        losses: flat(&dpo(&pairs.policy_logps()?, Some(&reference), settings)?)?,
        "accuracy": agreement(&chosen, &rejected, Ties::Strict).accuracy,
        "chosen_rewards": chosen,
        "rejected_rewards": rejected,
        "margins": margins,
    });
    let loss = pairs.differentiate(prefix, &mut answer, |policy| loss::mean(&dpo(policy, Some(&reference), settings)?))?;
    answer["loss"] = json!(loss);
    Ok(answer)
}

fn plackett_luce_dpo_loss(case: &Case) -> Result<Answer> {
    let beta: f64 = case.param("beta")?;
    let (policy, reference) =
        (matrix(&case.input::<Vec<Vec<f64>>>("policy_logps_sum")?)?, case.input::<Vec<Vec<f64>>>("ref_logps_sum")?);
    let reference = matrix(&reference)?;
    let losses = |policy: &Tensor| plackett_luce(&((policy - &reference)? * beta)?);
    let (loss, gradients) = gradients(std::slice::from_ref(&policy), |policy| loss::mean(&losses(&policy[0])?))?;
    Ok(json!({ "losses": flat(&losses(&policy)?)?, "loss": loss, "d_loss_d_policy_logps_sum": rows(&gradients[0])? }))
}

fn optimal(case: &Case) -> Result<Answer> {
    let (reference, rewards): (Vec<f64>, Vec<f64>) = (case.input("ref_probs")?, case.input("rewards")?);
    let beta = case.param("beta")?;
    let best = optimal_policy(&reference, &rewards, beta);
    Ok(json!({
        "implicit_rewards": implicit_rewards(&rewards, beta, best.log_partition),
        "probs": best.probabilities,
        "log_partition": best.log_partition,
    }))
}
