//! Losses over rankings of more than two answers.

use candle_core::{Tensor, bail};

use crate::softmax::log_sum_exp;

/// `-Σ_k ln( e^s_k / Σ_{j ≥ k} e^s_j )` of each row, `[B]`: the negative log-likelihood of the ranking under Plackett and Luce.
/// With two answers it is the Bradley-Terry loss; a single one has loss 0.
///
/// DPO over rankings (Rafailov et al. 2023, appendix A.3) is of `beta (policy - reference)` log-probabilities.
///
/// # Shapes
/// - `scores`: `[B, K]`, best first. Gradient flows to them.
///
/// # Errors
/// Those of candle, and rankings of nothing.
pub fn plackett_luce(scores: &Tensor) -> candle_core::Result<Tensor> {
    let (rankings, answers) = scores.dims2()?;
    if rankings == 0 {
        return scores.sum(1);
    }
    if answers == 0 {
        bail!("a ranking needs an answer");
    }
    let mut total = scores.narrow(1, 0, 1)?.zeros_like()?;
    for k in 0..answers - 1 {
        total = ((total + log_sum_exp(&scores.narrow(1, k, answers - k)?)?)? - scores.narrow(1, k, 1)?)?;
    }
    total.squeeze(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;
    use crate::testing::{assert_close, assert_finite, check_gradients, matrix, numbers};

    #[test]
    fn two_answers_are_bradley_terry_and_one_is_certain() {
        let losses = numbers(&plackett_luce(&matrix([[1.5, 0.25], [-2.0, 3.0]])).unwrap());
        assert_close(&losses, &[-stats::log_sigmoid(1.25), -stats::log_sigmoid(-5.0)]);
        assert_close(&numbers(&plackett_luce(&matrix([[4.0]])).unwrap()), &[0.0]);
        assert!(numbers(&plackett_luce(&matrix::<0, 0>([])).unwrap()).is_empty());
    }

    #[test]
    fn likelihoods_of_all_rankings_add_up_to_one() {
        let s = [0.3, -1.2, 2.0];
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let losses = plackett_luce(&matrix(orders.map(|order| order.map(|i: usize| s[i])))).unwrap();
        assert_close(&[numbers(&losses).iter().map(|loss| (-loss).exp()).sum()], &[1.0]);
    }

    #[test]
    fn gradients_agree_with_finite_differences_and_extremes_are_finite() {
        let graph = |scores: &[Tensor]| plackett_luce(&scores[0])?.sum_all();
        check_gradients(&[matrix([[0.5, -1.0, 0.2, 2.0], [0.0; 4]])], 1e-8, graph);
        assert_finite(&[matrix([[-1e4, 0.0, 1e4]])], graph);
    }
}
