//! A generative judge of two answers, trained by the verdict it writes to a pair in both orders.
//!
//! Reference: Xu et al. 2025, "A Unified Pairwise Framework for RLHF"; the consistency term is reconstructed, its weight is not theirs.

use candle_core::Tensor;

use super::log_sigmoid;
use super::soft_preference::label_cross_entropy;

/// `½ (CE(m, l) + CE(m', 1 - l)) + w · (σ(m) + σ(m') - 1)²` of each pair, `[P]`; a step's loss is the mean over its pairs.
///
/// m is yes minus no to the question whether the first answer is better; m' the same with the answers swapped. The last term draws the
/// judge towards one verdict in both orders.
///
/// # Shapes
/// - `logits`, `swapped`: `[P, 2]` of yes and no, unnormalized; gradient flows to both.
/// - `first_preferred`: `[P]`, l: 1 where the first answer is better, else 0.
pub fn pairwise_judge(
    logits: &Tensor,
    swapped: &Tensor,
    first_preferred: &Tensor,
    consistency_weight: f64,
) -> candle_core::Result<Tensor> {
    let margin = |logits: &Tensor| (logits.narrow(1, 0, 1)? - logits.narrow(1, 1, 1)?)?.squeeze(1);
    let (first, second) = (margin(logits)?, margin(swapped)?);
    let of_both = label_cross_entropy(&first, first_preferred)? + label_cross_entropy(&second, &(1.0 - first_preferred)?)?;
    let mean = (of_both? / 2.0)?;
    if consistency_weight == 0.0 {
        return Ok(mean);
    }
    let win = |margin: &Tensor| log_sigmoid(margin)?.exp();
    let gap = ((win(&first)? + win(&second)?)? - 1.0)?;
    mean + (gap.sqr()? * consistency_weight)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::mean;
    use crate::testing::{assert_close, assert_finite, check_gradients, matrix, numbers, vector};

    #[test]
    fn losses_match_the_formula_by_hand() {
        // Odds of 3 to 1 for yes in both orders: the judge likes what comes first.
        let yes = matrix([[3.0f64.ln(), 0.0]]);
        let of = |weight| numbers(&pairwise_judge(&yes, &yes, &vector(&[1.0]), weight).unwrap());
        let cross_entropy = -f64::midpoint(0.75f64.ln(), 0.25f64.ln());
        assert_close(&of(0.0), &[cross_entropy]);
        assert_close(&of(2.0), &[cross_entropy + 2.0 * 0.25]);
    }

    #[test]
    fn gradients_agree_with_finite_differences_and_are_opposite_for_yes_and_no() {
        let leaves = [matrix([[0.5, -1.0], [0.2, 0.7]]), matrix([[-0.3, 0.1], [2.0, 1.0]])];
        let gradients = check_gradients(&leaves, 1e-8, |l| mean(&pairwise_judge(&l[0], &l[1], &vector(&[1.0, 0.0]), 0.7)?));
        gradients.concat().chunks(2).for_each(|pair| assert_close(&pair[..1], &[-pair[1]]));
    }

    #[test]
    fn saturated_verdicts_are_finite_and_no_pairs_cost_nothing() {
        let leaves = [matrix([[1e4, -1e4], [-1e4, 1e4]]), matrix([[1e4, -1e4], [0.0, 0.0]])];
        assert_finite(&leaves, |l| mean(&pairwise_judge(&l[0], &l[1], &vector(&[0.0, 1.0]), 1.0)?));
        let none = [matrix::<0, 2>([]), matrix::<0, 2>([])];
        assert_eq!(assert_finite(&none, |l| mean(&pairwise_judge(&l[0], &l[1], &vector(&[]), 1.0)?)), 0.0);
    }
}
