//! Sheet 53-heron.

use anyhow::{Result, ensure};
use plumb_methods::direction::standardised;
use plumb_methods::loss::reward::pairwise_bradley_terry;
use plumb_methods::reward::hierarchy::{level_shaped, linear_baseline};
use plumb_methods::selection::hierarchy::{self, Level, margin};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::groups::{flatten, regroup};
use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "53-heron",
    operations: &[
        ("hierarchical_pairs", hierarchical_pairs),
        ("pairwise_bt_loss", pairwise_bt_loss),
        ("normalise_reward", normalise_reward),
        ("level_shaping", level_shaping),
        ("linear_reward_baseline", linear_reward_baseline),
    ],
};

type Groups = Vec<Vec<f64>>;

/// Components in the order of the hierarchy, `[levels][groups][answers]`, and their signs.
fn hierarchy(case: &Case) -> Result<(Vec<Groups>, Vec<f64>)> {
    let mut components: Map<String, Value> = case.input("components")?;
    let (order, signs): (Vec<String>, Vec<f64>) = (case.param("order")?, case.param("sign")?);
    ensure!(order.len() == signs.len(), "each component needs a sign");
    let component = |name: &String| Ok(serde_json::from_value(components.remove(name).unwrap_or_default())?);
    Ok((order.iter().map(component).collect::<Result<_>>()?, signs))
}

fn hierarchical_pairs(case: &Case) -> Result<Answer> {
    let (components, signs) = hierarchy(case)?;
    let multiples: Vec<f64> = case.param("margin_std")?;
    ensure!(multiples.len() == components.len(), "each component needs a margin");
    let margins: Vec<f64> =
        components.iter().zip(&multiples).map(|(component, &multiple)| margin(&flatten(component), multiple)).collect();
    let levels: Vec<Level> = signs.iter().zip(&margins).map(|(&sign, &margin)| Level { sign, margin }).collect();
    let mut pairs = Vec::new();
    for group in 0..components.first().map_or(0, Vec::len) {
        let factors: Groups = components.iter().map(|component| component[group].clone()).collect();
        pairs.extend(hierarchy::pairs(&factors, &levels).into_iter().map(
            |hierarchy::Pair { chosen, rejected, level }| json!({ "group": group, "chosen": chosen, "rejected": rejected, "level": level }),
        ));
    }
    Ok(json!({ "margins": margins, "pairs": pairs }))
}

/// A pair of a case.
#[derive(Deserialize)]
struct Written {
    group: usize,
    chosen: usize,
    rejected: usize,
}

fn pairwise_bt_loss(case: &Case) -> Result<Answer> {
    let (rewards, written): (Groups, Vec<Written>) = (case.input("rewards")?, case.input("pairs")?);
    let place = |group: usize, answer: usize| (rewards[..group].iter().map(Vec::len).sum::<usize>() + answer) as u32;
    let pairs: Vec<(u32, u32)> =
        written.iter().map(|pair| (place(pair.group, pair.chosen), place(pair.group, pair.rejected))).collect();
    let epsilon = case.param_or("denominator_eps", 0.0)?;
    let leaf = vector(&flatten(&rewards))?;
    let accuracy = pairwise_bradley_terry(&leaf, &pairs, epsilon)?.accuracy;
    let (loss, gradients) = gradients(&[leaf], |leaf| Ok(pairwise_bradley_terry(&leaf[0], &pairs, epsilon)?.loss))?;
    Ok(json!({ "loss": loss, "accuracy": accuracy, "d_rewards": regroup(&flat(&gradients[0])?, &rewards) }))
}

fn normalise_reward(case: &Case) -> Result<Answer> {
    let (rewards, mean, std): (Groups, _, _) = (case.input("rewards")?, case.param("mean")?, case.param("std")?);
    Ok(json!({ "rewards": rewards.iter().map(|group| standardised(group, mean, std)).collect::<Groups>() }))
}

fn level_shaping(case: &Case) -> Result<Answer> {
    let (rewards, levels): (Groups, Vec<Vec<u32>>) = (case.input("rewards")?, case.input("levels")?);
    let alpha = case.param_or("alpha", 1.0)?;
    let group = |(rewards, levels): (&Vec<f64>, &Vec<u32>)| {
        rewards.iter().zip(levels).map(|(&reward, &level)| level_shaped(reward, level, alpha)).collect()
    };
    Ok(json!({ "rewards": rewards.iter().zip(&levels).map(group).collect::<Groups>() }))
}

fn linear_reward_baseline(case: &Case) -> Result<Answer> {
    let (components, signs) = hierarchy(case)?;
    let factors: Groups = components.iter().map(|component| flatten(component)).collect();
    let rewards = linear_baseline(&factors, &signs, case.param("beta")?);
    Ok(json!({ "rewards": components.first().map_or_else(Vec::new, |groups| regroup(&rewards, groups)) }))
}
