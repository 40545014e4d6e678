//! Sheet 42-cgpo-mixture-of-judges.

use anyhow::{Context, Result};
use plumb_core::recipe::ScaleRewards;
use plumb_methods::advantage::{Baseline, Scaling, group_relative};
use plumb_methods::loss;
use plumb_methods::loss::constrained::{blended_update, codpo, weighted_likelihood};
use plumb_methods::loss::dpo::PairLogps;
use plumb_methods::reward::ensemble::weighted;
use plumb_methods::reward::implicit;
use plumb_methods::reward::judged::{calibrated, regularised, satisfaction_rate, satisfied};
use plumb_methods::selection::constrained::{Learned, constrained_best, constrained_pair};
use plumb_methods::stats::first_max;
use serde_json::{Map, Value, json};

use crate::groups::{flatten, flatten_members, regroup, regroup_members};
use crate::pairs::Pairs;
use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "42-cgpo-mixture-of-judges",
    operations: &[
        ("combine_judges", combine_judges),
        ("calibrated_reward", calibrated_reward),
        ("crpg", crpg),
        ("codpo_pairs", codpo_pairs),
        ("codpo_loss", codpo_loss),
        ("crraft", crraft),
        ("raft", raft),
        ("blend_tasks", blend_tasks),
        ("linear_reward_baseline", linear_reward_baseline),
        ("constraint_report", constraint_report),
    ],
};

type Groups = Vec<Vec<f64>>;

fn combine_judges(case: &Case) -> Result<Answer> {
    let verdicts: Vec<Vec<Vec<bool>>> = case.input("verdicts")?;
    Ok(json!({ "satisfied": regroup_members(&satisfied(&flatten_members(&verdicts)), &verdicts) }))
}

fn calibrated_rewards(case: &Case) -> Result<Groups> {
    let (rewards, baselines): (Groups, Vec<f64>) = (case.input("rewards")?, case.input("baseline_rewards")?);
    let group = |(rewards, &baseline): (&Vec<f64>, &f64)| rewards.iter().map(|&reward| calibrated(reward, baseline)).collect();
    Ok(rewards.iter().zip(&baselines).map(group).collect())
}

fn calibrated_reward(case: &Case) -> Result<Answer> {
    Ok(json!({ "rewards": calibrated_rewards(case)? }))
}

/// Log-ratios of the policy to its reference by completion, nats.
fn log_ratios(case: &Case) -> Result<Groups> {
    let (policy, reference): (Groups, Groups) = (case.input("policy_logps_sum")?, case.input("ref_logps_sum")?);
    Ok(policy.iter().zip(&reference).map(|(policy, reference)| implicit::rewards(policy, reference, 1.0)).collect())
}

fn crpg(case: &Case) -> Result<Answer> {
    let (calibrated, ratios) = (calibrated_rewards(case)?, flatten(&log_ratios(case)?));
    let (verdicts, kl_max) = (flatten(&case.truth_rows("satisfied")?), case.param("kl_max")?);
    let baseline = case.choice("baseline", &[("batch", Baseline::Batch), ("prompt", Baseline::Group)])?;
    let reward = |(i, reward): (usize, f64)| regularised(reward, verdicts[i], ratios[i], kl_max);
    let rewards: Vec<f64> = flatten(&calibrated).into_iter().enumerate().map(reward).collect();
    let mut end = 0;
    let ends: Vec<u32> = calibrated
        .iter()
        .map(|group| {
            end += group.len() as u32;
            end
        })
        .collect();
    let scaling = Scaling { baseline, by: ScaleRewards::None, ddof: 0, epsilon: 0.0 };
    let given: Vec<Option<f64>> = rewards.iter().copied().map(Some).collect();
    let advantages: Vec<f64> = group_relative(&given, &ends, scaling).values.into_iter().flatten().collect();
    let (policy, weights) = (vector(&flatten(&case.input::<Groups>("policy_logps_sum")?))?, vector(&advantages)?);
    let (loss, gradients) = gradients(&[policy], |policy| weighted_likelihood(&policy[0], &weights))?;
    Ok(json!({
        "regularized_rewards": regroup(&rewards, &calibrated),
        "advantages": regroup(&advantages, &calibrated),
        "loss": loss,
        "d_policy_logps_sum": regroup(&flat(&gradients[0])?, &calibrated),
    }))
}

