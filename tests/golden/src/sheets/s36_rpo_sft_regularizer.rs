//! Sheet 36-rpo-sft-regularizer.

use anyhow::{Context, Result};
use candle_core::Tensor;
use plumb_core::recipe::Dpo;
use plumb_methods::evaluation::preference::{Ties, agreement};
use plumb_methods::loss;
use plumb_methods::loss::dpo::{mask_weights, sequence_logps};
use plumb_methods::loss::rpo::{Likelihood, Rpo, rpo};
use plumb_methods::reward::implicit::displacement;
use plumb_methods::stats::first_min;
use plumb_methods::tabular::{Adversarial, adversarial};
use serde_json::json;

use crate::pairs::Pairs;
use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "36-rpo-sft-regularizer",
    operations: &[
        ("rpo_loss", rpo_loss),
        ("adversarial_objective", adversarial_objective),
        ("implicit_reward_kl", implicit_reward_kl),
    ],
};

fn rpo_loss(case: &Case) -> Result<Answer> {
    let settings = Dpo { beta: case.param("beta")?, label_smoothing: case.param_or("label_smoothing", 0.0)?, ..Dpo::default() };
    let averages = case.choice("sft", &[("sum", false), ("mean", true)])?;
    let likelihood = Likelihood { eta: case.param("eta")?, scaled_by_beta: case.param_or("beta_in_sft", !averages)? };
    let pairs = Pairs::tokens(case)?;
    let reference = pairs.reference_logps()?;
    let [mask, _] = pairs.masks.as_ref().context("the loss is over tokens")?;
    let lengths: Vec<usize> = mask.iter().map(Vec::len).collect();
    let weights = vector(&mask.iter().flat_map(|mask| mask_weights(mask, averages)).collect::<Vec<_>>())?;
    let parts = |policy: &[Tensor]| -> candle_core::Result<Rpo> {
        let chosen = sequence_logps(&policy[0], &weights, &lengths)?;
        rpo(&pairs.logps(policy)?, &reference, &chosen, &settings, likelihood)
    };
    let losses = |policy: &[Tensor]| parts(policy).and_then(|parts| parts.dpo + parts.likelihood);
    let (loss, gradients) = gradients(&pairs.policy, |policy| loss::mean(&losses(policy)?))?;
    let Rpo { dpo, likelihood } = parts(&pairs.policy)?;
    let [chosen, rejected] = pairs.rewards(settings.beta)?;
    let mut answer = json!({
        "dpo": flat(&dpo)?,
        "sft": flat(&likelihood)?,
        "per_pair": flat(&losses(&pairs.policy)?)?,
        "loss": loss,
        "accuracy": agreement(&chosen, &rejected, Ties::Strict).accuracy,
        "chosen_rewards": chosen,
        "rejected_rewards": rejected,
    });
    pairs.name_gradients("d", &mut answer, &gradients)?;
    Ok(answer)
}

fn adversarial_objective(case: &Case) -> Result<Answer> {
    let (reference, base): (Vec<f64>, Vec<f64>) = (case.input("ref_probs")?, case.input("base_probs")?);
    let pairs: Vec<[usize; 2]> = case.input("preference_pairs")?;
    let (beta, eta) = (case.param("beta")?, case.param("eta")?);
    let candidates: Vec<Vec<f64>> = case.input("candidate_rewards")?;
    let all: Vec<Adversarial> =
        candidates.iter().map(|rewards| adversarial(&reference, &base, rewards, &pairs, beta, eta)).collect();
    let reward_side: Vec<f64> = all.iter().map(|objective| objective.reward_side).collect();
    let selected = first_min(&reward_side);
    Ok(json!({
        "policy_side": all.iter().map(|objective| objective.policy_side).collect::<Vec<_>>(),
        "reward_side": reward_side,
        "selected": selected,
        "policy": selected.map(|selected| &all[selected].policy),
    }))
}

fn implicit_reward_kl(case: &Case) -> Result<Answer> {
    let read = |side: &str| -> Result<[Vec<f64>; 2]> {
        Ok([case.input(&format!("{side}_policy_logps_sum"))?, case.input(&format!("{side}_ref_logps_sum"))?])
    };
    let (chosen, rejected) = (read("chosen")?, read("rejected")?);
    let moved = displacement([&chosen[0], &chosen[1]], [&rejected[0], &rejected[1]]);
    Ok(json!({
        "chosen_logratio": moved.chosen,
        "rejected_logratio": moved.rejected,
        "margin": moved.chosen - moved.rejected,
        "displaced": moved.chosen < 0.0,
    }))
}
