//! Sheet 24-fact-rlhf.

use anyhow::{Result, bail};
use plumb_methods::evaluation::hallucination::{rating, report};
use plumb_methods::returns::{Divisor, Gae, Place, RewardScale, Tokens, full_width_gae, penalised_final_score};
use plumb_methods::reward::combine::{Rule, combine};
use plumb_methods::reward::terminal::{LengthTerm, Truth, Unfinished, terminal_reward};
use serde_json::json;

use super::s31_salmon::TOKEN_KL;
use crate::rewarded::Rows;
use crate::rewards::loss_of_choices;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "24-fact-rlhf",
    operations: &[
        ("fact_final_reward", fact_final_reward),
        ("symbolic_correct_bonus", symbolic_correct_bonus),
        ("fact_token_rewards", fact_token_rewards),
        ("fact_gae", fact_gae),
        ("fact_rm_loss", fact_rm_loss),
        ("mmhal_score", mmhal_score),
    ],
};

fn fact_final_reward(case: &Case) -> Result<Answer> {
    let penalty = case.param_or("no_stop_penalty", -8.0)?;
    let unfinished =
        if case.param_or("relative_penalty", true)? { Unfinished::Add(penalty) } else { Unfinished::Replace(penalty) };
    let length = LengthTerm {
        coefficient: case.param_or("length_coef", -10.0)?,
        longest: case.param_or("response_len", 896)?,
        cap: f64::INFINITY,
    };
    let (coefficient, bias) = (case.param_or("correct_coef", 2.0)?, case.param_or("bias", 0.0)?);
    let (scores, stopped): (Vec<f64>, _) = (case.input("rm_scores")?, case.truths("has_stop_token")?);
    let (tokens, multipliers): (Vec<usize>, Vec<f64>) = (case.input("lengths")?, case.input("length_multipliers")?);
    let correct: Vec<f64> = case.input("correct_bonus")?;
    let reward = |i: usize| {
        let by_model = terminal_reward(scores[i], stopped[i], unfinished, length, tokens[i], multipliers[i]);
        combine(&[(1.0, by_model), (coefficient, correct[i]), (1.0, bias)], Rule::WeightedSum)
    };
    Ok(json!({ "rewards": (0..scores.len()).map(reward).collect::<Vec<_>>() }))
}

fn truth(kind: &str) -> Result<Truth> {
    Ok(match kind {
        "option_a" => Truth::Option('A'),
        "option_b" => Truth::Option('B'),
        "option_c" => Truth::Option('C'),
        "option_d" => Truth::Option('D'),
        "answer_no" => Truth::No,
        "answer_yes" => Truth::Yes,
        "general" => Truth::General,
        other => bail!("there is no kind `{other}`"),
    })
}

fn symbolic_correct_bonus(case: &Case) -> Result<Answer> {
    let (texts, kinds): (Vec<String>, Vec<String>) = (case.input("texts")?, case.input("kinds")?);
    let bonus: Vec<f64> = texts.iter().zip(&kinds).map(|(text, kind)| Ok(truth(kind)?.bonus(text))).collect::<Result<_>>()?;
    Ok(json!({ "bonus": bonus }))
}

fn fact_token_rewards(case: &Case) -> Result<Answer> {
    let (kl, beta) = (case.choice("kl_estimator", &TOKEN_KL)?, case.param_or("kl_coef", 0.1)?);
    let place = case.choice("terminal", &[("last_token", Place::LastToken), ("last_column", Place::LastColumn)])?;
    let (policy, reference): (Rows, Rows) = (case.input("policy_logps")?, case.input("ref_logps")?);
    let (scores, mask): (Vec<f64>, _) = (case.input("final_rewards")?, case.truth_rows("mask")?);
    let of_row = |i: usize| {
        let tokens = Tokens { policy: &policy[i], reference: &reference[i], mask: &mask[i] };
        penalised_final_score(scores[i], place, tokens, kl, beta)
    };
    Ok(json!({ "token_rewards": (0..scores.len()).map(of_row).collect::<Rows>() }))
}

fn fact_gae(case: &Case) -> Result<Answer> {
    let (rewards, values): (Rows, Rows) = (case.input("token_rewards")?, case.input("values")?);
    let discounts = [case.param_or("gamma", 1.0)?, case.param_or("lambda", 1.0)?];
    let whitened = case.param_or("whiten_rewards", false)?;
    let scale = if whitened { RewardScale::Whitened } else { RewardScale::Times(case.param_or("reward_scale", 10.0)?) };
    let divisor = Divisor::DeviationPlus(case.param_or("epsilon", 1e-8)?);
    let rows = full_width_gae(&rewards, &values, discounts, scale, divisor, case.param_or("ddof", 0)?);
    let (advantages, returns): (Rows, Rows) = rows.into_iter().map(|Gae { advantages, returns }| (advantages, returns)).unzip();
    Ok(json!({ "advantages": advantages, "returns": returns }))
}

fn fact_rm_loss(case: &Case) -> Result<Answer> {
    loss_of_choices(case, ["rewards_0", "rewards_1"], "d_loss_d", case.param_or("mean_penalty", 1e-3)?)
}

fn mmhal_score(case: &Case) -> Result<Answer> {
    let ratings: Vec<u8> = case.input::<Vec<String>>("texts")?.iter().map(|text| rating(text)).collect();
    let got = report(&ratings, case.param_or("question_types", 8)?);
    Ok(json!({
        "scores": ratings,
        "mean_score": got.mean,
        "hallucination_rate": got.hallucination_rate,
        "mean_by_type": got.mean_by_type,
    }))
}
