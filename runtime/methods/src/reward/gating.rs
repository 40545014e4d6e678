//! Several named ratings made one score by weights that the prompt chooses, after the length's part was taken out of them.
//!
//! Reference: Wang et al. 2024, "Interpretable Preferences via Multi-Objective Reward Modeling and Mixture-of-Experts" (ArmoRM).

use candle_core::{D, Tensor};

use crate::loss::log_sigmoid;
use crate::softmax::softmax;
use crate::stats::spearman;

/// Grid on which the released code searches penalties.
pub const PENALTY_GRID: [f64; 24] = [
    0.0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85,
    0.9, 0.95,
];

/// How much of the verbosity rating to take out of each objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Penalties {
    /// By objective: the first of the grid that suffices, 1 where none does. 1 for verbosity itself, as in the released code, so that
    /// it is out of the score.
    pub values: Vec<f64>,
    /// Objectives that no penalty of the grid frees from verbosity.
    pub unresolved: Vec<usize>,
}

/// The first penalty c of the grid for which Spearman's correlation of `r_k - c · r_verb` with `r_verb` is at most the threshold.
///
/// The correlation has its sign: an objective that falls with verbosity needs nothing. Without variance it is 0.
/// `rewards` is `[sample][objective]`.
pub fn verbosity_penalties(rewards: &[Vec<f64>], verbosity: usize, threshold: f64, grid: &[f64]) -> Penalties {
    let column = |k: usize| rewards.iter().map(|row| row[k]).collect::<Vec<f64>>();
    let lengths = column(verbosity);
    let search = |k: usize| {
        let objective = column(k);
        let frees = |c: &&f64| {
            let adjusted: Vec<f64> = objective.iter().zip(&lengths).map(|(r, v)| r - **c * v).collect();
            spearman(&adjusted, &lengths).unwrap_or(0.0) <= threshold
        };
        if k == verbosity { Some(1.0) } else { grid.iter().find(frees).copied() }
    };
    let found: Vec<Option<f64>> = (0..rewards.first().map_or(0, Vec::len)).map(search).collect();
    let unresolved = (0..found.len()).filter(|&k| found[k].is_none()).collect();
    Penalties { values: found.into_iter().map(|c| c.unwrap_or(1.0)).collect(), unresolved }
}

/// `r'_k = r_k - c_k · r_verb` of ratings `[N, K]` and penalties `[K]`.
pub fn adjust(rewards: &Tensor, penalties: &Tensor, verbosity: usize) -> candle_core::Result<Tensor> {
    rewards - rewards.narrow(1, verbosity, 1)?.broadcast_mul(penalties)?
}

/// `scale · softmax(logits / temperature)`, `[N, K]`; `scale` is a `[]` tensor, as it is learned too.
pub fn gate(logits: &Tensor, temperature: f64, scale: &Tensor) -> candle_core::Result<Tensor> {
    softmax(&(logits / temperature)?)?.broadcast_mul(scale)
}

/// `Σ_k gate_k · r_k` of each row, `[N]`.
pub fn score(gating: &Tensor, rewards: &Tensor) -> candle_core::Result<Tensor> {
    (gating * rewards)?.sum(D::Minus1)
}

/// Weights of the raw ratings in the score, `[N, K]`: the gating, less at verbosity what the other objectives take out.
pub fn coefficients(gating: &Tensor, penalties: &Tensor, verbosity: usize) -> candle_core::Result<Tensor> {
    let taken = gating.broadcast_mul(penalties)?.sum_keepdim(D::Minus1)?;
    let at = (0..gating.dim(1)?).map(|k| if k == verbosity { 1.0 } else { 0.0 });
    let at = Tensor::from_iter(at.collect::<Vec<f64>>(), gating.device())?.to_dtype(gating.dtype())?;
    gating - taken.broadcast_mul(&at)?
}

/// The objectives whose coefficients are greatest in size, at most `count`, lower indices first on ties.
pub fn top_objectives(coefficients: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..coefficients.len()).collect();
    order.sort_by(|&a, &b| coefficients[b].abs().total_cmp(&coefficients[a].abs()));
    order.truncate(count);
    order
}

