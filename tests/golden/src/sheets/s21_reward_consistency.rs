//! Sheet 21-reward-consistency.

use anyhow::{Result, ensure};
use plumb_methods::evaluation::contrast::{band_pairs, consistency, fuse};
use plumb_methods::evaluation::preference::Ties;
use plumb_methods::selection::hull::{convex_hull, convex_variants};
use serde_json::json;

use crate::rewards::bradley_terry_loss;
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "21-reward-consistency",
    operations: &[
        ("contrast_consistency", contrast_consistency),
        ("similarity_band_pairs", similarity_band_pairs),
        ("reward_fusion", reward_fusion),
        ("convex_hull_vertices", convex_hull_vertices),
        ("convex_da_select", convex_da_select),
        ("bt_reward_model_loss", bt_reward_model_loss),
    ],
};

fn contrast_consistency(case: &Case) -> Result<Answer> {
    let read = |name: &str| case.input::<Vec<f64>>(name);
    let (r11, r12, r21, r22) = (read("r11")?, read("r12")?, read("r21")?, read("r22")?);
    let items: Vec<_> = (0..r11.len()).map(|i| [[r11[i], r12[i]], [r21[i], r22[i]]]).collect();
    let ties = case.choice("tie", &[("strict", Ties::Strict), ("half", Ties::Half), ("win", Ties::Win)])?;
    let consistency = consistency(&items, ties);
    Ok(json!({
        "response_consistency": consistency.response,
        "response_consistency_first": consistency.response_first,
        "instruction_consistency": consistency.instruction,
        "instruction_consistency_first": consistency.instruction_first,
    }))
}

fn similarity_band_pairs(case: &Case) -> Result<Answer> {
    let similarity: Vec<Vec<f64>> = case.input("similarity")?;
    Ok(json!({ "pairs": band_pairs(&similarity, case.param("low")?, case.param("high")?) }))
}

fn reward_fusion(case: &Case) -> Result<Answer> {
    let (rewards, similarities): (Vec<f64>, Vec<f64>) = (case.input("neighbour_rewards")?, case.input("neighbour_similarities")?);
    let fused = fuse(case.input("own_reward")?, &rewards, &similarities, case.param("threshold")?, case.param("top_k")?);
    Ok(json!({ "neighbours": fused.neighbours, "weights": fused.weights, "reward": fused.reward }))
}

fn convex_hull_vertices(case: &Case) -> Result<Answer> {
    Ok(json!({ "selected": convex_hull(&case.input::<Vec<[f64; 2]>>("points")?) }))
}

fn convex_da_select(case: &Case) -> Result<Answer> {
    let components: usize = case.param_or("components", 2)?;
    ensure!(components == 2, "hulls are of two components, not {components}");
    Ok(json!({ "selected": convex_variants(&case.input::<Vec<Vec<f64>>>("embeddings")?) }))
}

fn bt_reward_model_loss(case: &Case) -> Result<Answer> {
    bradley_terry_loss(case, "d_loss_d")
}
