//! Sheet 47-fine-grained-rlhf.

use anyhow::Result;
use plumb_methods::returns::{Divisor, Tokens, gae, kl_penalised_scores, whiten};
use plumb_methods::reward::segments::{right_shares, toxicity_drops};
use serde_json::json;

use crate::groups::{flatten, regroup};
use crate::rewarded::Rows;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "47-fine-grained-rlhf",
    operations: &[
        ("toxicity_delta", toxicity_delta),
        ("segment_ratio", segment_ratio),
        ("fine_grained_advantages", fine_grained_advantages),
    ],
};

/// Added to variances, or to deviations.
const EPSILON: f64 = 1e-8;

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
