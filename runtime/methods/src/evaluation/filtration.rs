//! How well a reward model predicts true scores on what a filter lets through: how a filter is chosen before training.
//!
//! Only compare values of one grouping: over groups they are far higher than over single samples. A filter that widens the spread of the rewards raises them too.
//!
//! Reference: Zhang et al. 2024, "Policy Filtration in RLHF to Fine-Tune LLM for Code Generation" (PF-PPO).

use crate::advantage::mean;
use crate::selection::filtration::{Filter, Ranks};
use crate::stats::{order, r_squared, weighted_r_squared};

/// Groups of samples of similar rewards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grouped {
    /// Mean reward of each group, ascending.
    pub rewards: Vec<f64>,
    /// Mean true score of each.
    pub scores: Vec<f64>,
    /// Share of the variance of the mean scores that a line in the mean rewards explains; None where either has no spread.
    pub r_squared: Option<f64>,
}

/// Samples in ascending order of rewards, ties in order of their indices, cut into groups of equal numbers, the larger ones first. There are no more groups
/// than samples.
///
/// # Panics
/// When there are not as many scores as rewards.
pub fn grouped_r_squared(rewards: &[f64], scores: &[f64], groups: usize) -> Grouped {
    assert_eq!(rewards.len(), scores.len(), "each sample needs a reward and a score");
    let mut ascending: Vec<usize> = (0..rewards.len()).collect();
    ascending.sort_by(|&a, &b| order(rewards[a], rewards[b]));
    let groups = groups.min(rewards.len());
    let mut grouped = Grouped::default();
    let mut rest = &ascending[..];
    for left in (1..=groups).rev() {
        let (group, others) = rest.split_at(rest.len().div_ceil(left));
        rest = others;
        let mean_of = |values: &[f64]| mean(&group.iter().map(|&i| values[i]).collect::<Vec<_>>());
        grouped.rewards.push(mean_of(rewards));
        grouped.scores.push(mean_of(scores));
    }
    grouped.r_squared = r_squared(&grouped.rewards, &grouped.scores);
    grouped
}

/// R² of a line of true scores in rewards over all completions, each weighed by its probability to be drawn in its group.
///
/// None with fewer than two completions that can be drawn, and where either side of those has no spread.
pub fn filtered_r_squared(rewards: &[Vec<f64>], scores: &[Vec<f64>], filter: Filter) -> Option<f64> {
    let weights: Vec<f64> = rewards.iter().flat_map(|group| Ranks::new(group, filter).probabilities(group.len())).collect();
    weighted_r_squared(&rewards.concat(), &scores.concat(), &weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn larger_groups_come_first_and_ties_keep_their_order() {
        let grouped = grouped_r_squared(&[5.0, 1.0, 1.0, 2.0, 9.0], &[50.0, 10.0, 30.0, 20.0, 0.0], 3);
        assert_close(&grouped.rewards, &[1.0, 3.5, 9.0]);
        assert_close(&grouped.scores, &[20.0, 35.0, 0.0]);
    }

    #[test]
    fn there_are_no_empty_groups() {
        let grouped = grouped_r_squared(&[2.0, 1.0], &[4.0, 1.0], 5);
        assert_eq!((grouped.rewards, grouped.scores), (vec![1.0, 2.0], vec![1.0, 4.0]));
        assert_close(&[grouped.r_squared.unwrap()], &[1.0]);
        assert_eq!(grouped_r_squared(&[], &[], 3), Grouped::default());
        assert_eq!(grouped_r_squared(&[2.0, 1.0], &[4.0, 1.0], 1).r_squared, None);
    }

    #[test]
    fn what_cannot_be_drawn_counts_nothing() {
        let (rewards, scores) = ([vec![0.0, 1.0, 3.0], vec![2.0]], [vec![0.0, 9.0, 6.0], vec![4.0]]);
        assert_close(&[filtered_r_squared(&rewards, &scores, Filter::BestWorst).unwrap()], &[1.0]);
        assert!(filtered_r_squared(&rewards, &scores, Filter::All).unwrap() < 0.5);
        assert_eq!(filtered_r_squared(&rewards[..1], &scores[..1], Filter::Best), None);
        assert_eq!(filtered_r_squared(&rewards, &[vec![1.0; 3], vec![1.0]], Filter::All), None);
        assert_eq!(filtered_r_squared(&[], &[], Filter::All), None);
    }
}
