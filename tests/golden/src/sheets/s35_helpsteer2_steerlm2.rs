//! Sheet 35-helpsteer2-steerlm2.

use anyhow::Result;
use candle_core::Tensor;
use plumb_methods::direction;
use plumb_methods::loss::regression::masked_squared_error;
use plumb_methods::loss::reward::{Strength, graded_bradley_terry};
use plumb_methods::loss::steerlm::{Group, divergence, policy_loss, smoothed_distance, weights};
use plumb_methods::loss::{self};
use plumb_methods::reward::attributes::Levels;
use plumb_methods::selection::pairs::{Rule, select_pair};
use plumb_methods::stats::mean_opt;
use serde_json::{Map, Value, json};

use crate::tensor::{flat, gradients, mask_tensor, matrix, rows, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "35-helpsteer2-steerlm2",
    operations: &[
        ("attribute_mse", attribute_mse),
        ("bt_variants", bt_variants),
        ("goodness", goodness),
        ("goodness_pairs", goodness_pairs),
        ("helpfulness_pairs", helpfulness_pairs),
        ("attribute_probabilities", attribute_probabilities),
        ("attribute_logprob", attribute_logprob),
        ("steerlm2_weights", steerlm2_weights),
        ("steerlm2_loss", steerlm2_loss),
    ],
};

/// What stands for a label that is missing.
const ABSENT: f64 = -100.0;

fn attribute_mse(case: &Case) -> Result<Answer> {
    let (predictions, labels): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (case.input("predictions")?, case.input("labels")?);
    let present: Vec<Vec<bool>> = labels.iter().map(|row| row.iter().map(|label| *label != ABSENT).collect()).collect();
    let labelled = present.iter().flatten().any(|present| *present);
    let (labels, present) = (matrix(&labels)?, mask_tensor(&present)?);
    let (loss, gradients) = gradients(&[matrix(&predictions)?], |x| masked_squared_error(&x[0], &labels, &present))?;
    Ok(json!({ "loss": labelled.then_some(loss), "d_predictions": rows(&gradients[0])? }))
}

fn bt_variants(case: &Case) -> Result<Answer> {
    let strengths: Vec<f64> = case.input("strength")?;
    let used =
        case.choice("variant", &[("regular", Strength::Ignored), ("margin", Strength::Margin), ("scaled", Strength::Scale)])?;
    let leaves = [vector(&case.input::<Vec<f64>>("rewards_1")?)?, vector(&case.input::<Vec<f64>>("rewards_2")?)?];
    let losses = |r: &[Tensor]| graded_bradley_terry(&r[0], &r[1], &strengths, used);
    let (loss, gradients) = gradients(&leaves, |r| loss::mean(&losses(r)?))?;
    Ok(json!({
        "per_pair": flat(&losses(&leaves)?)?,
        "loss": loss,
        "d_rewards_1": flat(&gradients[0])?,
        "d_rewards_2": flat(&gradients[1])?,
    }))
}

fn goodness(case: &Case) -> Result<Answer> {
    let weights: Map<String, Value> = case.param("weights")?;
    let mut all: Map<String, Value> = case.input("components")?;
    let named = weights.iter().map(|(name, weight)| {
        let groups: Vec<Vec<f64>> = serde_json::from_value(all.remove(name).unwrap_or_default())?;
        Ok((groups, weight.as_f64().unwrap_or(f64::NAN)))
    });
    let (components, weights): (Vec<Vec<Vec<f64>>>, Vec<f64>) = named.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let (mean, std): (f64, f64) = (case.param_or("mean", 0.0)?, case.param_or("std", 1.0)?);
    let rewards = (0..components.first().map_or(0, Vec::len)).map(|group| {
        let of_group: Vec<Vec<f64>> = components.iter().map(|component| component[group].clone()).collect();
        direction::standardised(&direction::rewards(&of_group, &weights), mean, std)
    });
    Ok(json!({ "rewards": rewards.collect::<Vec<_>>() }))
}

fn best_against_worst(groups: &[Vec<f64>]) -> (Vec<[usize; 3]>, usize) {
    let pairs: Vec<[usize; 3]> = groups
        .iter()
        .enumerate()
        .filter_map(|(group, rewards)| {
            select_pair(rewards, None, Rule::default()).map(|pair| [group, pair.chosen, pair.rejected])
        })
        .collect();
    let dropped = groups.len() - pairs.len();
    (pairs, dropped)
}

