//! Sheet 23-think-rm.

use anyhow::{Context, Result};
use plumb_methods::evaluation::verdicts::{Verdict, Votes};
use plumb_methods::preference_advantage::{self, Judgement};
use plumb_methods::returns::{Divisor, whiten};
use plumb_methods::selection::ranked::best;
use serde_json::{Value, json};

use super::s25_rm_r1::grpo_loss;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "23-think-rm",
    operations: &[
        ("pairwise_preference_advantage", pairwise_preference_advantage),
        ("pairwise_from_pointwise_advantage", pairwise_from_pointwise_advantage),
        ("warmup_trace_select", warmup_trace_select),
        ("vertical_vote", vertical_vote),
        ("grpo_loss", grpo_loss),
    ],
};

/// A verdict by its letter; None where it cannot be read.
fn verdict(letter: Option<&str>) -> Option<Verdict> {
    match letter {
        Some("A") => Some(Verdict::First),
        Some("B") => Some(Verdict::Second),
        _ => None,
    }
}

fn pairwise_preference_advantage(case: &Case) -> Result<Answer> {
    let pairs: Vec<[usize; 2]> = case.input("pairs")?;
    let verdicts: Vec<Value> = case.input("verdicts")?;
    let lengths: Option<Vec<usize>> = case.input_opt("trace_lengths")?;
    let binary = case.choice("kind", &[("binary", true), ("multiclass", false)])?;
    let judgement = |i: usize| {
        if !binary {
            return verdicts[i].as_f64().map(Judgement::Strength);
        }
        let trace_length = lengths.as_ref().map_or(1, |lengths| lengths[i]);
        verdict(verdicts[i].as_str()).map(|verdict| Judgement::Binary { verdict, trace_length })
    };
    let judged: Vec<_> = (0..pairs.len()).map(|i| (pairs[i], judgement(i))).collect();
    let differences = preference_advantage::differences(case.input("completions")?, &judged);
    let advantages = preference_advantage::advantages(&differences, case.param_or("epsilon", 1e-6)?);
    Ok(json!({ "differences": differences, "advantages": advantages }))
}

fn vertical_vote(case: &Case) -> Result<Answer> {
    let (verdicts, labels): (Vec<Vec<Option<String>>>, Vec<String>) = (case.input("verdicts")?, case.input("labels")?);
    let samples = case.param_or("samples", usize::MAX)?;
    let of_pair = |(verdicts, label): (&Vec<Option<String>>, &String)| {
        let votes = Votes::count(verdicts.iter().take(samples).map(|letter| verdict(letter.as_deref())));
        let label = verdict(Some(label)).with_context(|| format!("a label is A or B, not `{label}`"))?;
        let winner = votes.readable_winner().map(|winner| match winner {
            Verdict::First => "A",
            Verdict::Second => "B",
            Verdict::Tie => "tie",
        });
        let [strict, flexible] = [0.0, 0.5].map(|unreadable| votes.credit(label, unreadable));
        Ok(json!({ "winner": winner, "strict_credit": strict, "flexible_credit": flexible }))
    };
    Ok(json!({ "results": verdicts.iter().zip(&labels).map(of_pair).collect::<Result<Vec<_>>>()? }))
}

fn pairwise_from_pointwise_advantage(case: &Case) -> Result<Answer> {
    let rewards: Vec<f64> = case.input("rewards")?;
    let divisor = Divisor::Deviation(case.param_or("epsilon", 1e-6)?);
    Ok(json!({ "advantages": whiten(&rewards, &vec![true; rewards.len()], true, divisor, 1) }))
}

fn warmup_trace_select(case: &Case) -> Result<Answer> {
    let sign = case.choice("rule", &[("longest", 1.0), ("shortest", -1.0)])?;
    let lengths: Vec<Vec<f64>> = case.input("lengths")?;
    // A wrong trace has no value, and is never chosen.
    let value = |(right, length): (&bool, &f64)| if *right { sign * length } else { f64::NAN };
    let selected = case
        .truth_rows("correct")?
        .iter()
        .zip(&lengths)
        .map(|(correct, lengths)| best(&correct.iter().zip(lengths).map(value).collect::<Vec<_>>(), 1).first().copied())
        .collect::<Vec<_>>();
    Ok(json!({ "selected": selected }))
}
