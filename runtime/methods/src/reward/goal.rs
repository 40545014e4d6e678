//! Values of states by how near they are to those that good answers end in.
//!
//! Reference: Nath et al. 2024, "Learning Goal-Conditioned Representations for Language Reward Models".

use crate::advantage::mean;
use crate::stats::cosine;

/// Mean of states, by entry: a goal of the last states of good answers. Empty of none.
pub fn mean_state<S: AsRef<[f64]>>(states: &[S]) -> Vec<f64> {
    let width = states.first().map_or(0, |state| state.as_ref().len());
    (0..width).map(|i| mean(&states.iter().map(|state| state.as_ref()[i]).collect::<Vec<_>>())).collect()
}

/// `cos(h_t, goal)` of each token's state: its Q-value.
pub fn goal_values<S: AsRef<[f64]>>(states: &[S], goal: &[f64]) -> Vec<f64> {
    states.iter().map(|state| cosine(state.as_ref(), goal)).collect()
}

/// `score + weight · cos(mean_t h_t, goal)` of a beam: decoding that is steered to a goal.
pub fn guided_score<S: AsRef<[f64]>>(beam_score: f64, states: &[S], goal: &[f64], weight: f64) -> f64 {
    beam_score + weight * cosine(&mean_state(states), goal)
}

/// Indices from the greatest score to the least, lower indices first on ties.
pub fn descending(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| crate::stats::order(scores[b], scores[a]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn values_do_not_depend_on_the_size_of_states() {
        let goal = mean_state(&[[1.0, 0.0], [1.0, 2.0]]);
        assert_close(&goal, &[1.0, 1.0]);
        let half = 0.5f64.sqrt();
        assert_close(&goal_values(&[[1e6, 0.0], [-1e-3, -1e-3], [0.0, 0.0]], &goal), &[half, -1.0, 0.0]);
    }

    #[test]
    fn beams_without_states_keep_their_score() {
        assert_eq!(guided_score::<Vec<f64>>(-1.5, &[], &[1.0], 3.0), -1.5);
        assert_eq!(guided_score(-1.5, &[[2.0], [4.0]], &[1.0], 3.0), 1.5);
        assert!(mean_state::<Vec<f64>>(&[]).is_empty());
    }

    #[test]
    fn order_is_descending_and_stable() {
        assert_eq!(descending(&[1.0, 3.0, 1.0, 3.0]), [1, 3, 0, 2]);
    }
}