fn goodness_pairs(case: &Case) -> Result<Answer> {
    Ok(json!({ "pairs": best_against_worst(&case.input::<Vec<Vec<f64>>>("rewards")?).0 }))
}

fn helpfulness_pairs(case: &Case) -> Result<Answer> {
    let (pairs, dropped) = best_against_worst(&case.input::<Vec<Vec<f64>>>("helpfulness")?);
    Ok(json!({ "pairs": pairs, "dropped": dropped }))
}

fn levels(case: &Case) -> Result<Levels> {
    let five = Levels::five();
    Ok(Levels {
        concentration: case.param_or("concentration", five.concentration)?,
        max_level: case.param_or("max_level", five.max_level)?,
        clamp: case.param_or("clamp", five.clamp)?,
        edges: case.param_or("bin_edges", five.edges)?,
        floor: case.param_or("floor", five.floor)?,
    })
}

fn attribute_probabilities(case: &Case) -> Result<Answer> {
    let (levels, predictions): (_, Vec<f64>) = (levels(case)?, case.input("predictions")?);
    Ok(json!({ "probabilities": predictions.iter().map(|&x| levels.probabilities(x)).collect::<Vec<_>>() }))
}

fn attribute_logprob(case: &Case) -> Result<Answer> {
    let (levels, predictions): (_, Vec<Vec<f64>>) = (levels(case)?, case.input("predictions")?);
    let targets: Vec<Vec<usize>> = case.input("target_levels")?;
    let of = |(predictions, targets): (&Vec<f64>, &Vec<usize>)| levels.log_probability(predictions, targets);
    Ok(json!({ "log_p": predictions.iter().zip(&targets).map(of).collect::<Vec<_>>() }))
}

fn groups(case: &Case) -> Result<Vec<Group>> {
    let read = |name: &str| {
        let rows: Vec<Vec<f64>> = case.input(name)?;
        rows.iter().map(|row| vector(row)).collect::<Result<Vec<_>>>()
    };
    let names = ["attribute_logps_sum", "sft_logps_sum", "proposal_logps_sum", "policy_logps_sum"];
    let [attributes, sft, proposal, policy] = names.map(read);
    let (attributes, sft, proposal, policy) = (attributes?, sft?, proposal?, policy?);
    let group = |i: usize| Group {
        attributes: attributes[i].clone(),
        sft: sft[i].clone(),
        proposal: proposal[i].clone(),
        policy: policy[i].clone(),
    };
    Ok((0..attributes.len()).map(group).collect())
}

fn steerlm2_weights(case: &Case) -> Result<Answer> {
    let (mut targets, mut baselines, mut differences) = (Vec::new(), Vec::new(), Vec::new());
    let (mut distances, mut exact) = (Vec::new(), Vec::new());
    for group in groups(case)? {
        let weights = weights(&group)?;
        let (target, baseline) = (flat(&weights.target)?, flat(&weights.baseline)?);
        distances.push(smoothed_distance(&target, &baseline));
        exact.push(divergence(&group)?.to_scalar::<f64>()?);
        differences.push(flat(&(&weights.target - &weights.baseline)?)?);
        targets.push(target);
        baselines.push(baseline);
    }
    Ok(json!({
        "target_weights": targets,
        "baseline_weights": baselines,
        "weights": differences,
        "distance": mean_opt(&distances),
        "exact_kl": mean_opt(&exact),
    }))
}

fn steerlm2_loss(case: &Case) -> Result<Answer> {
    let groups = groups(case)?;
    let lengths: Vec<Vec<usize>> = case.input("response_lengths")?;
    let leaves: Vec<Tensor> = groups.iter().map(|group| group.policy.clone()).collect();
    let (loss, gradients) = gradients(&leaves, |policies| {
        let losses = policies
            .iter()
            .zip(&groups)
            .zip(&lengths)
            .map(|((policy, group), lengths)| policy_loss(&Group { policy: policy.clone(), ..group.clone() }, lengths));
        loss::mean(&Tensor::stack(&losses.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
    })?;
    Ok(json!({ "loss": loss, "d_policy_logps_sum": gradients.iter().map(flat).collect::<Result<Vec<_>>>()? }))
}
