//! Which ranks of a group's rewards enter the update, where a reward model can be trusted at the ends of its range more than in the middle.
//!
//! Ranks are in descending order of rewards, ties in order of their indices, so that with equal rewards the first answer is the best and the last the worst.
//!
//! Reference: Zhang et al. 2024, "Policy Filtration in RLHF to Fine-Tune LLM for Code Generation" (PF-PPO).

use std::collections::BTreeMap;

use super::ranked;
use crate::stats::dot;

/// Which ranks are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// All alike: no filter.
    #[default]
    All,
    /// The best.
    Best,
    /// The best half of the time, else any other.
    BestRandom,
    /// The best and the worst, half of the time each.
    BestWorst,
}

impl Filter {
    /// Every filter, in the order of their names in a report.
    pub const EACH: [Filter; 4] = [Filter::All, Filter::Best, Filter::BestRandom, Filter::BestWorst];

    /// Probability of each of `n` ranks, the best first. A single answer has 1 by every filter.
    pub fn weights(self, n: usize) -> Vec<f64> {
        let weight = |rank: usize| match self {
            Filter::All => 1.0 / n as f64,
            _ if n == 1 => 1.0,
            Filter::Best => f64::from(u8::from(rank == 0)),
            Filter::BestRandom if rank == 0 => 0.5,
            Filter::BestRandom => 0.5 / (n - 1) as f64,
            Filter::BestWorst => 0.5 * f64::from(u8::from(rank == 0 || rank == n - 1)),
        };
        (0..n).map(weight).collect()
    }
}

/// A group's answers by rank, and how likely each is drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranks {
    /// Indices of the answers, the best first.
    pub order: Vec<usize>,
    /// Probability of each rank.
    pub weights: Vec<f64>,
}

impl Ranks {
    /// Of a group's rewards; an answer whose reward is NaN has no rank.
    pub fn new(rewards: &[f64], filter: Filter) -> Self {
        let order = ranked::best(rewards, rewards.len());
        Ranks { weights: filter.weights(order.len()), order }
    }

    /// Probability of each of `answers` answers, in their order.
    pub fn probabilities(&self, answers: usize) -> Vec<f64> {
        let mut probabilities = vec![0.0; answers];
        self.order.iter().zip(&self.weights).for_each(|(&i, &weight)| probabilities[i] = weight);
        probabilities
    }

    /// Mean reward of what is drawn; None without answers.
    pub fn expected_reward(&self, rewards: &[f64]) -> Option<f64> {
        let by_rank: Vec<f64> = self.order.iter().map(|&i| rewards[i]).collect();
        (!by_rank.is_empty()).then(|| dot(&by_rank, &self.weights))
    }

    /// The answer at a uniform number in 0..1: that of the first rank whose cumulative probability exceeds it; None without answers.
    ///
    /// Draws are with replacement, so statistics over what was drawn count an answer as often as it was.
    pub fn draw(&self, uniform: f64) -> Option<usize> {
        ranked::drawn(&self.weights, uniform).map(|rank| self.order[rank])
    }
}

/// How samples of a replay buffer are weighed before it is drawn from again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reweighting {
    /// 1 for one best and one worst sample of each prompt, 0 for the others.
    MaxMin,
    /// A weight for one best sample of each prompt, and another for each other one.
    MaxRandom {
        /// Of the best one.
        best: f64,
        /// Of each other one.
        rest: f64,
    },
    /// |score| to this power, whatever the prompt.
    Power(f64),
}

