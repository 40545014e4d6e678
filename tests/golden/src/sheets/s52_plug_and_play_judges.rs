//! Sheet 52-plug-and-play-judges.

use anyhow::Result;
use plumb_methods::evaluation::benchmark::{mean_of_known, section_score};
use plumb_methods::evaluation::verdicts::{Verdict, debiased};
use plumb_methods::lora::Adapter;
use plumb_methods::loss::sequence::Reduction;
use plumb_methods::stats::{dot, first_max, mean_opt, softmax};
use serde_json::{Map, Value, json};

use crate::likelihood::likelihood;
use crate::tensor::{matrix, rows};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "52-plug-and-play-judges",
    operations: &[
        ("verdict_token_distribution", verdict_token_distribution),
        ("position_debiased_verdict", position_debiased_verdict),
        ("sectioned_accuracy", sectioned_accuracy),
        ("lora_linear", lora_linear),
        ("verdict_sft_loss", verdict_sft_loss),
    ],
};

fn verdict_token_distribution(case: &Case) -> Result<Answer> {
    let probabilities = softmax(&case.input::<Vec<f64>>("verdict_logps")?);
    let expected = dot(&probabilities, &case.param::<Vec<f64>>("values")?);
    Ok(json!({ "expected_score": expected, "argmax": first_max(&probabilities), "probabilities": probabilities }))
}

fn verdict(word: Option<String>) -> Option<Verdict> {
    match word?.as_str() {
        "A" => Some(Verdict::First),
        "B" => Some(Verdict::Second),
        "tie" => Some(Verdict::Tie),
        _ => None,
    }
}

fn position_debiased_verdict(case: &Case) -> Result<Answer> {
    let both = debiased(verdict(case.input_opt("first")?), verdict(case.input_opt("swapped")?));
    let winner = match both.winner {
        Verdict::First => Some(0),
        Verdict::Second => Some(1),
        Verdict::Tie => None,
    };
    Ok(json!({ "score": both.score, "winner": winner, "consistent": both.consistent }))
}

fn sectioned_accuracy(case: &Case) -> Result<Answer> {
    let correct: Map<String, Value> = case.input("correct")?;
    let (counts, sections): (Map<String, Value>, Map<String, Value>) = (case.param("counts")?, case.param("sections")?);
    let mut subsets = Map::new();
    for (name, rights) in correct {
        let rights: Vec<f64> = serde_json::from_value::<Vec<bool>>(rights)?.into_iter().map(|r| f64::from(u8::from(r))).collect();
        if let Some(accuracy) = mean_opt(&rights) {
            subsets.insert(name, accuracy.into());
        }
    }
    let mut scores = Map::new();
    for (section, names) in sections {
        let names: Vec<String> = serde_json::from_value(names)?;
        let known = names.iter().filter_map(|name| Some((subsets.get(name)?.as_f64()?, counts.get(name)?.as_f64()?)));
        if let Some(percent) = section_score(&known.collect::<Vec<_>>()) {
            scores.insert(section, (percent / 100.0).into());
        }
    }
    let overall = mean_of_known(&scores.values().map(Value::as_f64).collect::<Vec<_>>());
    Ok(json!({ "subsets": subsets, "sections": scores, "overall": overall }))
}

fn lora_linear(case: &Case) -> Result<Answer> {
    let read = |name: &str| matrix(&case.input::<Vec<Vec<f64>>>(name)?);
    let (x, weight, a, b) = (read("x")?, read("weight")?, read("lora_a")?, read("lora_b")?);
    let adapter = Adapter { a: &a, b: &b, alpha: case.param("alpha")? };
    Ok(json!({
        "output": rows(&adapter.forward(&x, &weight)?)?,
        "merged_weight": rows(&adapter.merged(&weight)?)?,
        "trainable_fraction": adapter.trainable_share(&weight),
    }))
}

fn verdict_sft_loss(case: &Case) -> Result<Answer> {
    likelihood(case, Reduction::TokenMean, "d_policy_logps")
}
