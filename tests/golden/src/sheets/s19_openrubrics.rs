//! Sheet 19-openrubrics.

use anyhow::Result;
use plumb_methods::evaluation::verdicts::{Verdict, Votes, verdict_probability as probability};
use plumb_methods::loss::sequence::Reduction;
use plumb_methods::selection::curation::{consistent, distinct_order};
use serde_json::json;

use crate::likelihood::likelihood;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "19-openrubrics",
    operations: &[
        ("preference_label_consistency_filter", preference_label_consistency_filter),
        ("preference_order", preference_order),
        ("judge_majority_vote", judge_majority_vote),
        ("target_sft_loss", target_sft_loss),
        ("verdict_probability", verdict_probability),
    ],
};

fn preference_label_consistency_filter(case: &Case) -> Result<Answer> {
    let tau = case.param("tau")?;
    let predictions: Vec<Vec<Option<String>>> = case.input("predictions")?;
    let prompts = predictions.iter().map(|predictions| {
        let right: Vec<bool> = predictions.iter().map(|prediction| prediction.as_deref() == Some("a")).collect();
        let filtered = consistent(&right, tau);
        json!({ "accuracy": filtered.accuracy, "passes": filtered.passes, "kept_pairs": filtered.kept })
    });
    Ok(json!({ "prompts": prompts.collect::<Vec<_>>() }))
}

fn preference_order(case: &Case) -> Result<Answer> {
    let scores: Vec<Vec<f64>> = case.input("scores")?;
    Ok(json!({ "orders": scores.iter().map(|scores| distinct_order(scores)).collect::<Vec<_>>() }))
}

fn verdict(word: Option<&str>) -> Option<Verdict> {
    match word? {
        "A" => Some(Verdict::First),
        "B" => Some(Verdict::Second),
        "tie" => Some(Verdict::Tie),
        _ => None,
    }
}

fn name(winner: Verdict) -> &'static str {
    match winner {
        Verdict::First => "first",
        Verdict::Second => "second",
        Verdict::Tie => "tie",
    }
}

fn judge_majority_vote(case: &Case) -> Result<Answer> {
    let verdicts: Vec<Vec<Option<String>>> = case.input("verdicts")?;
    let results = verdicts.iter().zip(case.truth_rows("swapped")?).map(|(verdicts, swapped)| {
        let verdicts = verdicts
            .iter()
            .zip(swapped)
            .map(|(word, swapped)| verdict(word.as_deref()).map(|verdict| if swapped { verdict.swapped() } else { verdict }));
        let votes = Votes::count(verdicts);
        let winner = name(votes.winner());
        json!({ "votes_first": votes.first, "votes_second": votes.second, "invalid": votes.invalid, "winner": winner })
    });
    Ok(json!({ "results": results.collect::<Vec<_>>() }))
}

fn target_sft_loss(case: &Case) -> Result<Answer> {
    likelihood(case, Reduction::SequenceMean, "d_loss_d_policy_logps")
}

fn verdict_probability(case: &Case) -> Result<Answer> {
    let (first, second): (Vec<f64>, Vec<f64>) = (case.input("logprob_first")?, case.input("logprob_second")?);
    let label = |(first, second): (&f64, &f64)| {
        name(Votes { first: usize::from(first > second), second: usize::from(second > first), ..Votes::default() }.winner())
    };
    let labels: Vec<_> = first.iter().zip(&second).map(label).collect();
    let probabilities: Vec<f64> = first.iter().zip(&second).map(|(first, second)| probability(*first, *second)).collect();
    Ok(json!({ "probability_first": probabilities, "label": labels }))
}
