//! Sheet 45-rlhf-generalisation-diversity.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use plumb_core::recipe::KlEstimator;
use plumb_methods::evaluation::benchmark::generalisation_gap;
use plumb_methods::evaluation::best_of_n::{best_of_n_kl, pick_probabilities};
use plumb_methods::evaluation::diversity::{
    InferenceLabels, Ngrams, distinct_ngrams, embedding_diversity, inference_diversity, report,
};
use plumb_methods::kl;
use plumb_methods::schedule::AdaptiveKl;
use plumb_methods::stats::dot;
use serde_json::{Map, json};

use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "45-rlhf-generalisation-diversity",
    operations: &[
        ("distinct_ngrams", distinct_ngrams_of),
        ("diversity_report", diversity_report),
        ("embedding_diversity", embedding_diversity_of),
        ("nli_diversity", nli_diversity),
        ("best_of_n_expectation", best_of_n_expectation),
        ("kl_estimator", kl_estimator),
        ("adaptive_kl_controller", adaptive_kl_controller),
        ("generalisation_gap", generalisation_gap_of),
    ],
};

fn distinct_ngrams_of(case: &Case) -> Result<Answer> {
    let texts: Vec<String> = case.input("texts")?;
    Ok(json!({ "value": distinct_ngrams(&texts, case.param("n")?, case.param_or("vocab_size", None)?) }))
}

fn diversity_report(case: &Case) -> Result<Answer> {
    let groups: Vec<Vec<String>> = case.input("groups")?;
    let (min, max) = (case.param_or("n_min", 1)?, case.param_or("n_max", 5)?);
    let report = report(&groups, Ngrams { min, max, vocabulary: case.param_or("vocab_size", None)? });
    Ok(json!({
        "per_input": report.per_input,
        "mean_per_input": report.mean_per_input,
        "std_per_input": report.std_per_input,
        "across_input": report.across_input,
        "overall": report.overall,
    }))
}

fn embedding_diversity_of(case: &Case) -> Result<Answer> {
    let (similarities, diversity) = embedding_diversity(&case.input::<Vec<Vec<f64>>>("embeddings")?);
    Ok(json!({ "similarities": similarities, "diversity": diversity }))
}

fn nli_diversity(case: &Case) -> Result<Answer> {
    let order: Vec<String> =
        case.param_or("label_order", ["entailment", "neutral", "contradiction"].map(str::to_owned).to_vec())?;
    let index = |label: &str| order.iter().position(|name| name == label).with_context(|| format!("no label {label}"));
    let labels = InferenceLabels { entailment: index("entailment")?, contradiction: index("contradiction")? };
    let (scores, diversity) = inference_diversity(&case.input::<Vec<Vec<Vec<f64>>>>("nli_probabilities")?, labels);
    Ok(json!({ "pair_scores": scores, "diversity": diversity }))
}

fn best_of_n_expectation(case: &Case) -> Result<Answer> {
    let (groups, n): (Vec<Vec<f64>>, usize) = (case.input("rewards")?, case.param("n")?);
    let [rewards] = groups.as_slice() else { bail!("an expectation is over one group, not {}", groups.len()) };
    let picked = pick_probabilities(rewards, n).with_context(|| format!("cannot draw {n} of {}", rewards.len()))?;
    Ok(json!({ "expected_reward": dot(&picked, rewards), "pick_probability": picked, "kl_bound": best_of_n_kl(n) }))
}

fn kl_estimator(case: &Case) -> Result<Answer> {
    let estimator = match case.param_or("kind", 1)? {
        1 => KlEstimator::K1,
        2 => KlEstimator::K2,
        3 => KlEstimator::K3,
        other => bail!("no estimator of kind {other}"),
    };
    let (policy, reference): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (case.input("policy_logps")?, case.input("ref_logps")?);
    let mask = case.truth_rows("mask")?;
    let token = |i: usize, t: usize| if mask[i][t] { kl::estimate(estimator, policy[i][t], reference[i][t]) } else { 0.0 };
    let rows = (0..policy.len()).map(|i| (0..policy[i].len()).map(|t| token(i, t)).collect());
    Ok(json!({ "per_token": rows.collect::<Vec<Vec<f64>>>() }))
}

fn adaptive_kl_controller(case: &Case) -> Result<Answer> {
    let (target, horizon): (f64, f64) = (case.param("target")?, case.param("horizon")?);
    let mut controller =
        AdaptiveKl { coefficient: case.param("initial")?, target: Some(target), error_clip: AdaptiveKl::ERROR_CLIP };
    let observations: Vec<(f64, f64)> = case.input("observations")?;
    let coefficients: Vec<f64> = observations.iter().map(|(kl, sequences)| controller.update(*kl, sequences / horizon)).collect();
    Ok(json!({ "coefficients": coefficients }))
}

fn generalisation_gap_of(case: &Case) -> Result<Answer> {
    let inside: BTreeMap<String, f64> = case.input("in_distribution")?;
    let outside: BTreeMap<String, f64> = case.input("out_of_distribution")?;
    let mut answer = Map::new();
    for (name, inside) in inside {
        let Some(outside) = outside.get(&name) else { continue };
        let (gap, relative_drop) = generalisation_gap(inside, *outside);
        answer.insert(name, json!({ "gap": gap, "relative_drop": relative_drop }));
    }
    Ok(answer.into())
}
