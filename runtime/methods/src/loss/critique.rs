//! The mixed loss of a reward model that writes a critique before it scores (Zhang et al. 2025, "MM-RLHF").

use candle_core::Tensor;

use super::mean;
use super::reward::bradley_terry;

/// Weights of the parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CritiqueWeights {
    /// Of the scores' losses, ties included.
    pub reward: f64,
    /// Of tied pairs within them.
    pub tie: f64,
    /// Of centring.
    pub center: f64,
    /// Of the critiques' likelihood.
    pub critique: f64,
}

/// Parts of the loss, `[]` each; a part without members is 0.
#[derive(Clone, Debug)]
pub struct CritiqueLoss {
    /// `reward (bt + tie · ties) + center · centring + critique · critiques`.
    pub loss: Tensor,
    /// Bradley-Terry loss, mean over pairs that are not tied.
    pub bradley_terry: Tensor,
    /// Squared difference of scores, mean over tied pairs.
    pub tie: Tensor,
    /// Squared sum of scores, mean over all pairs.
    pub center: Tensor,
    /// Negative log-likelihood of both critiques, 0 where there is none, mean over all pairs.
    pub critique: Tensor,
}

/// Loss of pairs of scored answers.
///
/// # Shapes
/// - `chosen`, `rejected`: `[P]` scores; `critique_nll`: `[P]`, of both answers' critiques, nats. Gradient flows to all of them.
/// - `ties`, `without_critique`: `[P]` of 0 and 1, of the same dtype.
pub fn critique_loss(
    chosen: &Tensor,
    rejected: &Tensor,
    ties: &Tensor,
    critique_nll: &Tensor,
    without_critique: &Tensor,
    weights: CritiqueWeights,
) -> candle_core::Result<CritiqueLoss> {
    let mean_of = |values: &Tensor, members: &Tensor| (values * members)?.sum_all()? / members.sum_all()?.maximum(1.0)?;
    let ranked = bradley_terry(chosen, rejected, &chosen.zeros_like()?, 0.0)?;
    let bradley_terry = mean_of(&ranked, &(1.0 - ties)?)?;
    let tie = mean_of(&(chosen - rejected)?.sqr()?, ties)?;
    let center = mean(&(chosen + rejected)?.sqr()?)?;
    let critique = mean(&(critique_nll * (1.0 - without_critique)?)?)?;
    let scores = ((&bradley_terry + (&tie * weights.tie)?)? * weights.reward)?;
    let rest = ((&center * weights.center)? + (&critique * weights.critique)?)?;
    Ok(CritiqueLoss { loss: (scores + rest)?, bradley_terry, tie, center, critique })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_finite, check_gradients, gradients, numbers, vector};

    const WEIGHTS: CritiqueWeights = CritiqueWeights { reward: 0.8, tie: 0.1, center: 0.01, critique: 1.0 };

    fn loss(leaves: &[Tensor], ties: &[f64]) -> candle_core::Result<CritiqueLoss> {
        let nll = vector(&vec![2.0; ties.len()]);
        let without: Vec<f64> = (0..ties.len()).map(|i| f64::from(u8::from(i == 0))).collect();
        critique_loss(&leaves[0], &leaves[1], &vector(ties), &nll, &vector(&without), WEIGHTS)
    }

    #[test]
    fn gradients_agree_with_finite_differences_and_ties_leave_the_ranking_alone() {
        let leaves = [vector(&[0.5, -1.0, 2.0]), vector(&[1.0, 0.5, -0.2])];
        check_gradients(&leaves, 1e-8, |leaves| Ok(loss(leaves, &[0.0, 1.0, 0.0])?.loss));
        let (_, ranking) = gradients(&leaves, |leaves| Ok(loss(leaves, &[0.0, 1.0, 0.0])?.bradley_terry)).unwrap();
        assert!(ranking[0][1] == 0.0 && ranking[0][0] < 0.0);
    }

    #[test]
    fn parts_without_members_are_zero() {
        let leaves = [vector(&[0.5, -1.0]), vector(&[1.0, 0.5])];
        assert_eq!(numbers(&loss(&leaves, &[0.0, 0.0]).unwrap().tie), [0.0]);
        assert_eq!(numbers(&loss(&leaves, &[1.0, 1.0]).unwrap().bradley_terry), [0.0]);
        assert_eq!(numbers(&loss(&leaves, &[1.0, 1.0]).unwrap().critique), [1.0], "one of two pairs has critiques");
        assert_eq!(assert_finite(&[vector(&[]), vector(&[])], |leaves| Ok(loss(leaves, &[])?.loss)), 0.0);
        assert_finite(&[vector(&[1e4]), vector(&[-1e4])], |leaves| Ok(loss(leaves, &[0.0])?.loss));
    }
}
