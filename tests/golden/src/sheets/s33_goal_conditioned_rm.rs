//! Sheet 33-goal-conditioned-rm.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use plumb_methods::evaluation::vote::{count_votes, wins};
use plumb_methods::loss::contrastive::{States, Strategy, goal_contrastive, state_index};
use plumb_methods::loss::reward::bradley_terry;
use plumb_methods::reward::goal::{descending, goal_values, guided_score, mean_state};
use plumb_methods::selection::prefix::PrefixFilter;
use plumb_methods::stats::auroc;
use serde_json::json;

use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "33-goal-conditioned-rm",
    operations: &[
        ("state_indices", state_indices),
        ("goal_contrastive_loss", goal_contrastive_loss),
        ("reward_model_loss", reward_model_loss),
        ("goal_state", goal_state),
        ("goal_values", goal_values_of),
        ("prefix_filter", prefix_filter),
        ("majority_vote", majority_vote),
        ("auroc", auroc_of),
        ("guided_beam_scores", guided_beam_scores),
    ],
};

type Hidden = Vec<Vec<Vec<f64>>>;

fn state_indices(case: &Case) -> Result<Answer> {
    let (padded, percentile) = (case.param("padded_len")?, case.param_or("percentile", 0.0)?);
    let (tokens, uniforms): (Vec<usize>, Vec<Vec<f64>>) = (case.input("num_actions")?, case.input("uniforms")?);
    let row = |(uniforms, tokens): (&Vec<f64>, &usize)| {
        uniforms.iter().map(|uniform| state_index(*uniform, *tokens, padded, percentile)).collect::<Vec<_>>()
    };
    Ok(json!({ "indices": uniforms.iter().zip(&tokens).map(row).collect::<Vec<_>>() }))
}

fn hidden(case: &Case, name: &str) -> Result<Tensor> {
    let values: Hidden = case.input(name)?;
    let (tokens, width) = values.first().map_or((0, 0), |row| (row.len(), row.first().map_or(0, Vec::len)));
    Ok(Tensor::from_vec(values.concat().concat(), (values.len(), tokens, width), &Device::Cpu)?)
}

fn goal_contrastive_loss(case: &Case) -> Result<Answer> {
    let index = |name: &str| case.input::<Vec<Vec<u32>>>(name);
    let (sources, goals) = (index("source_idx")?, index("goal_idx")?);
    let (negative_sources, negative_goals) = (index("negative_source_idx")?, index("negative_goal_idx")?);
    let positive = States { sources: &sources, goals: &goals };
    let negative = States { sources: &negative_sources, goals: &negative_goals };
    let strategy = case.choice("strategy", &[("cosine", Strategy::Cosine), ("cosine_avg", Strategy::CosineAvg)])?;
    let beta = case.param_or("beta", 0.5)?;
    let leaves = [hidden(case, "chosen_hidden")?, hidden(case, "rejected_hidden")?];
    let parts = |l: &[Tensor]| goal_contrastive(&l[0], &l[1], positive, negative, strategy, beta);
    let (loss, gradients) = gradients(&leaves, |l| Ok(parts(l)?.loss))?;
    let parts = parts(&leaves)?;
    let mut answer = json!({
        "loss": loss,
        "mean_positive_sigmoid": parts.positive.to_scalar::<f64>()?,
        "mean_negative_sigmoid": parts.negative.to_scalar::<f64>()?,
    });
    if case.param_or("gradient", true)? {
        answer["d_chosen_hidden"] = json!(gradients[0].to_vec3::<f64>()?);
        answer["d_rejected_hidden"] = json!(gradients[1].to_vec3::<f64>()?);
    }
    Ok(answer)
}

fn reward_model_loss(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    let margins = case.input_opt("margin")?.unwrap_or_else(|| vec![0.0; chosen.len()]);
    let (margins, contrastive): (Tensor, f64) = (vector(&margins)?, case.input_opt("contrastive_loss")?.unwrap_or(0.0));
    let graph = |l: &[Tensor]| bradley_terry(&l[0], &l[1], &margins, 0.0)?.mean_all();
    let (loss, gradients) = gradients(&[vector(&chosen)?, vector(&rejected)?], graph)?;
    Ok(json!({
        "bt_loss": loss,
        "loss": loss + contrastive,
        "d_chosen_rewards": flat(&gradients[0])?,
        "d_rejected_rewards": flat(&gradients[1])?,
    }))
}

fn goal_state(case: &Case) -> Result<Answer> {
    Ok(json!({ "goal": mean_state(&case.input::<Vec<Vec<f64>>>("last_hidden")?) }))
}

fn goal_values_of(case: &Case) -> Result<Answer> {
    let (hidden, goal): (Hidden, Vec<f64>) = (case.input("hidden")?, case.input("goal")?);
    Ok(json!({ "values": hidden.iter().map(|states| goal_values(states, &goal)).collect::<Vec<_>>() }))
}

fn prefix_filter(case: &Case) -> Result<Answer> {
    let filter = PrefixFilter {
        threshold: case.param_or("threshold", 0.0)?,
        percentile: case.param_or("percentile", 0.0)?,
        burn_in: case.param_or("burn_in", 5)?,
    };
    let kept = filter.filter(&case.input::<Vec<Vec<f64>>>("values")?);
    Ok(json!({
        "keep": kept.keep,
        "cut_at": kept.cut_at,
        "tokens_saved": kept.tokens_saved,
        "tokens_considered": kept.tokens_considered,
        "fallback": kept.fallback,
    }))
}

fn majority_vote(case: &Case) -> Result<Answer> {
    let (answers, correct): (Vec<String>, String) = (case.input("answers")?, case.input("correct_answer")?);
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    let votes = count_votes(&answers, &case.truths("keep")?);
    let (wins, strictly) = wins(&votes, &correct);
    Ok(json!({ "votes": votes, "correct": wins, "strictly_correct": strictly }))
}

fn auroc_of(case: &Case) -> Result<Answer> {
    let (scores, positive): (Vec<f64>, _) = (case.input("scores")?, case.truths("labels")?);
    ensure!(scores.len() == positive.len(), "each score needs a label");
    Ok(json!({ "auroc": auroc(&scores, &positive) }))
}

fn guided_beam_scores(case: &Case) -> Result<Answer> {
    let (beams, hidden, goal): (Vec<f64>, Hidden, Vec<f64>) =
        (case.input("beam_scores")?, case.input("hidden")?, case.input("goal")?);
    let weight = case.param_or("weight", 1.0)?;
    let scores: Vec<f64> = beams.iter().zip(&hidden).map(|(score, states)| guided_score(*score, states, &goal, weight)).collect();
    Ok(json!({ "order": descending(&scores), "scores": scores }))
}