/// Weight of each sample; divided by their sum they are probabilities. A sample of a prompt whose score is NaN has 0 beside others that are ranked.
///
/// `prompts` tells which samples belong together; [`Reweighting::Power`] does not look at it.
///
/// # Panics
/// When there is another number of prompts than of scores, and the prompts matter.
pub fn buffer_weights<P: Ord>(scores: &[f64], prompts: &[P], by: Reweighting) -> Vec<f64> {
    let (best, worst, rest) = match by {
        Reweighting::Power(power) => return scores.iter().map(|score| score.abs().powf(power)).collect(),
        Reweighting::MaxMin => (1.0, 1.0, 0.0),
        Reweighting::MaxRandom { best, rest } => (best, rest, rest),
    };
    assert_eq!(scores.len(), prompts.len(), "each sample needs a prompt");
    let mut groups: BTreeMap<&P, Vec<usize>> = BTreeMap::new();
    prompts.iter().enumerate().for_each(|(i, prompt)| groups.entry(prompt).or_default().push(i));
    let mut weights = vec![0.0; scores.len()];
    for samples in groups.values() {
        let order = ranked::best(&samples.iter().map(|&i| scores[i]).collect::<Vec<_>>(), samples.len());
        for (rank, &place) in order.iter().enumerate() {
            weights[samples[place]] = match rank {
                0 => best,
                rank if rank + 1 == order.len() => worst,
                _ => rest,
            };
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn every_filter_is_a_distribution_and_leaves_a_single_answer_alone() {
        for filter in Filter::EACH {
            assert!(filter.weights(0).is_empty());
            assert_eq!(filter.weights(1), [1.0]);
            for n in 2..9 {
                assert!((filter.weights(n).iter().sum::<f64>() - 1.0).abs() < 1e-15, "{filter:?} of {n}");
            }
        }
        assert_eq!(Filter::BestRandom.weights(3), [0.5, 0.25, 0.25]);
        assert_eq!(Filter::BestWorst.weights(2), [0.5, 0.5]);
        assert_eq!(Filter::Best.weights(2), [1.0, 0.0]);
    }

    #[test]
    fn equal_rewards_make_the_first_best_and_the_last_worst() {
        let ranks = Ranks::new(&[0.0, -0.0, 0.0], Filter::BestWorst);
        assert_eq!(ranks.probabilities(3), [0.5, 0.0, 0.5]);
        let ranks = Ranks::new(&[1.0, 4.0, 2.0], Filter::BestRandom);
        assert_eq!(ranks.probabilities(3), [0.25, 0.5, 0.25]);
        assert_eq!(ranks.expected_reward(&[1.0, 4.0, 2.0]), Some(2.75));
    }

    #[test]
    fn bound_of_a_rank_belongs_to_the_next_one() {
        let ranks = Ranks::new(&[1.0, 4.0, 2.0], Filter::BestRandom);
        assert_eq!([0.0, 0.4999, 0.5, 0.75, 0.9999].map(|u| ranks.draw(u).unwrap()), [1, 1, 2, 0, 0]);
        // Ten tenths add up to less than 1.
        let last = 1.0 - f64::EPSILON / 2.0;
        assert_eq!(Ranks::new(&[0.0; 10], Filter::All).draw(last), Some(9));
        assert_eq!(Ranks::new(&[0.0; 3], Filter::Best).draw(last), Some(0));
    }

    #[test]
    fn empty_groups_have_nothing_to_draw() {
        let ranks = Ranks::new(&[], Filter::BestWorst);
        assert_eq!((ranks.draw(0.5), ranks.expected_reward(&[]), ranks.probabilities(0)), (None, None, vec![]));
    }

    #[test]
    fn one_best_and_one_worst_of_each_prompt_have_weight() {
        let (scores, prompts) = ([1.0, 1.0, 0.0, 0.0, 7.0], ["p", "p", "p", "p", "q"]);
        assert_eq!(buffer_weights(&scores, &prompts, Reweighting::MaxMin), [1.0, 0.0, 0.0, 1.0, 1.0]);
        let random = Reweighting::MaxRandom { best: 0.4, rest: 0.1 };
        assert_eq!(buffer_weights(&scores, &prompts, random), [0.4, 0.1, 0.1, 0.1, 0.4]);
        assert!(buffer_weights::<u8>(&[], &[], Reweighting::MaxMin).is_empty());
    }

    #[test]
    fn power_looks_at_sizes_alone() {
        assert_close(&buffer_weights::<u8>(&[-3.0, 0.0, 0.5], &[], Reweighting::Power(2.0)), &[9.0, 0.0, 0.25]);
    }
}
