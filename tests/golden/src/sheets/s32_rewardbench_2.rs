//! Sheet 32-rewardbench-2.

use anyhow::Context;
use anyhow::Result;
use plumb_methods::evaluation::ties::{Form, Spread, credit, spread};
use plumb_methods::evaluation::{benchmark, ties};
use plumb_methods::stats::{first_max, mean_opt, pearson};
use serde_json::{Map, Value, json};

use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "32-rewardbench-2",
    operations: &[
        ("best_of_n_accuracy", best_of_n_accuracy),
        ("ties_prompt_stats", ties_prompt_stats),
        ("ties_score", ties_score),
        ("benchmark_average", benchmark_average),
        ("best_of_n_selection", best_of_n_selection),
        ("pearson", pearson_of),
    ],
};

fn best_of_n_accuracy(case: &Case) -> Result<Answer> {
    let credits: Vec<f64> = case.input::<Vec<Vec<f64>>>("scores")?.iter().map(|scores| credit(scores)).collect();
    Ok(json!({ "accuracy": mean_opt(&credits), "credit": credits }))
}

fn spreads(case: &Case) -> Result<Vec<Spread>> {
    let (scores, correct): (Vec<Vec<f64>>, Vec<usize>) = (case.input("scores")?, case.input("num_correct")?);
    Ok(scores.iter().zip(correct).map(|(scores, correct)| spread(scores, correct)).collect())
}

fn ties_prompt_stats(case: &Case) -> Result<Answer> {
    let stats = spreads(case)?.into_iter().map(|Spread { accurate, of_correct, gap }| {
        json!({ "accurate": accurate, "correct_spread": of_correct, "correct_incorrect_gap": gap })
    });
    Ok(json!({ "stats": stats.collect::<Vec<_>>() }))
}

fn ties_score(case: &Case) -> Result<Answer> {
    let ids: Vec<String> = case.input("ids")?;
    let form = |id: &str| match id.split_once(':') {
        Some(("ref", question)) => Some((Form::Reference, question.to_owned())),
        Some(("tied", question)) => Some((Form::Tied, question.to_owned())),
        _ => None,
    };
    let forms = ids.iter().map(|id| form(id).with_context(|| format!("`{id}` has no form"))).collect::<Result<Vec<_>>>()?;
    let prompts = forms.iter().zip(spreads(case)?).map(|((form, question), spread)| (*form, question.as_str(), spread));
    let score = ties::ties_score(prompts);
    Ok(json!({
        "tied_accuracy": score.tied_accuracy,
        "ref_accuracy": score.ref_accuracy,
        "correctness_preferred": score.correctness_preferred,
        "correctness_preferred_hard": score.correctness_preferred_hard,
        "margin_term": score.margin,
        "score": score.total(),
    }))
}

fn benchmark_average(case: &Case) -> Result<Answer> {
    let domains: Map<String, Value> = case.input("domain_scores")?;
    let scores: Vec<Option<f64>> = domains.values().map(Value::as_f64).collect();
    Ok(json!({ "average": benchmark::mean_of_known(&scores) }))
}

fn best_of_n_selection(case: &Case) -> Result<Answer> {
    let (rewards, gold): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (case.input("rewards")?, case.input("gold")?);
    let picks: Vec<Option<usize>> = rewards.iter().map(|rewards| first_max(rewards)).collect();
    let over = |of: &dyn Fn(usize, &[f64]) -> f64| {
        let groups = picks.iter().zip(&gold).filter_map(|(pick, gold)| pick.map(|pick| of(pick, gold)));
        mean_opt(&groups.collect::<Vec<_>>())
    };
    Ok(json!({
        "selected_gold": over(&|pick, gold| gold[pick]),
        "random_gold": over(&|_, gold| plumb_methods::advantage::mean(gold)),
        "oracle_gold": over(&|_, gold| gold.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        "picks": picks,
    }))
}

fn pearson_of(case: &Case) -> Result<Answer> {
    Ok(json!({ "r": pearson(&case.input::<Vec<f64>>("x")?, &case.input::<Vec<f64>>("y")?) }))
}
