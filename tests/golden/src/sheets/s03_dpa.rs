//! Sheet 03-dpa.

use anyhow::Result;
use plumb_methods::direction::{self, degrees_at, of_degrees, prompt_weights, unit};
use plumb_methods::evaluation::pareto::front;
use plumb_methods::loss::regression::masked_squared_error;
use plumb_methods::loss::sequence::Reduction;
use plumb_methods::selection::ranked::best;
use serde_json::{Map, Value, json};

use crate::likelihood::likelihood;
use crate::tensor::{gradients, mask_tensor, matrix, rows};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "03-dpa",
    operations: &[
        ("masked_regression_loss", masked_regression_loss),
        ("directional_reward", directional_reward),
        ("arithmetic_prompt_weights", arithmetic_prompt_weights),
        ("sample_directions", sample_directions),
        ("preference_rejection_sampling", preference_rejection_sampling),
        ("sft_nll_loss", sft_nll_loss),
        ("pareto_front_2d", pareto_front_2d),
    ],
};

type Labels = Vec<Vec<Option<f64>>>;

fn masked_regression_loss(case: &Case) -> Result<Answer> {
    let (predictions, labels): (Vec<Vec<f64>>, Labels) = (case.input("predictions")?, case.input("labels")?);
    let present: Vec<Vec<bool>> = labels.iter().map(|row| row.iter().map(Option::is_some).collect()).collect();
    let count = present.iter().flatten().filter(|present| **present).count();
    let labels: Vec<Vec<f64>> = labels.iter().map(|row| row.iter().map(|label| label.unwrap_or(0.0)).collect()).collect();
    let (labels, present) = (matrix(&labels)?, mask_tensor(&present)?);
    let (loss, gradients) = gradients(&[matrix(&predictions)?], |x| masked_squared_error(&x[0], &labels, &present))?;
    Ok(json!({ "loss": loss, "grad_predictions": rows(&gradients[0])?, "present": count }))
}

/// Rewards of each group, `[objectives][completions]`, from `[groups][completions]` by objective.
fn group_components(components: &[Vec<Vec<f64>>], group: usize) -> Vec<Vec<f64>> {
    components.iter().map(|groups| groups[group].clone()).collect()
}

fn components(case: &Case, names: &[String]) -> Result<Vec<Vec<Vec<f64>>>> {
    let mut all: Map<String, Value> = case.input("components")?;
    names.iter().map(|name| Ok(serde_json::from_value(all.remove(name).unwrap_or_default())?)).collect()
}

fn directional_reward(case: &Case) -> Result<Answer> {
    let direction: Map<String, Value> = case.input("direction")?;
    let names: Vec<String> = direction.keys().cloned().collect();
    let components = components(case, &names)?;
    let values: Vec<f64> = direction.values().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect();
    let values = if case.param_or("normalise", true)? { unit(&values) } else { values };
    let groups = components.first().map_or(0, Vec::len);
    let rewards: Vec<Vec<f64>> =
        (0..groups).map(|group| direction::rewards(&group_components(&components, group), &values)).collect();
    let by_name: Map<String, Value> = names.into_iter().zip(values).map(|(name, value)| (name, value.into())).collect();
    Ok(json!({ "rewards": rewards, "unit_direction": by_name }))
}

fn arithmetic_prompt_weights(case: &Case) -> Result<Answer> {
    let scale = case.param("scale")?;
    let weights = case.input::<Vec<f64>>("degrees")?.into_iter().map(|degrees| prompt_weights(of_degrees(degrees), scale));
    let (weights, errors): (Vec<_>, Vec<_>) = weights.unzip();
    Ok(json!({ "weights": weights, "norm_error": errors }))
}

fn sample_directions(case: &Case) -> Result<Answer> {
    let (least, most) = (case.param("min_degrees")?, case.param("max_degrees")?);
    let degrees: Vec<f64> =
        case.input::<Vec<f64>>("uniforms")?.into_iter().map(|uniform| degrees_at(uniform, least, most)).collect();
    let directions: Vec<_> = degrees.iter().map(|&degrees| of_degrees(degrees)).collect();
    Ok(json!({ "degrees": degrees, "directions": directions }))
}

fn preference_rejection_sampling(case: &Case) -> Result<Answer> {
    let components = components(case, &case.param::<Vec<String>>("objectives")?)?;
    let (keep, directions): (usize, Vec<Vec<f64>>) = (case.param("keep")?, case.input("directions")?);
    let (mut selected, mut scores) = (Vec::new(), Vec::new());
    for (group, direction) in directions.iter().enumerate() {
        let rewards = direction::rewards(&group_components(&components, group), &unit(direction));
        let kept = best(&rewards, keep);
        scores.push(kept.iter().map(|&i| rewards[i]).collect::<Vec<_>>());
        selected.push(kept);
    }
    Ok(json!({ "selected": selected, "scores": scores }))
}

fn sft_nll_loss(case: &Case) -> Result<Answer> {
    likelihood(case, Reduction::TokenMean, "grad_policy_logps")
}

fn pareto_front_2d(case: &Case) -> Result<Answer> {
    let front = front(&case.input::<Vec<[f64; 2]>>("points")?, case.param("reference_point")?);
    Ok(json!({ "front": front.indices, "hypervolume": front.hypervolume }))
}
