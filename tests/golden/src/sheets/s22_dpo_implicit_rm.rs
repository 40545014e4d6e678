//! Sheet 22-dpo-implicit-rm.

use anyhow::Result;
use plumb_methods::evaluation::preference::{self, Ties, accuracy_drops};
use plumb_methods::reward::implicit::{Reduction, token_rewards};
use plumb_methods::selection::pairs::{Pair, Rule, agreement, select_pair};
use serde_json::json;

use crate::{Answer, Case, Sheet, rewards};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "22-dpo-implicit-rm",
    operations: &[
        ("implicit_reward", implicit_reward),
        ("preference_accuracy", preference_accuracy),
        ("bt_reward_model_loss", bt_reward_model_loss),
        ("reward_model_generalization_gap", reward_model_generalization_gap),
        ("iterative_dpo_pairs", iterative_dpo_pairs),
    ],
};

fn implicit_reward(case: &Case) -> Result<Answer> {
    let read = |name: &str| case.input::<Vec<Vec<f64>>>(name);
    let (policy, reference, mask) = (read("policy_logps")?, read("ref_logps")?, read("mask")?);
    let (beta, reduction) =
        (case.param("beta")?, case.choice("reduction", &[("sum", Reduction::Sum), ("mean", Reduction::Mean)])?);
    let (tokens, sequences): (Vec<_>, Vec<_>) =
        (0..policy.len()).map(|i| token_rewards(&policy[i], &reference[i], &mask[i], beta, reduction)).unzip();
    Ok(json!({ "token_rewards": tokens, "sequence_rewards": sequences }))
}

fn preference_accuracy(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    let ties = case.choice("tie", &[("strict", Ties::Strict), ("half", Ties::Half)])?;
    let agreement = preference::agreement(&chosen, &rejected, ties);
    Ok(json!({ "accuracy": agreement.accuracy, "ties": agreement.ties, "mean_margin": agreement.mean_margin }))
}

fn bt_reward_model_loss(case: &Case) -> Result<Answer> {
    rewards::bradley_terry_loss(case, "d_loss_d")
}

fn reward_model_generalization_gap(case: &Case) -> Result<Answer> {
    let (explicit, implicit): (Vec<f64>, Vec<f64>) = (case.input("explicit_accuracy")?, case.input("implicit_accuracy")?);
    let drops = accuracy_drops(&explicit, &implicit, &case.input::<Vec<bool>>("is_ood")?);
    Ok(json!({
        "drops": drops.drops,
        "mean_ood_drop": drops.mean_shifted,
        "max_ood_drop": drops.max_shifted,
        "mean_id_drop": drops.mean_unshifted,
    }))
}

fn iterative_dpo_pairs(case: &Case) -> Result<Answer> {
    let label = |name: &str| -> Result<Vec<Option<Pair>>> {
        let groups: Vec<Vec<f64>> = case.input(name)?;
        Ok(groups.iter().map(|rewards| select_pair(rewards, None, Rule::default())).collect())
    };
    let (explicit, implicit) = (label("explicit_rewards")?, label("implicit_rewards")?);
    let listed = |pairs: &[Option<Pair>]| {
        let rows = pairs.iter().enumerate().filter_map(|(group, pair)| pair.map(|pair| [group, pair.chosen, pair.rejected]));
        rows.collect::<Vec<_>>()
    };
    Ok(json!({
        "explicit_pairs": listed(&explicit),
        "implicit_pairs": listed(&implicit),
        "agreement": agreement(&explicit, &implicit),
    }))
}
