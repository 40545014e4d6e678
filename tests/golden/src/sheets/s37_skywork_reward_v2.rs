//! Sheet 37-skywork-reward-v2.

use anyhow::Result;
use std::collections::BTreeSet;

use plumb_methods::evaluation::preference::{Ties, agreement};
use plumb_methods::evaluation::verdicts::{Verdict, Votes};
use plumb_methods::loss::reward::bradley_terry as bradley_terry_losses;
use plumb_methods::loss::weighted_mean;
use plumb_methods::selection::curation::{self, Decision, confidence, retrieval_count, second_stage};
use plumb_methods::stats::dot;
use serde_json::json;

use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "37-skywork-reward-v2",
    operations: &[
        ("preference_confidence", preference_confidence),
        ("retrieval_counts", retrieval_counts),
        ("retrieve", retrieve_of),
        ("llm_consensus", llm_consensus),
        ("unswap", unswap),
        ("stage2_decision", stage2_decision),
        ("apply_decisions", apply_decisions),
        ("bradley_terry", bradley_terry),
        ("label_noise_report", label_noise_report),
    ],
};

fn preference_confidence(case: &Case) -> Result<Answer> {
    let margins: Vec<f64> = case.input("margins")?;
    let (p, q): (Vec<f64>, Vec<f64>) = margins.iter().map(|&margin| confidence(margin)).unzip();
    Ok(json!({ "p": p, "one_minus_p": q, "correct": margins.iter().map(|margin| *margin > 0.0).collect::<Vec<_>>() }))
}

fn retrieval_counts(case: &Case) -> Result<Answer> {
    let most = case.param("k_max")?;
    let counts: Vec<usize> = case.input::<Vec<f64>>("margins")?.iter().map(|&margin| retrieval_count(margin, most)).collect();
    Ok(json!({ "counts": counts }))
}

fn retrieve_of(case: &Case) -> Result<Answer> {
    let (pool, queries): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (case.input("pool")?, case.input("queries")?);
    let counts: Vec<usize> = case.input("counts")?;
    let retrieved = curation::retrieve(&pool, &queries.into_iter().zip(counts).collect::<Vec<_>>());
    let unique = retrieved.iter().flatten().collect::<BTreeSet<_>>().len();
    Ok(json!({ "retrieved": retrieved, "unique": unique }))
}

fn verdict(code: i64) -> Option<Verdict> {
    match code {
        1 => Some(Verdict::First),
        2 => Some(Verdict::Second),
        _ => None,
    }
}

fn code(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::First => 1,
        Verdict::Second => 2,
        Verdict::Tie => 0,
    }
}

fn llm_consensus(case: &Case) -> Result<Answer> {
    let votes: Vec<Vec<Vec<i64>>> = case.input("votes")?;
    let winner = |votes: &[i64]| code(Votes::count(votes.iter().map(|&vote| verdict(vote))).winner());
    let labels = votes.iter().map(|models| {
        let verdicts: Vec<i64> = models.iter().map(|votes| winner(votes)).collect();
        json!({ "label": winner(&verdicts), "model_verdicts": verdicts })
    });
    Ok(json!({ "labels": labels.collect::<Vec<_>>() }))
}

fn unswap(case: &Case) -> Result<Answer> {
    let verdicts = case.input::<Vec<i64>>("verdicts")?.into_iter().zip(case.truths("swapped")?);
    let turned = |(vote, swapped): (i64, bool)| match verdict(vote) {
        Some(verdict) if swapped => code(verdict.swapped()),
        _ => vote,
    };
    Ok(json!({ "verdicts": verdicts.map(turned).collect::<Vec<_>>() }))
}

const DECISIONS: [(&str, Decision); 3] = [("keep", Decision::Keep), ("flip", Decision::Flip), ("drop", Decision::Drop)];

fn decision(word: &str) -> Option<Decision> {
    DECISIONS.iter().find(|(name, _)| *name == word).map(|(_, decision)| *decision)
}

fn word(decision: Decision) -> &'static str {
    DECISIONS.iter().find(|(_, known)| *known == decision).map_or("", |(name, _)| name)
}

fn stage2_decision(case: &Case) -> Result<Answer> {
    let (best, gold): (Vec<f64>, Vec<f64>) = (case.input("best_margins")?, case.input("gold_margins")?);
    let (judges, recycle): (Vec<String>, bool) = (case.input("llm")?, case.param_or("recycle", true)?);
    let decisions = best.iter().zip(&gold).zip(&judges).map(|((&best, &gold), judge)| {
        let (decided, needs_llm) = second_stage(best, gold, decision(judge), recycle);
        json!({ "decision": word(decided), "needs_llm": needs_llm })
    });
    Ok(json!({ "decisions": decisions.collect::<Vec<_>>() }))
}

fn apply_decisions(case: &Case) -> Result<Answer> {
    let read = |name: &str| case.input::<Vec<String>>(name);
    let (chosen, rejected, decisions) = (read("chosen")?, read("rejected")?, read("decisions")?);
    let decisions: Vec<Option<Decision>> = decisions.iter().map(|word| decision(word)).collect();
    let count = |of: Decision| decisions.iter().filter(|decision| **decision == Some(of)).count();
    let (kept, flipped) = (count(Decision::Keep), count(Decision::Flip));
    let pairs: Vec<_> = curation::apply(&decisions.iter().map(|d| d.unwrap_or(Decision::Drop)).collect::<Vec<_>>())
        .into_iter()
        .map(|(i, flips)| if flips { json!([i, rejected[i], chosen[i]]) } else { json!([i, chosen[i], rejected[i]]) })
        .collect();
    let share = if decisions.is_empty() { 0.0 } else { pairs.len() as f64 / decisions.len() as f64 };
    Ok(json!({ "pairs": pairs, "kept": kept, "flipped": flipped, "dropped": count(Decision::Drop), "yield": share }))
}

fn bradley_terry(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    let weights = case.input_opt::<Vec<f64>>("weights")?.unwrap_or_else(|| vec![1.0; chosen.len()]);
    let (margins, of_pairs) = (vector(&vec![0.0; chosen.len()])?, vector(&weights)?);
    let (loss, gradients) = gradients(&[vector(&chosen)?, vector(&rejected)?], |r| {
        weighted_mean(&bradley_terry_losses(&r[0], &r[1], &margins, 0.0)?, &of_pairs)
    })?;
    let right: Vec<f64> = chosen.iter().zip(&rejected).map(|(c, r)| agreement(&[*c], &[*r], Ties::Strict).accuracy).collect();
    let total: f64 = weights.iter().sum();
    Ok(json!({
        "loss": loss,
        "d_chosen_rewards": flat(&gradients[0])?,
        "d_rejected_rewards": flat(&gradients[1])?,
        "accuracy": (total > 0.0).then(|| dot(&right, &weights) / total),
    }))
}

fn label_noise_report(case: &Case) -> Result<Answer> {
    let read = |name: &str| -> Result<Vec<Option<u8>>> {
        let labels: Vec<Option<i64>> = case.input(name)?;
        Ok(labels.into_iter().map(|label| label.filter(|label| (1..=2).contains(label)).map(|label| label as u8)).collect())
    };
    let report = curation::label_noise(&read("verified")?, &read("original")?, &read("curated")?);
    Ok(json!({ "before": report.before, "after": report.after, "coverage": report.coverage }))
}
