//! The family of direct alignment losses `E[g(x)]` of the scaled difference of log-ratios, `x = beta h`, with a margin by length.
//! Rafailov et al. 2024, "Scaling Laws for Reward Model Overoptimization in Direct Alignment Algorithms".

use candle_core::Tensor;
use plumb_core::recipe::{Dpo, DpoLoss};

use super::dpo::{PairLogps, dpo};

/// The convex g.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Convex {
    /// -ln σ(x): DPO.
    #[default]
    Logistic,
    /// max(0, 1 - x), without gradient from x = 1 on: SLiC.
    Hinge,
    /// (x - 1)²: IPO in the unified family (Tang et al. 2024, "Generalized Preference Optimization").
    Squared,
    /// (h - 1 / (2 beta))²: IPO as it was published (Azar et al. 2023). Its target is half of [`Convex::Squared`]'s and its scale differs
    /// by beta², so that the two need different betas.
    Ipo,
}

/// Loss of each pair, `[P]`, with x raised by `length_alpha (|chosen| - |rejected|)`: above 0, a longer chosen answer counts as margin
/// that the policy need not have.
///
/// # Shapes
/// - `policy`, `reference`: `[P]` each, sums over tokens, nats; gradient flows to the policy's.
/// - `lengths`: `[P]` each, tokens of the answers.
pub fn daa(
    policy: &PairLogps,
    reference: &PairLogps,
    lengths: &PairLogps,
    g: Convex,
    beta: f64,
    length_alpha: f64,
) -> candle_core::Result<Tensor> {
    // A constant in the log-ratios moves h by alpha / beta, and x by alpha, whatever g is.
    let longer = |policy: &Tensor, lengths: &Tensor| policy + (lengths * (length_alpha / beta))?;
    let policy =
        PairLogps { chosen: longer(&policy.chosen, &lengths.chosen)?, rejected: longer(&policy.rejected, &lengths.rejected)? };
    let loss = |loss_type| dpo(&policy, Some(reference), &Dpo { loss_type, beta, ..Dpo::default() });
    match g {
        Convex::Logistic => loss(DpoLoss::Sigmoid),
        Convex::Hinge => loss(DpoLoss::Hinge),
        Convex::Ipo => loss(DpoLoss::Ipo),
        Convex::Squared => {
            let ratio = |policy: &Tensor, reference: &Tensor| policy - reference;
            let h = (ratio(&policy.chosen, &reference.chosen)? - ratio(&policy.rejected, &reference.rejected)?)?;
            ((h * beta)? - 1.0)?.sqr()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::log_sigmoid;
    use crate::testing::{assert_close, assert_finite, check_gradients, numbers, vector};

    const ALL: [Convex; 4] = [Convex::Logistic, Convex::Hinge, Convex::Squared, Convex::Ipo];

    fn losses(leaves: &[Tensor], g: Convex) -> candle_core::Result<Tensor> {
        let pair = |chosen: &[f64], rejected: &[f64]| PairLogps { chosen: vector(chosen), rejected: vector(rejected) };
        let policy = PairLogps { chosen: leaves[0].clone(), rejected: leaves[1].clone() };
        daa(&policy, &pair(&[-3.0, -2.0], &[-4.0, -1.0]), &pair(&[7.0, 2.0], &[4.0, 9.0]), g, 0.2, 0.05)
    }

    #[test]
    fn each_loss_matches_its_formula_by_hand() {
        // h = 1 - 2 = -1 and 0.5 + 3 = 3.5; 3 tokens more and 7 less.
        let leaves = [vector(&[-2.0, -1.5]), vector(&[-2.0, -4.0])];
        let x: [f64; 2] = [-0.2 + 0.15, 0.2 * 3.5 - 0.35];
        for g in ALL {
            let want = x.map(|x| match g {
                Convex::Logistic => -log_sigmoid(x),
                Convex::Hinge => (1.0 - x).max(0.0),
                Convex::Squared => (x - 1.0).powi(2),
                Convex::Ipo => (x / 0.2 - 2.5).powi(2),
            });
            assert_close(&numbers(&losses(&leaves, g).unwrap()), &want);
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences_and_extremes_are_finite() {
        for g in ALL {
            let graph = |leaves: &[Tensor]| losses(leaves, g)?.mean_all();
            check_gradients(&[vector(&[-2.0, -1.5]), vector(&[-2.0, -4.0])], 1e-8, graph);
            assert_finite(&[vector(&[-1e4, 0.0]), vector(&[0.0, -1e4])], graph);
        }
    }

    #[test]
    fn pair_at_the_hinge_has_no_gradient() {
        let pair = |chosen: f64, rejected: f64| PairLogps { chosen: vector(&[chosen]), rejected: vector(&[rejected]) };
        let gradients = crate::testing::gradients(&[vector(&[2.0])], |leaves| {
            let policy = PairLogps { chosen: leaves[0].clone(), rejected: vector(&[0.0]) };
            daa(&policy, &pair(0.0, 0.0), &pair(1.0, 1.0), Convex::Hinge, 0.5, 0.0)?.sum_all()
        });
        assert_eq!(gradients.unwrap(), (0.0, vec![vec![0.0]]));
    }
}
