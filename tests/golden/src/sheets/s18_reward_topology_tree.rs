//! Sheet 18-reward-topology-tree.

use anyhow::Context;
use anyhow::Result;
use plumb_methods::evaluation::verdicts::win_rate as rate;
use plumb_methods::loss;
use plumb_methods::loss::reward::bradley_terry;
use plumb_methods::selection::tree::{Tree, balanced, inference_variance, label_noise_variance};
use plumb_methods::stats::sigmoid;
use serde_json::json;

use crate::tensor::{flat, gradients, vector};
use crate::{Answer, Case, Sheet};

/// The sheet's operations.
pub const SHEET: Sheet = Sheet {
    method: "18-reward-topology-tree",
    operations: &[
        ("tree_preference_pairs", tree_preference_pairs),
        ("annotation_cost", annotation_cost),
        ("balanced_tree_counts", balanced_tree_counts),
        ("bt_preference", bt_preference),
        ("inference_distance", inference_distance),
        ("win_rate", win_rate),
    ],
};

type Parents = Vec<Option<usize>>;

fn tree(parents: &Parents) -> Result<Tree<'_>> {
    Tree::new(parents).context("the parents are not those of a tree")
}

fn tree_preference_pairs(case: &Case) -> Result<Answer> {
    let (parents, segments): (Parents, Vec<String>) = (case.input("parents")?, case.input("segments")?);
    let tree = tree(&parents)?;
    let text = |nodes: &[usize]| nodes.iter().map(|&node| segments[node].as_str()).collect::<String>();
    let leaves = tree.leaves();
    let responses: Vec<String> = leaves.iter().map(|&leaf| text(&tree.path(leaf))).collect();
    let pairs = tree.pairs().into_iter().map(|pair| {
        let shared = tree.shared(pair.a, pair.b);
        json!({
            "a": pair.a,
            "b": pair.b,
            "common_ancestor": pair.ancestor,
            "ancestor_depth": tree.depth(pair.ancestor),
            "prefix": text(&shared),
            "suffix_a": text(&tree.path(pair.a)[shared.len()..]),
            "suffix_b": text(&tree.path(pair.b)[shared.len()..]),
        })
    });
    Ok(json!({ "pairs": pairs.collect::<Vec<_>>(), "leaves": leaves, "responses": responses }))
}

fn annotation_cost(case: &Case) -> Result<Answer> {
    let parents: Parents = case.input("parents")?;
    let cost = tree(&parents)?.annotation_cost(&case.input::<Vec<f64>>("segment_lengths")?, &case.input::<Vec<_>>("pairs")?);
    Ok(json!({ "mean_full_length": cost.full, "mean_without_prefix": cost.without_prefix, "saving": cost.saving }))
}

fn balanced_tree_counts(case: &Case) -> Result<Answer> {
    let (leaves, inner, pairs) = balanced(case.param("branching")?, case.param("depth")?);
    Ok(json!({ "leaves": leaves, "inner_nodes": inner, "pairs_by_ancestor_depth": pairs }))
}

fn bt_preference(case: &Case) -> Result<Answer> {
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = (case.input("chosen_rewards")?, case.input("rejected_rewards")?);
    let beta: f64 = case.param_or("beta", 1.0)?;
    let probabilities: Vec<f64> = chosen.iter().zip(&rejected).map(|(c, r)| sigmoid(beta * (c - r))).collect();
    let margins = vector(&vec![0.0; chosen.len()])?;
    let graph = |r: &[candle_core::Tensor]| loss::mean(&bradley_terry(&(&r[0] * beta)?, &(&r[1] * beta)?, &margins, 0.0)?);
    let (loss, gradients) = gradients(&[vector(&chosen)?, vector(&rejected)?], graph)?;
    Ok(json!({
        "probability_chosen": probabilities,
        "loss": loss,
        "d_loss_d_chosen_rewards": flat(&gradients[0])?,
        "d_loss_d_rejected_rewards": flat(&gradients[1])?,
        "label_noise_variance": label_noise_variance(beta),
    }))
}

fn inference_distance(case: &Case) -> Result<Answer> {
    let (nodes, edges): (usize, Vec<(usize, usize, f64)>) = (case.input("nodes")?, case.input("edges")?);
    let queries: Vec<(usize, usize)> = case.input("queries")?;
    let variances: Vec<_> = queries.iter().map(|&(from, to)| inference_variance(nodes, &edges, from, to)).collect();
    Ok(json!({ "variance": variances }))
}

fn win_rate(case: &Case) -> Result<Answer> {
    let (wins, losses): (Vec<f64>, Vec<f64>) = (case.input("wins")?, case.input("losses")?);
    Ok(json!({ "win_rate": wins.iter().zip(&losses).map(|(wins, losses)| rate(*wins, *losses)).collect::<Vec<_>>() }))
}
