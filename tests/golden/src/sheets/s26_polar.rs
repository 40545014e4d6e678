//! Sheet 26-polar. The input's text and the removal of thinking belong to plugins.

use anyhow::{Context, Result};
use candle_core::Tensor;
use plumb_methods::loss::ranking::{ScorePenalty, focal_ranking, score_penalty};
use plumb_methods::loss::reward::{RewardStats, bradley_terry};
use plumb_methods::selection::truncation::{Budget, CutSide};
use plumb_methods::stats::fit_power_law;
use serde_json::json;

use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "26-polar",
    operations: &[
        ("polar_pretrain_loss", polar_pretrain_loss),
        ("polar_sft_loss", polar_sft_loss),
        ("ranking_loss_variants", ranking_loss_variants),
        ("polar_truncate", polar_truncate),
        ("loglog_power_law_fit", loglog_power_law_fit),
    ],
};

fn polar_pretrain_loss(case: &Case) -> Result<Answer> {
    ranked(case, "same_policy_rewards", "other_policy_rewards")
}

fn polar_sft_loss(case: &Case) -> Result<Answer> {
    ranked(case, "best_second_rewards", "best_worst_rewards")
}

fn plain(l: &[Tensor]) -> candle_core::Result<Tensor> {
    bradley_terry(&l[0], &l[1], &l[0].zeros_like()?, 0.0)
}

fn ranked(case: &Case, higher: &str, lower: &str) -> Result<Answer> {
    let (higher, lower): (Vec<f64>, Vec<f64>) = (case.input(higher)?, case.input(lower)?);
    let leaves = [vector(&higher)?, vector(&lower)?];
    let (loss, gradients) = gradients(&leaves, |l| plain(l)?.mean_all())?;
    let mut stats = RewardStats::default();
    higher.iter().zip(&lower).for_each(|(higher, lower)| stats.add(*higher, *lower));
    Ok(json!({
        "losses": flat(&plain(&leaves)?)?,
        "loss": loss,
        "accuracy": stats.accurate / stats.pairs.max(1.0),
        "d_loss_d_higher": flat(&gradients[0])?,
        "d_loss_d_lower": flat(&gradients[1])?,
    }))
}

fn ranking_loss_variants(case: &Case) -> Result<Answer> {
    let barrier = ScorePenalty::LogBarrier {
        lower: case.param_or("lower", -5.0)?,
        upper: case.param_or("upper", 5.0)?,
        margin: case.param_or("margin", 1e-3)?,
    };
    let penalty = case.choice("penalty", &[("none", ScorePenalty::None), ("log_barrier", barrier), ("l2", ScorePenalty::L2)])?;
    let (focal, weight) = (case.choice("loss", &[("ranking", false), ("focal", true)])?, case.param_or("penalty_weight", 0.01)?);
    let leaves = [vector(&case.input::<Vec<f64>>("chosen_rewards")?)?, vector(&case.input::<Vec<f64>>("rejected_rewards")?)?];
    let ranking = |l: &[Tensor]| if focal { focal_ranking(&l[0], &l[1]) } else { plain(l) }?.mean_all();
    let penalties = |l: &[Tensor]| score_penalty(&l[0], &l[1], penalty)?.mean_all();
    let (loss, gradients) = gradients(&leaves, |l| ranking(l)? + (penalties(l)? * weight)?)?;
    Ok(json!({
        "loss": loss,
        "ranking_loss": ranking(&leaves)?.to_scalar::<f64>()?,
        "penalty": penalties(&leaves)?.to_scalar::<f64>()?,
        "d_loss_d_chosen_rewards": flat(&gradients[0])?,
        "d_loss_d_rejected_rewards": flat(&gradients[1])?,
    }))
}

fn polar_truncate(case: &Case) -> Result<Answer> {
    let budget = Budget {
        total: case.param_or("max_length", 16_384)?,
        response: case.param_or("max_response_length", 4096)?,
        cut: case.choice("response_cut_side", &[("right", CutSide::Right), ("left", CutSide::Left)])?,
    };
    let kept = budget.fit(case.input("prompt_tokens")?, case.input("reference_tokens")?, case.input("candidate_tokens")?);
    let [prompt, reference, candidate] = [kept.prompt, kept.reference, kept.candidate].map(|range| [range.start, range.end]);
    Ok(json!({ "prompt": prompt, "reference": reference, "candidate": candidate }))
}

fn loglog_power_law_fit(case: &Case) -> Result<Answer> {
    let law = fit_power_law(&case.input::<Vec<f64>>("x")?, &case.input::<Vec<f64>>("y")?).context("no law fits these points")?;
    Ok(json!({ "coefficient": law.coefficient, "exponent": law.exponent, "r_squared": law.r_squared }))
}
