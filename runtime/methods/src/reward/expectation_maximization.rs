//! Reward models of hidden groups of annotators, by expectation-maximization over annotators.
//!
//! Reference: Chakraborty et al. 2024, "MaxMin-RLHF", algorithm 1; soft responsibilities are the usual form of EM.

use candle_core::{D, Tensor};

use crate::advantage::mean;
use crate::loss::log_sigmoid;
use crate::stats::{self, first_max, log_sum_exp, softmax};

/// Log-likelihood of each annotator's pairs under each member, `[annotator][member]`: `Σ ln σ(margin)`, 0 without pairs.
///
/// `margins` is `[member][annotator][pair]`, chosen minus rejected; annotators may have different numbers of pairs.
pub fn log_likelihoods(margins: &[Vec<Vec<f64>>]) -> Vec<Vec<f64>> {
    let annotators = margins.first().map_or(0, Vec::len);
    let of = |annotator: usize| {
        let sum = |member: &Vec<Vec<f64>>| member[annotator].iter().map(|margin| stats::log_sigmoid(*margin)).sum();
        margins.iter().map(sum).collect()
    };
    (0..annotators).map(of).collect()
}

/// The member that explains each annotator best, the first one on ties.
pub fn hard_assignment(log_likelihoods: &[Vec<f64>]) -> Vec<usize> {
    log_likelihoods.iter().map(|row| first_max(row).unwrap_or(0)).collect()
}

/// Annotators of each member; one without any must keep its weights.
pub fn cluster_sizes(assignment: &[usize], members: usize) -> Vec<usize> {
    (0..members).map(|member| assignment.iter().filter(|assigned| **assigned == member).count()).collect()
}

/// What a soft E step gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Responsibilities {
    /// `softmax_k(ln w_k + L_hk)`, `[annotator][member]`.
    pub values: Vec<Vec<f64>>,
    /// Mean responsibility of each member: the mixture weights of the next round. As they were, without annotators.
    pub mixture_weights: Vec<f64>,
    /// `Σ_h ln Σ_k w_k exp(L_hk)`, nats: what EM never lowers.
    pub log_evidence: f64,
}

/// Soft E step. A member of mixture weight 0 has no responsibility.
pub fn soft_responsibilities(log_likelihoods: &[Vec<f64>], mixture_weights: &[f64]) -> Responsibilities {
    let joint = |row: &Vec<f64>| row.iter().zip(mixture_weights).map(|(l, w)| w.ln() + l).collect();
    let joint: Vec<Vec<f64>> = log_likelihoods.iter().map(joint).collect();
    let values: Vec<Vec<f64>> = joint.iter().map(|row| softmax(row)).collect();
    let share = |member: usize| mean(&values.iter().map(|row| row[member]).collect::<Vec<_>>());
    let weights = if values.is_empty() { mixture_weights.to_vec() } else { (0..mixture_weights.len()).map(share).collect() };
    let log_evidence = joint.iter().map(|row| log_sum_exp(row)).sum();
    Responsibilities { mixture_weights: weights, values, log_evidence }
}

/// M step: Bradley-Terry loss of each member on all pairs, each weighted by its annotator's responsibility, `[K]`.
///
/// `-Σ_i γ_ki ln σ(m_ki) / Σ_i γ_ki`; a member that is responsible for nothing has loss and gradient 0.
///
/// # Shapes
/// - `margins`: `[K, P]`; gradient flows to them. `responsibilities`: `[K, P]`, without gradient.
pub fn weighted_bradley_terry(margins: &Tensor, responsibilities: &Tensor) -> candle_core::Result<Tensor> {
    let total = responsibilities.sum_keepdim(D::Minus1)?;
    // Where the total is 0 so are all weights, whatever they are divided by.
    let total = (&total + total.eq(0.0)?.to_dtype(total.dtype())?)?;
    (log_sigmoid(margins)? * responsibilities.broadcast_div(&total)?)?.sum(D::Minus1)?.neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, assert_float32_agrees, check_gradients, matrix, numbers};

    #[test]
    fn annotators_without_pairs_go_to_the_first_member() {
        let likelihoods = log_likelihoods(&[vec![vec![], vec![-3.0]], vec![vec![], vec![2.0, 1.0]]]);
        assert_eq!(likelihoods[0], [0.0, 0.0]);
        let assignment = hard_assignment(&likelihoods);
        assert_eq!((assignment.clone(), cluster_sizes(&assignment, 3)), (vec![0, 1], vec![1, 1, 0]));
    }

    #[test]
    fn responsibilities_of_hopeless_likelihoods_and_empty_members_are_finite() {
        let soft = soft_responsibilities(&[vec![-1e5, -1e5 - 1.0], vec![-2.0, 0.0]], &[1.0, 0.0]);
        assert_eq!(soft.values, [[1.0, 0.0], [1.0, 0.0]]);
        assert_close(&[soft.log_evidence], &[-1e5 - 2.0]);
        assert_eq!(soft_responsibilities(&[], &[0.25, 0.75]).mixture_weights, [0.25, 0.75]);
    }

    #[test]
    fn an_em_round_does_not_lower_the_evidence() {
        let likelihoods = [vec![-1.0, -4.0], vec![-3.0, -0.5], vec![-2.0, -2.5]];
        let first = soft_responsibilities(&likelihoods, &[0.5, 0.5]);
        let second = soft_responsibilities(&likelihoods, &first.mixture_weights);
        assert!(second.log_evidence >= first.log_evidence);
    }

    #[test]
    fn gradients_agree_with_finite_differences_and_vanish_without_responsibility() {
        let gamma = matrix([[0.2, 1.0, 0.0], [0.0, 0.0, 0.0]]);
        let margins = [matrix([[0.5, -1.0, 2.0], [0.1, 0.3, -0.2]])];
        let gradients = check_gradients(&margins, 1e-8, |l| weighted_bradley_terry(&l[0], &gamma)?.sum_all());
        assert_eq!(gradients[0][2..], [0.0; 4]);
        assert_eq!(numbers(&weighted_bradley_terry(&margins[0], &gamma).unwrap())[1], 0.0);
    }

    #[test]
    fn float32_agrees() {
        let leaves = [matrix([[0.5, -1.0], [0.1, 0.3]]), matrix([[0.2, 1.0], [0.0, 0.0]])];
        assert_float32_agrees(&leaves, |l| weighted_bradley_terry(&l[0], &l[1])?.sum_all());
    }

    #[test]
    fn extreme_margins_have_finite_losses_and_gradients() {
        let gamma = matrix([[0.5, 0.5]]);
        assert_finite(&[matrix([[-1e4, 1e4]])], |l| weighted_bradley_terry(&l[0], &gamma)?.sum_all());
    }
}
