//! Sheet 43-online-self-preferring.

use anyhow::Result;
use plumb_methods::loss;
use plumb_methods::loss::soft_preference::soft_cross_entropy;
use plumb_methods::pairwise::{Combine, Pairing, preference_probability, rank};
use serde_json::json;

use crate::pairs::Pairs;
use crate::tensor::{flat, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "43-online-self-preferring",
    operations: &[
        ("judge_preference_probability", judge_preference_probability),
        ("ranked_pairing", ranked_pairing),
        ("soft_preference_cross_entropy", soft_preference_cross_entropy),
    ],
};

fn judge_preference_probability(case: &Case) -> Result<Answer> {
    let combinations = [("mean_prob", Combine::MeanProbability), ("single", Combine::Single), ("mean_logit", Combine::MeanLogit)];
    let combine = case.choice("combine", &combinations)?;
    let probability =
        preference_probability(case.input("verdict_logps")?, case.input_opt("verdict_logps_swapped")?, combine, 1.0);
    Ok(json!({ "probability": probability }))
}

fn ranked_pairing(case: &Case) -> Result<Answer> {
    let pairings = [
        ("adjacent", Pairing::Adjacent),
        ("all", Pairing::All),
        ("best_rest", Pairing::BestRest),
        ("best_worst", Pairing::BestWorst),
    ];
    let ranking = rank(&case.input::<Vec<Vec<f64>>>("pairwise_probability")?);
    let pairs = ranking.pairs(case.choice("pairing", &pairings)?, case.param_or("min_strength", 0.0)?);
    let row = |pair: &plumb_methods::pairwise::SoftPair| json!({ "chosen": pair.chosen, "rejected": pair.rejected, "probability": pair.probability });
    Ok(json!({ "pairs": pairs.iter().map(row).collect::<Vec<_>>(), "order": ranking.order, "scores": ranking.scores }))
}

fn soft_preference_cross_entropy(case: &Case) -> Result<Answer> {
    let beta = case.param("beta")?;
    let probabilities = vector(&case.input::<Vec<f64>>("preference_probability")?)?;
    let pairs = Pairs::read(case)?;
    let reference = pairs.reference_logps()?;
    let [chosen, rejected] = pairs.rewards(beta)?;
    let margins: Vec<f64> = chosen.iter().zip(&rejected).map(|(chosen, rejected)| chosen - rejected).collect();
    let losses = soft_cross_entropy(&pairs.policy_logps()?, &reference, &probabilities, beta)?;
    let mut answer = json!({ "per_pair_loss": flat(&losses)?, "margin": margins });
    let loss = pairs
        .differentiate("d", &mut answer, |policy| loss::mean(&soft_cross_entropy(policy, &reference, &probabilities, beta)?))?;
    answer["loss"] = json!(loss);
    Ok(answer)
}