/// `-ln σ(score(chosen) - score(rejected))` of each pair, and the margin, both `[P]`. The pair shares its prompt and so its gating.
///
/// # Shapes
/// - all `[P, K]`; gradient flows through the gating, and to the ratings where they have one.
pub fn preference_loss(gating: &Tensor, chosen: &Tensor, rejected: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
    let margin = score(gating, &(chosen - rejected)?)?;
    Ok((log_sigmoid(&margin)?.neg()?, margin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, assert_float32_agrees, check_gradients, matrix, numbers, vector};

    fn scalar(value: f64) -> Tensor {
        Tensor::new(value, &candle_core::Device::Cpu).unwrap()
    }

    #[test]
    fn coefficients_on_raw_ratings_give_the_score_of_adjusted_ones() {
        let (rewards, penalties) = (matrix([[0.5, -1.0, 2.0], [0.1, 0.3, -0.2]]), vector(&[0.3, 1.0, 0.5]));
        let gating = gate(&matrix([[0.0, 1.0, -2.0], [0.4, 0.4, 0.2]]), 2.0, &scalar(0.7)).unwrap();
        let adjusted = adjust(&rewards, &penalties, 1).unwrap();
        assert_eq!(numbers(&adjusted)[1], 0.0, "verbosity is out of the score");
        let raw = score(&coefficients(&gating, &penalties, 1).unwrap(), &rewards).unwrap();
        assert_close(&numbers(&raw), &numbers(&score(&gating, &adjusted).unwrap()));
    }

    #[test]
    fn gradients_agree_with_finite_differences_for_logits_and_scale() {
        let (chosen, rejected) = (matrix([[0.5, -1.0, 2.0], [0.1, 0.3, -0.2]]), matrix([[0.0, 1.0, -0.5], [0.4, 0.4, 0.2]]));
        let leaves = [matrix([[0.3, 1.0, -1.0], [0.0, 0.0, 2.0]]), scalar(1.3)];
        check_gradients(&leaves, 1e-8, |l| preference_loss(&gate(&l[0], 10.0, &l[1])?, &chosen, &rejected)?.0.mean_all());
    }

    #[test]
    fn float32_agrees() {
        let leaves = [matrix([[0.3, 1.0, -1.0], [0.0, 0.0, 2.0]]), scalar(1.3), vector(&[0.3, 1.0, 0.5])];
        assert_float32_agrees(&leaves, |l| coefficients(&gate(&l[0], 10.0, &l[1])?, &l[2], 1)?.sqr()?.sum_all());
        assert_float32_agrees(&leaves, |l| score(&l[0], &adjust(&l[0], &l[2], 1)?)?.sum_all());
    }

    #[test]
    fn extreme_logits_and_ratings_have_finite_losses_and_gradients() {
        let (chosen, rejected) = (matrix([[1e5, -1e5]]), matrix([[-1e5, 1e5]]));
        let leaves = [matrix([[1e5, -1e5]]), scalar(1.0)];
        for (chosen, rejected) in [(&chosen, &rejected), (&rejected, &chosen)] {
            assert_finite(&leaves, |l| preference_loss(&gate(&l[0], 1.0, &l[1])?, chosen, rejected)?.0.mean_all());
        }
    }

    #[test]
    fn penalty_is_the_least_that_frees_an_objective_and_one_where_none_does() {
        // The second falls with verbosity, the third is verbosity doubled: r - c·v still rises with v for every c of the grid.
        let rewards: Vec<Vec<f64>> = [1.0, 2.0, 3.0].iter().map(|v| vec![*v, -v, 2.0 * v, 0.3 * v, 5.0]).collect();
        let got = verbosity_penalties(&rewards, 0, 0.0, &[0.0, 0.2, 0.4, 0.9]);
        assert_eq!(got, Penalties { values: vec![1.0, 0.0, 1.0, 0.4, 0.0], unresolved: vec![2] });
    }

    #[test]
    fn top_objectives_go_by_size_and_then_by_index() {
        assert_eq!(top_objectives(&[0.1, -0.5, 0.5, 0.2], 3), [1, 2, 3]);
        assert_eq!(top_objectives(&[0.1, -0.5], 3), [1, 0]);
    }
}
