//! Sheet 10-seq2seq-reward.

use anyhow::Result;
use plumb_methods::loss::sequence::{Reduction, sequence_mapping};
use plumb_methods::returns::{Tokens, discounted, kl_penalised_scores};
use plumb_methods::reward::feedback::{Alignment, TokenScores, kept_tokens};
use plumb_methods::stats::fit_line;
use serde_json::json;

use crate::tensor::{gradients, mask_tensor, matrix, rows};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "10-seq2seq-reward",
    operations: &[
        ("sequence_mle_loss", sequence_mle_loss),
        ("token_feedback", token_feedback),
        ("token_rewards_with_kl", token_rewards_with_kl),
        ("length_reward_correlation", length_reward_correlation),
    ],
};

fn sequence_mle_loss(case: &Case) -> Result<Answer> {
    let of = |name: &str| matrix(&case.input::<Vec<Vec<f64>>>(name)?);
    let (correction_mask, identity_mask) =
        (mask_tensor(&case.truth_rows("correction_mask")?)?, mask_tensor(&case.truth_rows("identity_mask")?)?);
    let reduction =
        case.choice("reduction", &[("token_mean", Reduction::TokenMean), ("sequence_mean", Reduction::SequenceMean)])?;
    let identity_weight = case.param_or("identity_weight", 1.0)?;
    let leaves = [of("correction_policy_logps")?, of("identity_policy_logps")?];
    let parts = |l: &[candle_core::Tensor]| {
        sequence_mapping((&l[0], &correction_mask), (&l[1], &identity_mask), identity_weight, reduction)
    };
    let (loss, gradients) = gradients(&leaves, |l| Ok(parts(l)?.loss))?;
    let parts = parts(&leaves)?;
    Ok(json!({
        "loss": loss,
        "correction_loss": parts.correction.to_scalar::<f64>()?,
        "identity_loss": parts.identity.to_scalar::<f64>()?,
        "grad_correction_policy_logps": rows(&gradients[0])?,
        "grad_identity_policy_logps": rows(&gradients[1])?,
    }))
}

fn token_feedback(case: &Case) -> Result<Answer> {
    let alignment =
        case.choice("alignment", &[("lcs", Alignment::Lcs), ("position", Alignment::Position), ("prefix", Alignment::Prefix)])?;
    let scores = TokenScores {
        positive: case.param_or("positive", 1.0)?,
        negative: case.param_or("negative", 1.0)?,
        by_length: case.choice("scale", &[("none", false), ("length", true)])?,
    };
    let (responses, rewrites): (Vec<Vec<u32>>, Vec<Vec<u32>>) = (case.input("response_tokens")?, case.input("corrected_tokens")?);
    let kept: Vec<Vec<bool>> =
        responses.iter().zip(&rewrites).map(|(response, rewrite)| kept_tokens(response, rewrite, alignment)).collect();
    let rewards: Vec<Vec<f64>> = kept.iter().map(|kept| scores.rewards(kept)).collect();
    let sums: Vec<f64> = rewards.iter().map(|rewards| rewards.iter().sum()).collect();
    Ok(json!({ "kept": kept, "token_rewards": rewards, "sequence_reward": sums }))
}

fn token_rewards_with_kl(case: &Case) -> Result<Answer> {
    let of = |name: &str| case.input::<Vec<Vec<f64>>>(name);
    let (scores, policy, reference) = (of("token_scores")?, of("policy_logps")?, of("ref_logps")?);
    let (mask, beta, gamma) = (case.truth_rows("mask")?, case.param("kl_coefficient")?, case.param_or("gamma", 1.0)?);
    let rewards =
        |i: usize| kl_penalised_scores(&scores[i], Tokens { policy: &policy[i], reference: &reference[i], mask: &mask[i] }, beta);
    let rewards: Vec<Vec<f64>> = (0..mask.len()).map(rewards).collect();
    let returns: Vec<Vec<f64>> = rewards.iter().zip(&mask).map(|(rewards, mask)| discounted(rewards, mask, gamma)).collect();
    Ok(json!({ "token_rewards": rewards, "returns": returns }))
}

fn length_reward_correlation(case: &Case) -> Result<Answer> {
    let line = fit_line(&case.input::<Vec<f64>>("lengths")?, &case.input::<Vec<f64>>("rewards")?);
    Ok(json!({ "pearson": line.and_then(|line| line.correlation), "slope": line.map(|line| line.slope) }))
}
