//! The best of a group of completions, or of all groups.

use std::collections::BTreeMap;

use super::ranked::{self, share_count};
use crate::advantage::mean;

/// Which completions go on, as (group, completion).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// So many best of each group.
    PerGroup(usize),
    /// This share of all, `floor(N · share + 1e-9)`, wherever they are.
    OfAll(f64),
}

/// The best completions, best first (within their group, or in all), ties by the lowest group and completion. Empty groups give none.
///
/// Reference: Dong et al. 2023, "RAFT: Reward rAnked FineTuning for Generative Foundation Model Alignment".
pub fn best(rewards: &[Vec<f64>], share: Share) -> Vec<(usize, usize)> {
    match share {
        Share::PerGroup(count) => {
            let of_group = |(group, rewards): (usize, &Vec<f64>)| {
                ranked::best(rewards, count).into_iter().map(move |i| (group, i)).collect::<Vec<_>>()
            };
            rewards.iter().enumerate().flat_map(of_group).collect()
        }
        Share::OfAll(share) => {
            let places: Vec<(usize, usize)> =
                rewards.iter().enumerate().flat_map(|(group, rewards)| (0..rewards.len()).map(move |i| (group, i))).collect();
            ranked::best(&rewards.concat(), share_count(places.len(), share)).into_iter().map(|i| places[i]).collect()
        }
    }
}

/// Rewards less `weight` times the log-ratio of policy to reference of each completion, nats.
pub fn less_divergence(rewards: &[f64], policy: &[f64], reference: &[f64], weight: f64) -> Vec<f64> {
    let ratios = policy.iter().zip(reference).map(|(policy, reference)| policy - reference);
    rewards.iter().zip(ratios).map(|(reward, ratio)| reward - weight * ratio).collect()
}

/// Mean reward of all completions and of the selected ones; 0 of none.
pub fn mean_rewards(rewards: &[Vec<f64>], selected: &[(usize, usize)]) -> (f64, f64) {
    (mean(&rewards.concat()), mean(&selected.iter().map(|&(group, i)| rewards[group][i]).collect::<Vec<_>>()))
}

/// The answer of the first `n` samples that has the greatest reward; of several such samples the answer that most of them give, the first one on
/// ties. None without samples.
///
/// Reference: Kim et al. 2024 (RewardMATH), best-of-n with ties broken by majority.
pub fn best_with_vote<'a, A: Ord>(rewards: &[f64], answers: &'a [A], n: usize) -> Option<&'a A> {
    let rewards = &rewards[..n.min(rewards.len())];
    let most = rewards.iter().copied().reduce(f64::max)?;
    let top: Vec<&A> = rewards.iter().zip(answers).filter(|(reward, _)| **reward == most).map(|(_, answer)| answer).collect();
    let mut counts: BTreeMap<&A, usize> = BTreeMap::new();
    top.iter().for_each(|answer| *counts.entry(answer).or_default() += 1);
    top.into_iter().reduce(|best, answer| if counts[answer] > counts[best] { answer } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lowest_place_and_empty_groups_give_none() {
        let rewards = [vec![1.0, 2.0, 2.0], vec![], vec![2.0, -0.0, 0.0]];
        assert_eq!(best(&rewards, Share::PerGroup(2)), [(0, 1), (0, 2), (2, 0), (2, 1)]);
        assert_eq!(best(&rewards, Share::OfAll(0.5)), [(0, 1), (0, 2), (2, 0)]);
        assert_eq!(best(&[vec![], vec![]], Share::OfAll(1.0)), []);
    }

    #[test]
    fn tenths_of_a_whole_number_are_whole() {
        // 0.7 · 10 is below 7 in binary.
        assert_eq!(best(&[vec![0.0; 10]], Share::OfAll(0.1 * 7.0)).len(), 7);
    }

    #[test]
    fn majority_decides_among_the_best_alone() {
        assert_eq!(best_with_vote(&[1.0, 5.0, 5.0, 5.0], &["b", "a", "b", "b"], 4), Some(&"b"));
        assert_eq!(best_with_vote(&[1.0, 5.0, 5.0, 5.0], &["b", "a", "b", "b"], 3), Some(&"a"));
        assert_eq!(best_with_vote::<&str>(&[], &[], 3), None);
    }

    #[test]
    fn divergence_is_taken_off_the_reward() {
        assert_eq!(less_divergence(&[1.0], &[-2.0], &[-4.0], 0.5), [0.0]);
        assert_eq!(mean_rewards(&[], &[]), (0.0, 0.0));
    }
}
