//! Sheet 14-rewardmath.

use anyhow::Result;
use plumb_methods::evaluation::one_to_many::{of_verdicts, one_to_many};
use plumb_methods::reward::steps::{Aggregation, PROBABILITY_CLIP, WITHOUT_STEPS, aggregate};
use plumb_methods::selection::best::best_with_vote;
use plumb_methods::stats::{pearson, spearman};
use serde_json::{Map, Value, json};

use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "14-rewardmath",
    operations: &[
        ("step_score_aggregate", step_score_aggregate),
        ("one_to_many_metrics", one_to_many_metrics),
        ("pairwise_verdict_metrics", pairwise_verdict_metrics),
        ("best_of_n_with_vote", best_of_n_with_vote),
        ("benchmark_policy_correlation", benchmark_policy_correlation),
    ],
};

const RULES: [(&str, Aggregation); 8] = [
    ("min", Aggregation::Min),
    ("max", Aggregation::Max),
    ("prod", Aggregation::Product),
    ("geometric_mean", Aggregation::GeometricMean),
    ("mean", Aggregation::Mean),
    ("mean_logit", Aggregation::MeanLogit),
    ("mean_odds", Aggregation::MeanOdds),
    ("last", Aggregation::Last),
];

fn step_score_aggregate(case: &Case) -> Result<Answer> {
    let steps: Vec<Vec<f64>> = case.input("step_scores")?;
    let (clip, empty) = (case.param_or("probability_clip", PROBABILITY_CLIP)?, case.param_or("empty", WITHOUT_STEPS)?);
    let scores = |rule| steps.iter().map(|steps| aggregate(steps, rule, clip, empty)).collect::<Vec<_>>();
    Ok(RULES.into_iter().map(|(name, rule)| (name.to_owned(), json!(scores(rule)))).collect::<Map<String, Value>>().into())
}

fn one_to_many_metrics(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<Vec<f64>>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    let metrics = one_to_many(chosen.iter().copied().zip(rejected.iter().map(Vec::as_slice)));
    Ok(json!({
        "accuracy": metrics.accuracy,
        "accuracy_with_ties": metrics.accuracy_with_ties,
        "mrr": metrics.mean_reciprocal_rank,
        "per_problem_mrr": metrics.reciprocal_ranks,
        "pairwise_accuracy": metrics.pairwise_accuracy,
    }))
}

fn pairwise_verdict_metrics(case: &Case) -> Result<Answer> {
    let (accuracy, mrr) = of_verdicts(&case.truth_rows("chosen_won")?);
    Ok(json!({ "accuracy": accuracy, "mrr": mrr }))
}

fn best_of_n_with_vote(case: &Case) -> Result<Answer> {
    let (rewards, answers): (Vec<Vec<f64>>, Vec<Vec<String>>) = (case.input("rewards")?, case.input("answers")?);
    let gold: Vec<String> = case.input("gold")?;
    let point = |n: &usize| {
        let groups = rewards.iter().zip(&answers).zip(&gold);
        let correct: Vec<bool> =
            groups.map(|((rewards, answers), gold)| best_with_vote(rewards, answers, *n) == Some(gold)).collect();
        let share = correct.iter().filter(|correct| **correct).count() as f64 / correct.len().max(1) as f64;
        json!({ "n": n, "accuracy": share, "correct": correct })
    };
    Ok(json!({ "points": case.param::<Vec<usize>>("n")?.iter().map(point).collect::<Vec<_>>() }))
}

fn benchmark_policy_correlation(case: &Case) -> Result<Answer> {
    let (scores, policies): (Vec<f64>, Vec<f64>) = (case.input("benchmark_score")?, case.input("policy_score")?);
    let r = pearson(&scores, &policies);
    Ok(json!({ "pearson": r, "r2": r.map(|r| r * r), "spearman": spearman(&scores, &policies) }))
}
