//! Rewards of pairs in cases.

use anyhow::Result;
use plumb_methods::evaluation::preference::{Ties, agreement};
use plumb_methods::loss;
use plumb_methods::loss::choice::{choice_accuracy, choice_loss};
use plumb_methods::loss::reward::bradley_terry;
use serde_json::json;

use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case};

/// The plain Bradley-Terry loss of `chosen_rewards` and `rejected_rewards`, its gradients named by `prefix`.
pub fn bradley_terry_loss(case: &Case, prefix: &str) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    let leaves = [vector(&chosen)?, vector(&rejected)?];
    let margins = leaves[0].zeros_like()?;
    let losses = bradley_terry(&leaves[0], &leaves[1], &margins, 0.0)?;
    let (loss, gradients) = gradients(&leaves, |both| loss::mean(&bradley_terry(&both[0], &both[1], &margins, 0.0)?))?;
    let agreement = agreement(&chosen, &rejected, Ties::Strict);
    Ok(json!({
        "losses": flat(&losses)?,
        "loss": loss,
        "accuracy": agreement.accuracy,
        format!("{prefix}_chosen_rewards"): flat(&gradients[0])?,
        format!("{prefix}_rejected_rewards"): flat(&gradients[1])?,
    }))
}

/// The loss of pairs with a `choice` of the first (0) or second (1) list of rewards, with its gradients named by `prefix` and the lists' names.
pub fn loss_of_choices(case: &Case, names: [&str; 2], prefix: &str, mean_penalty: f64) -> Result<Answer> {
    let (first, second): (Vec<f64>, Vec<f64>) = (case.input(names[0])?, case.input(names[1])?);
    let choices = case.truths("choice")?;
    let leaves = [vector(&first)?, vector(&second)?];
    let (loss, gradients) = gradients(&leaves, |both| choice_loss(&both[0], &both[1], &choices, mean_penalty))?;
    Ok(json!({
        "loss": loss,
        "accuracy": choice_accuracy(&first, &second, &choices),
        format!("{prefix}_{}", names[0]): flat(&gradients[0])?,
        format!("{prefix}_{}", names[1]): flat(&gradients[1])?,
    }))
}
