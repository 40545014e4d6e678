//! Sheet 47-fine-grained-rlhf.

use anyhow::Result;
use plumb_methods::returns::{Divisor, Tokens, gae, kl_penalised_scores, whiten};
use plumb_methods::reward::segments::{
    Collision, Placement, ScoreScale, on_tokens, right_shares, subsentence_starts, token_rewards, toxicity_drops,
};
use serde::Deserialize;
use serde_json::{Map, json};

use crate::case::Truth;
use crate::groups::{flatten, regroup};
use crate::rewarded::Rows;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "47-fine-grained-rlhf",
    operations: &[
        ("combine_fine_grained", combine_fine_grained),
        ("toxicity_delta", toxicity_delta),
        ("subsentence_starts", subsentence_starts_of),
        ("segment_ratio", segment_ratio),
        ("fine_grained_advantages", fine_grained_advantages),
    ],
};

/// Added to variances, or to deviations.
const EPSILON: f64 = 1e-8;

/// A component of a case.
#[derive(Deserialize)]
struct Component {
    name: String,
    weight: f64,
    #[serde(flatten)]
    said: Said,
}

/// What a component says of an answer.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Said {
    Verdict { ends: Vec<usize>, ok: Vec<Truth>, positive: f64, negative: f64 },
    Score { score: f64, mean: f64, std: f64, scale: f64, bias: f64 },
}

impl Said {
    fn on_tokens(&self, length: usize, placement: Placement) -> Vec<f64> {
        match self {
            Said::Verdict { ends, ok, positive, negative } => {
                let values: Vec<f64> = ok.iter().map(|ok| if ok.0 { *positive } else { *negative }).collect();
                on_tokens(ends, &values, length, placement)
            }
            &Said::Score { score, mean, std, scale, bias } => {
                let value = ScoreScale { mean, std, scale, bias }.apply(score);
                on_tokens(&[length.saturating_sub(1)], &[value], length, placement)
            }
        }
    }
}

fn combine_fine_grained(case: &Case) -> Result<Answer> {
    let placement = Placement {
        clamp_to_last: case.param_or("clamp_to_last", true)?,
        collision: case.choice("collision", &[("overwrite", Collision::Overwrite), ("sum", Collision::Sum)])?,
    };
    let (length, components): (usize, Vec<Component>) = (case.input("length")?, case.input("components")?);
    let on_tokens: Rows = components.iter().map(|component| component.said.on_tokens(length, placement)).collect();
    let weights: Vec<f64> = components.iter().map(|component| component.weight).collect();
    let rewards = token_rewards(&on_tokens, &weights, length);
    let named: Map<_, _> =
        components.into_iter().zip(on_tokens).map(|(component, tokens)| (component.name, json!(tokens))).collect();
    Ok(json!({ "components": named, "token_rewards": rewards }))
}

fn subsentence_starts_of(case: &Case) -> Result<Answer> {
    let words: Vec<String> = case.input("words")?;
    Ok(json!({ "starts": subsentence_starts(&words, case.param_or("min_words", 5)?) }))
}

fn toxicity_delta(case: &Case) -> Result<Answer> {
    Ok(json!({ "segment_rewards": toxicity_drops(&case.input::<Vec<f64>>("segment_scores")?) }))
}

fn segment_ratio(case: &Case) -> Result<Answer> {
    let (by_text, pooled) = right_shares(&case.truth_rows("ok")?);
    Ok(json!({ "per_text": by_text, "pooled": pooled }))
}

fn fine_grained_advantages(case: &Case) -> Result<Answer> {
    let read = |name: &str| case.input::<Rows>(name);
    let (scores, policy, reference, values) =
        (read("token_rewards")?, read("policy_logps")?, read("ref_logps")?, read("values")?);
    let (mask, beta, gamma, lambda) =
        (case.truth_rows("mask")?, case.param("kl_coef")?, case.param("gamma")?, case.param("lam")?);
    let divisor =
        case.choice("whiten_divisor", &[("std", Divisor::Deviation(EPSILON)), ("sqrt_std", Divisor::RootOfDeviation(EPSILON))])?;
    let seen = flatten(&mask);
    let penalised: Rows = (0..scores.len())
        .map(|i| {
            let tokens = Tokens { policy: &policy[i], reference: &reference[i], mask: &mask[i] };
            kl_penalised_scores(&scores[i], tokens, beta)
        })
        .collect();
    let used = if case.param_or("whiten_rewards", true)? {
        regroup(&whiten(&flatten(&penalised), &seen, false, divisor, 0), &penalised)
    } else {
        penalised.clone()
    };
    let (advantages, returns): (Rows, Rows) = (0..scores.len())
        .map(|i| {
            let gae = gae(&used[i], &values[i], &mask[i], gamma, lambda);
            (gae.advantages, gae.returns)
        })
        .unzip();
    let whitened = regroup(&whiten(&flatten(&advantages), &seen, true, divisor, 0), &advantages);
    Ok(json!({ "penalised_rewards": penalised, "advantages": whitened, "returns": returns }))
}
