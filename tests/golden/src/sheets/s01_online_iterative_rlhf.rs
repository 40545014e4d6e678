//! Sheet 01-online-iterative-rlhf.

use anyhow::{Context, Result};
use plumb_core::recipe::Dpo;
use plumb_methods::evaluation::preference::generation_means;
use plumb_methods::pairwise::{Combine, knockout, preference_probability, verdict};
use plumb_methods::selection::pairs::{Orientation, Rule, Strategy, select_pair};
use serde_json::json;

use super::s27_dpo::preference_loss;
use crate::{Answer, Case, Sheet, rewards};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "01-online-iterative-rlhf",
    operations: &[
        ("select_preference_pairs", select_preference_pairs),
        ("dpo_loss", dpo_loss),
        ("bradley_terry_loss", bradley_terry_loss),
        ("pairwise_preference_probability", pairwise_preference_probability),
        ("knockout_best", knockout_best),
        ("generation_summary", generation_summary),
    ],
};

fn select_preference_pairs(case: &Case) -> Result<Answer> {
    let rewards: Vec<Vec<f64>> = case.input("rewards")?;
    let lengths: Option<Vec<Vec<f64>>> = case.input_opt("lengths")?;
    let strategies = [
        ("max_min", Strategy::MaxMin),
        ("max_random", Strategy::MaxRandom),
        ("max_max", Strategy::MaxMax),
        ("random", Strategy::Random),
        ("max_min_p", Strategy::MaxMinPenalized),
    ];
    let rule = Rule {
        strategy: case.choice("strategy", &strategies)?,
        length_penalty: case.param_or("length_penalty", 0.0)?,
        orientation: case.choice("orientation", &[("raw", Orientation::Raw), ("shaped", Orientation::Shaped)])?,
        min_completions: case.param_or("min_completions", 2)?,
        margin_scale: case.param_or("margin_scale", 1.0)?,
    };
    let (mut pairs, mut dropped) = (Vec::new(), Vec::new());
    for (group, values) in rewards.iter().enumerate() {
        match select_pair(values, lengths.as_ref().map(|lengths| lengths[group].as_slice()), rule) {
            Some(pair) => {
                pairs.push(json!({ "group": group, "chosen": pair.chosen, "rejected": pair.rejected, "margin": pair.margin }));
            }
            None => dropped.push(group),
        }
    }
    Ok(json!({ "pairs": pairs, "dropped": dropped }))
}

fn dpo_loss(case: &Case) -> Result<Answer> {
    let settings = Dpo { beta: case.param("beta")?, label_smoothing: case.param_or("label_smoothing", 0.0)?, ..Dpo::default() };
    preference_loss(case, &settings, "grad", "per_pair")
}

fn bradley_terry_loss(case: &Case) -> Result<Answer> {
    rewards::bradley_terry_loss(case, "grad")
}

fn pairwise_preference_probability(case: &Case) -> Result<Answer> {
    let (first, swapped): (Vec<[f64; 2]>, Vec<[f64; 2]>) =
        (case.input("logits_first_order")?, case.input("logits_swapped_order")?);
    let temperature = case.param_or("temperature", 1.0)?;
    let probability = |(first, swapped): (&[f64; 2], &[f64; 2])| {
        preference_probability(*first, Some(*swapped), Combine::MeanProbability, temperature)
    };
    let probabilities: Vec<f64> = first.iter().zip(&swapped).map(probability).collect();
    let verdicts: Vec<f64> = probabilities.iter().map(|&probability| verdict(probability)).collect();
    Ok(json!({ "prob_first": probabilities, "verdict": verdicts }))
}

fn knockout_best(case: &Case) -> Result<Answer> {
    let champions = knockout(&case.input::<Vec<Vec<f64>>>("pair_prob")?).context("nobody takes part")?;
    Ok(json!({ "best": champions.last(), "comparisons": champions.len() - 1, "champions": champions }))
}

fn generation_summary(case: &Case) -> Result<Answer> {
    let rewards: Vec<Vec<f64>> = case.input("rewards")?;
    let (mean, best) = generation_means(&rewards).unzip();
    Ok(json!({ "mean_reward": mean, "top1_mean": best, "groups": rewards.len() }))
}