fn codpo_pairs(case: &Case) -> Result<Answer> {
    let (rewards, verdicts): (Groups, _) = (case.input("rewards")?, case.truth_rows("satisfied")?);
    let group = |(group, (rewards, verdicts)): (usize, (&Vec<f64>, &Vec<bool>))| {
        constrained_pair(rewards, verdicts).map(|(chosen, rejected)| [group, chosen, rejected])
    };
    Ok(json!({ "pairs": rewards.iter().zip(&verdicts).enumerate().filter_map(group).collect::<Vec<_>>() }))
}

fn codpo_loss(case: &Case) -> Result<Answer> {
    let (beta, lambda) = (case.param_or("beta", 0.1)?, case.param_or("lambda", 5.0)?);
    let pairs = Pairs::sums(case)?;
    let (reference, lengths) = (pairs.reference_logps()?, vector(&case.input::<Vec<f64>>("chosen_lengths")?)?);
    let losses = |policy: &PairLogps| {
        let parts = codpo(policy, &reference, &lengths, beta, lambda)?;
        parts.dpo + parts.likelihood
    };
    let mut answer = json!({ "per_pair": flat(&losses(&pairs.policy_logps()?)?)? });
    answer["loss"] = json!(pairs.differentiate("d", &mut answer, |policy| loss::mean(&losses(policy)?))?);
    Ok(answer)
}

fn crraft(case: &Case) -> Result<Answer> {
    let (rewards, calibrated_rewards, ratios) = (case.input::<Groups>("rewards")?, calibrated_rewards(case)?, log_ratios(case)?);
    let (verdicts, baseline_verdicts) = (case.truth_rows("satisfied")?, case.truths("baseline_satisfied")?);
    let (policy, baselines): (Groups, Vec<f64>) = (case.input("policy_logps_sum")?, case.input("baseline_rewards")?);
    let baseline_policy: Vec<f64> = case.input("baseline_policy_logps_sum")?;
    let kl_max = case.param("kl_max")?;
    let (mut selected, mut weights, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..rewards.len() {
        let (name, weight, logp) = match constrained_best(&rewards[i], &verdicts[i], &ratios[i], kl_max, baseline_verdicts[i]) {
            Some(Learned::Completion(best)) => (json!(best), calibrated_rewards[i][best], Some(policy[i][best])),
            Some(Learned::Baseline) => (json!("baseline"), calibrated(baselines[i], baselines[i]), Some(baseline_policy[i])),
            None => (Value::Null, 0.0, None),
        };
        selected.push(name);
        weights.push(weight);
        used.extend(logp.map(|logp| (logp, weight)));
    }
    let (logps, of_used): (Vec<f64>, Vec<f64>) = used.into_iter().unzip();
    let loss = weighted_likelihood(&vector(&logps)?, &vector(&of_used)?)?.to_scalar::<f64>()?;
    Ok(json!({ "selected": selected, "weights": weights, "loss": loss, "used": logps.len() }))
}

fn raft(case: &Case) -> Result<Answer> {
    let rewards: Groups = case.input("rewards")?;
    Ok(json!({ "selected": rewards.iter().map(|rewards| first_max(rewards)).collect::<Vec<_>>() }))
}

fn blend_tasks(case: &Case) -> Result<Answer> {
    let (gradients, weights): (Groups, Vec<f64>) = (case.input("task_gradients")?, case.input("task_weights")?);
    Ok(json!({ "update": blended_update(&gradients, &weights, case.param("lr")?) }))
}

fn linear_reward_baseline(case: &Case) -> Result<Answer> {
    let mut components: Map<String, Value> = case.input("components")?;
    let named: Map<String, Value> = case.param("weights")?;
    let weights: Vec<f64> =
        named.values().map(|weight| weight.as_f64().context("a weight is no number")).collect::<Result<_>>()?;
    let component = |name: &String| Ok(serde_json::from_value(components.remove(name).unwrap_or_default())?);
    let members: Vec<Groups> = named.keys().map(component).collect::<Result<_>>()?;
    Ok(json!({ "rewards": regroup_members(&weighted(&flatten_members(&members), &weights), &members) }))
}

fn constraint_report(case: &Case) -> Result<Answer> {
    let verdicts = flatten_members(&case.input::<Vec<Vec<Vec<bool>>>>("verdicts")?);
    let rates: Vec<Option<f64>> = verdicts.iter().map(|judge| satisfaction_rate(judge)).collect();
    Ok(json!({ "per_judge_rate": rates, "all_rate": satisfaction_rate(&satisfied(&verdicts)) }))
}
