//! Sheet 31-salmon.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use plumb_core::recipe::KlEstimator;
use plumb_methods::evaluation::verdicts::Verdict;
use plumb_methods::kl::TokenKl;
use plumb_methods::returns::{Tokens, token_kl, token_penalties};
use plumb_methods::reward::terminal::{self, LengthTerm, Unfinished};
use plumb_methods::selection::principles::{
    self, Say, aggregate, agreed, boosted_weights, draw_without_replacement, relative_scores, score_variance,
};
use serde_json::{Map, Value, json};

use crate::rewarded::Rows;
use crate::rewards::loss_of_choices;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "31-salmon",
    operations: &[
        ("judge_two_orders", judge_two_orders),
        ("principle_variances", principle_variances),
        ("aggregate_principles", aggregate_principles),
        ("pair_bce_loss", pair_bce_loss),
        ("terminal_reward", terminal_reward),
        ("kl_token_penalty", kl_token_penalty),
        ("first_draw_probabilities", first_draw_probabilities),
        ("sample_without_replacement", sample_without_replacement),
    ],
};

fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::First => 1,
        Verdict::Second => 2,
        Verdict::Tie => 0,
    }
}

fn judge_two_orders(case: &Case) -> Result<Answer> {
    let (shown, swapped): (Vec<[f64; 2]>, Vec<[f64; 2]>) = (case.input("order_1_2")?, case.input("order_2_1")?);
    let pairs = shown.into_iter().zip(swapped).map(|(shown, swapped)| {
        let scores = relative_scores(shown, swapped);
        json!({ "relative_scores": scores, "preference": code(agreed(scores)) })
    });
    Ok(json!({ "pairs": pairs.collect::<Vec<Value>>() }))
}

fn principle_variances(case: &Case) -> Result<Answer> {
    let scores: BTreeMap<String, Vec<[f64; 2]>> = case.input("scores")?;
    let variances: Map<String, Value> =
        scores.iter().map(|(name, scores)| (name.clone(), score_variance(scores).into())).collect();
    Ok(json!({ "variances": variances }))
}

fn aggregate_principles(case: &Case) -> Result<Answer> {
    let (scores, variances): (BTreeMap<String, [f64; 2]>, BTreeMap<String, f64>) =
        (case.input("scores")?, case.input("variances")?);
    let (names, negated): (Vec<String>, _) = (case.input("principles")?, case.truths("negated")?);
    let say = |(name, negated): (&String, bool)| {
        let scores = *scores.get(name).with_context(|| format!("`{name}` has no scores"))?;
        let variance = *variances.get(name).with_context(|| format!("`{name}` has no variance"))?;
        Ok(Say { scores, variance, negated })
    };
    let says: Vec<Say> = names.iter().zip(negated).map(say).collect::<Result<_>>()?;
    let got = aggregate(&says);
    Ok(json!({ "signed_scores": got.signed_scores, "dominant": got.dominant, "preference": code(got.preference) }))
}

fn pair_bce_loss(case: &Case) -> Result<Answer> {
    loss_of_choices(case, ["rewards_1", "rewards_2"], "d", 0.0)
}

fn terminal_reward(case: &Case) -> Result<Answer> {
    let penalty = case.param_or("penalty_reward_value", -6.0)?;
    let relative = case.param_or("relative_stop_token_penalty", true)?;
    let unfinished = if relative { Unfinished::Add(penalty) } else { Unfinished::Replace(penalty) };
    let length = LengthTerm {
        coefficient: case.param_or("length_bonus_score", 5.0)?,
        longest: case.param_or("response_len", 1024)?,
        cap: case.param_or("length_bonus_upper_bound", 0.8)?,
    };
    let (scores, stopped): (Vec<f64>, _) = (case.input("rewards_flat")?, case.truths("has_stop_token")?);
    let (tokens, multipliers): (Vec<usize>, Vec<f64>) = (case.input("lengths")?, case.input("length_bonus_multiplier")?);
    let reward = |i: usize| terminal::terminal_reward(scores[i], stopped[i], unfinished, length, tokens[i], multipliers[i]);
    Ok(json!({ "rewards_flat": (0..scores.len()).map(reward).collect::<Vec<_>>() }))
}

/// Names of what stands for a token's KL.
pub(super) const TOKEN_KL: [(&str, TokenKl); 3] =
    [("k1_clamped", TokenKl::PositiveK1), ("k1", TokenKl::Estimate(KlEstimator::K1)), ("k3", TokenKl::Estimate(KlEstimator::K3))];

fn kl_token_penalty(case: &Case) -> Result<Answer> {
    let (policy, reference): (Rows, Rows) = (case.input("policy_logps")?, case.input("ref_logps")?);
    let (mask, beta): (_, f64) = (case.truth_rows("mask")?, case.param_or("kl_coef", 0.01)?);
    let approximator = case.choice("approximator", &TOKEN_KL)?;
    let tokens = |i: usize| Tokens { policy: &policy[i], reference: &reference[i], mask: &mask[i] };
    let (kl, penalties): (Rows, Rows) =
        (0..mask.len()).map(|i| (token_kl(tokens(i), approximator), token_penalties(tokens(i), approximator, beta))).unzip();
    Ok(json!({ "kl": kl, "token_penalty": penalties }))
}

fn first_draw_probabilities(case: &Case) -> Result<Answer> {
    let mut bonus: BTreeMap<String, Vec<String>> = case.param_or("bonus_keywords", BTreeMap::new())?;
    let keywords = case.input_opt::<String>("question_type")?.and_then(|kind| bonus.remove(&kind)).unwrap_or_default();
    let (texts, weights): (Vec<String>, Vec<f64>) = (case.input("principles")?, case.input("weights")?);
    let weights = boosted_weights(&texts, &weights, &keywords, case.param_or("bonus_weight", 128.0)?);
    Ok(json!({ "probabilities": principles::first_draw_probabilities(&weights) }))
}

fn sample_without_replacement(case: &Case) -> Result<Answer> {
    let (weights, uniforms): (Vec<f64>, Vec<f64>) = (case.input("weights")?, case.input("uniforms")?);
    Ok(json!({ "selected": draw_without_replacement(&weights, &uniforms, case.param_or("max_principles", 3)?) }))
}
