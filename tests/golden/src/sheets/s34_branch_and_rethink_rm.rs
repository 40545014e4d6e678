//! Sheet 34-branch-and-rethink-rm. What the turns say is a plugin's to read.

use anyhow::Result;
use plumb_core::recipe::{Grpo, KlEstimator};
use plumb_methods::advantage::{AgainstGroup, against_group};
use plumb_methods::evaluation::one_to_many::best_of_n_accuracy;
use plumb_methods::evaluation::verdicts::choice_accuracy;
use plumb_methods::reward::outcome::{Binary, Distance, written_choice};
use serde_json::json;

use crate::policy::group_relative;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "34-branch-and-rethink-rm",
    operations: &[
        ("outcome_reward", outcome_reward),
        ("binary_outcome_reward", binary_outcome_reward),
        ("group_advantages", group_advantages),
        ("two_turn_policy_loss", two_turn_policy_loss),
        ("pairwise_accuracy", pairwise_accuracy),
        ("best_of_n_from_pairs", best_of_n_from_pairs),
    ],
};

/// Choices as they are read, and the preferred answers.
fn judged(case: &Case) -> Result<(Vec<Option<f64>>, Vec<u8>)> {
    let values: Vec<Option<String>> = case.input("values")?;
    Ok((values.iter().map(|value| written_choice(value.as_deref()?)).collect(), case.input("preferred")?))
}

fn rewards(case: &Case, reward: impl Fn(bool, Option<f64>, u8) -> f64) -> Result<Answer> {
    let ((choices, preferred), read) = (judged(case)?, case.truths("branch_ok")?);
    let rewards: Vec<f64> = (0..choices.len()).map(|i| reward(read[i], choices[i], preferred[i])).collect();
    Ok(json!({ "rewards_flat": rewards }))
}

fn outcome_reward(case: &Case) -> Result<Answer> {
    let rule = Distance { unit: case.param_or("unit", 10.0)?, malformed: case.param_or("format_penalty", -100.0)? };
    rewards(case, |read, choice, preferred| rule.reward(read, choice, preferred))
}

fn binary_outcome_reward(case: &Case) -> Result<Answer> {
    let rule = Binary { correct: case.param("correct")?, wrong: case.param("wrong")?, malformed: case.param("malformed")? };
    rewards(case, |read, choice, preferred| rule.reward(read, choice, preferred))
}

fn group_advantages(case: &Case) -> Result<Answer> {
    let (leave_one_out, normalize) = (case.param_or("leave_one_out", true)?, case.param_or("normalize", true)?);
    let groups: Vec<Vec<f64>> = case.input("rewards")?;
    let groups: Vec<AgainstGroup<f64>> = groups.iter().map(|rewards| against_group(rewards, leave_one_out, normalize)).collect();
    let each = |of: fn(&AgainstGroup<f64>) -> &Vec<f64>| groups.iter().map(of).cloned().collect::<Vec<_>>();
    Ok(json!({
        "advantages": each(|group| &group.advantages),
        "baseline": each(|group| &group.baselines),
        "std": each(|group| &group.deviations),
    }))
}

fn two_turn_policy_loss(case: &Case) -> Result<Answer> {
    let settings = Grpo {
        epsilon: case.param_or("clip_min", 0.2)?,
        epsilon_high: Some(case.param_or("clip_max", 0.2)?),
        beta: case.param("kl_coef")?,
        kl_estimator: KlEstimator::K3,
        ..Grpo::default()
    };
    let got = group_relative(case, &settings)?;
    Ok(json!({ "loss": got.loss, "pg_loss": got.policy_loss, "kl": got.kl, "d_policy_logps": got.gradient }))
}

fn pairwise_accuracy(case: &Case) -> Result<Answer> {
    let (choices, preferred) = judged(case)?;
    Ok(json!({ "accuracy": choice_accuracy(&choices, &preferred) }))
}

fn best_of_n_from_pairs(case: &Case) -> Result<Answer> {
    Ok(json!({ "accuracy": best_of_n_accuracy(&case.input::<Vec<Vec<bool>>>("wins")?) }))
}
