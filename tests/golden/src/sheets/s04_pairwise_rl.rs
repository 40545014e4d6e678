//! Sheet 04-pairwise-rl.

use anyhow::Result;
use candle_core::{Device, Tensor};
use plumb_methods::loss;
use plumb_methods::loss::pairwise_judge::pairwise_judge;
use plumb_methods::pairwise::{Combine, position_gap, preference_probability};
use plumb_methods::reward::anchored::{Form, reward};
use serde_json::json;

use crate::policy::clipped;
use crate::rewarded::{advantages, token_rewards};
use crate::tensor::{gradients, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "04-pairwise-rl",
    operations: &[
        ("pairwise_generative_loss", pairwise_generative_loss),
        ("swap_averaged_win_probability", swap_averaged_win_probability),
        ("pairwise_reward", pairwise_reward),
        ("token_rewards_and_gae", token_rewards_and_gae),
        ("ppo_clip_loss", ppo_clip_loss),
    ],
};

/// Names of the logits of yes and no, in the one order and in the other.
const ORDERS: [&str; 2] = ["yes_no_logits", "swapped_yes_no_logits"];

fn pairwise_generative_loss(case: &Case) -> Result<Answer> {
    let logits = |name: &str| {
        let logits: Vec<[f64; 2]> = case.input(name)?;
        Ok::<_, anyhow::Error>(Tensor::from_vec(logits.concat(), (logits.len(), 2), &Device::Cpu)?)
    };
    let first: Vec<f64> = case.truths("first_preferred")?.into_iter().map(|first| f64::from(u8::from(first))).collect();
    let (first, weight) = (vector(&first)?, case.param_or("consistency_weight", 0.0)?);
    let leaves = [logits(ORDERS[0])?, logits(ORDERS[1])?];
    let (loss, gradients) = gradients(&leaves, |l| loss::mean(&pairwise_judge(&l[0], &l[1], &first, weight)?))?;
    let mut answer = json!({ "loss": loss });
    for (name, gradient) in ORDERS.iter().zip(&gradients) {
        answer[format!("grad_{name}")] = json!(rows(gradient)?);
    }
    Ok(answer)
}

fn swap_averaged_win_probability(case: &Case) -> Result<Answer> {
    let (verdicts, swapped): (Vec<[f64; 2]>, Vec<[f64; 2]>) = (case.input(ORDERS[0])?, case.input(ORDERS[1])?);
    let temperature = case.param_or("temperature", 1.0)?;
    let both = |(verdict, swapped)| {
        let probability = preference_probability(verdict, Some(swapped), Combine::MeanProbability, temperature);
        (probability, position_gap(verdict, swapped, temperature))
    };
    let (probabilities, gaps): (Vec<f64>, Vec<f64>) = verdicts.into_iter().zip(swapped).map(both).unzip();
    Ok(json!({ "win_probability": probabilities, "position_gap": gaps }))
}

fn pairwise_reward(case: &Case) -> Result<Answer> {
    let logit = Form::Logit { clip: case.param_or("probability_clip", 0.01)? };
    let form = case.choice("form", &[("probability", Form::Probability), ("centred", Form::Centred), ("logit", logit)])?;
    let groups: Vec<Vec<Option<Vec<f64>>>> = case.input("win_probability")?;
    let of_group = |group: &Vec<Option<Vec<f64>>>| {
        group.iter().map(|anchors| reward(anchors.as_deref().unwrap_or_default(), form)).collect::<Vec<_>>()
    };
    Ok(json!({ "rewards": groups.iter().map(of_group).collect::<Vec<_>>() }))
}

fn token_rewards_and_gae(case: &Case) -> Result<Answer> {
    let rewards = token_rewards(case, &case.input::<Vec<f64>>("rewards")?, case.param("kl_coefficient")?)?;
    let (advantages, returns) = advantages(case, &rewards, case.param("gamma")?, case.param("lambda")?)?;
    Ok(json!({ "token_rewards": rewards, "advantages": advantages, "returns": returns }))
}

fn ppo_clip_loss(case: &Case) -> Result<Answer> {
    let mut answer = clipped(case, Some(case.param("clip")?), &case.truth_rows("mask")?, "grad_policy_logps")?;
    // This sheet counts ratios beyond the bounds.
    answer["clip_fraction"] = answer["outside"].take();
    Ok(answer)
}
