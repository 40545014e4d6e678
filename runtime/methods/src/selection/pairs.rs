//! Pairs of a chosen and a rejected answer out of groups of answers to one prompt. Indices are of answers within their group.

use crate::stats::{first_max, first_min};

/// Which two answers of a group are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Best against worst.
    #[default]
    MaxMin,
    /// Best against another: the second answer where the best is the first, else the first.
    MaxRandom,
    /// Best against second best.
    MaxMax,
    /// The first two answers.
    Random,
    /// Best against worst after a penalty by length.
    MaxMinPenalized,
}

/// Which rewards say who of the two is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orientation {
    /// Those that were given: the penalty chooses the two, and may be undone between them.
    #[default]
    Raw,
    /// Those after the penalty.
    Shaped,
}

/// How pairs are made of groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Which two answers are compared.
    pub strategy: Strategy,
    /// Reward per unit of length that [`Strategy::MaxMinPenalized`] and [`Orientation::Shaped`] take away.
    pub length_penalty: f64,
    /// Which rewards order the two, give the margin and, when equal, drop the group.
    pub orientation: Orientation,
    /// Groups of fewer answers are dropped; at least 2.
    pub min_completions: usize,
    /// Factor of the margins.
    pub margin_scale: f64,
}

impl Default for Rule {
    fn default() -> Self {
        Rule {
            strategy: Strategy::default(),
            length_penalty: 0.0,
            orientation: Orientation::default(),
            min_completions: 2,
            margin_scale: 1.0,
        }
    }
}

/// A pair of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Answer with the greater reward.
    pub chosen: usize,
    /// The other.
    pub rejected: usize,
    /// Difference of their rewards, in scaled units; above 0.
    pub margin: f64,
}

/// The pair of a group; None where it has too few answers or the two have equal rewards. The lowest index wins ties.
///
/// `lengths` of the answers in any unit; None takes none away.
///
/// Reference: Dong et al. 2024 ("RLHF Workflow"), whose loop orders pairs by raw rewards.
///
/// # Panics
/// When there are not as many lengths as rewards.
pub fn select_pair(rewards: &[f64], lengths: Option<&[f64]>, rule: Rule) -> Option<Pair> {
    assert!(lengths.is_none_or(|lengths| lengths.len() == rewards.len()), "each answer needs a length");
    if rewards.len() < rule.min_completions.max(2) {
        return None;
    }
    let penalty = |i: usize| lengths.map_or(0.0, |lengths| rule.length_penalty * lengths[i]);
    let shaped: Vec<f64> = (0..rewards.len()).map(|i| rewards[i] - penalty(i)).collect();
    let best = first_max(rewards)?;
    let (first, second) = match rule.strategy {
        Strategy::MaxMin => (best, first_min(rewards)?),
        Strategy::MaxRandom => (best, usize::from(best == 0)),
        Strategy::MaxMax => {
            let others = (0..rewards.len()).filter(|&i| i != best);
            (best, others.reduce(|second, i| if rewards[i] > rewards[second] { i } else { second })?)
        }
        Strategy::Random => (0, 1),
        Strategy::MaxMinPenalized => (first_max(&shaped)?, first_min(&shaped)?),
    };
    let values = match rule.orientation {
        Orientation::Raw => rewards,
        Orientation::Shaped => &shaped,
    };
    let (chosen, rejected) = if values[second] > values[first] { (second, first) } else { (first, second) };
    let margin = values[chosen] - values[rejected];
    (margin > 0.0).then_some(Pair { chosen, rejected, margin: margin * rule.margin_scale })
}

/// Share of the groups for which two labellers both have a pair that have the same one; 0 without such groups.
pub fn agreement(a: &[Option<Pair>], b: &[Option<Pair>]) -> f64 {
    let both: Vec<_> = a.iter().zip(b).filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
    let same = both.iter().filter(|(a, b)| (a.chosen, a.rejected) == (b.chosen, b.rejected)).count();
    same as f64 / both.len().max(1) as f64
}

/// All pairs of different ranks, 1 the best, as (better, worse, difference of ranks), ordered by better, then worse. Answers without a
/// rank are in none.
///
/// Reference: Zhang et al. 2025 ("MM-RLHF").
pub fn all_rank_pairs(ranks: &[Option<i64>]) -> Vec<(usize, usize, i64)> {
    let pairs = (0..ranks.len()).flat_map(|better| (0..ranks.len()).map(move |worse| (better, worse)));
    pairs.filter_map(|(better, worse)| Some((better, worse, ranks[worse]? - ranks[better]?))).filter(|pair| pair.2 > 0).collect()
}

/// First answer of the best rank against the first of the next rank that occurs; None with fewer than two ranks.
pub fn hardest_pair(ranks: &[Option<i64>]) -> Option<(usize, usize)> {
    let first_of = |rank: i64| ranks.iter().position(|&other| other == Some(rank));
    let best = ranks.iter().flatten().min()?;
    let next = ranks.iter().flatten().filter(|&rank| rank > best).min()?;
    Some((first_of(*best)?, first_of(*next)?))
}

/// Pairs `i < j` of different labels, with 1 where i has the greater one and -1 where j has.
pub fn label_pairs(labels: &[f64]) -> Vec<(usize, usize, i8)> {
    let pairs = (0..labels.len()).flat_map(|i| (i + 1..labels.len()).map(move |j| (i, j)));
    let sign = |(i, j): (usize, usize)| match labels[i].partial_cmp(&labels[j])? {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some((i, j, 1)),
        std::cmp::Ordering::Less => Some((i, j, -1)),
    };
    pairs.filter_map(sign).collect()
}

/// Preference by several rewards: 1 where `first` is nowhere worse and somewhere better, -1 the other way round, else 0.
///
/// # Panics
/// When the sides have different numbers of rewards.
pub fn pareto_preference(first: &[f64], second: &[f64]) -> i8 {
    assert_eq!(first.len(), second.len(), "both sides need every reward");
    let better = first.iter().zip(second).any(|(a, b)| a > b);
    let worse = first.iter().zip(second).any(|(a, b)| a < b);
    i8::from(better && !worse) - i8::from(worse && !better)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(rewards: &[f64], strategy: Strategy) -> Option<(usize, usize)> {
        select_pair(rewards, None, Rule { strategy, ..Rule::default() }).map(|pair| (pair.chosen, pair.rejected))
    }

    #[test]
    fn strategies_choose_their_two_and_ties_go_to_the_lowest_index() {
        let rewards = [0.0, 2.0, 2.0, -1.0, -1.0];
        assert_eq!(select(&rewards, Strategy::MaxMin), Some((1, 3)));
        assert_eq!(select(&rewards, Strategy::MaxRandom), Some((1, 0)));
        assert_eq!(select(&[3.0, 1.0, 2.0], Strategy::MaxRandom), Some((0, 1)));
        assert_eq!(select(&rewards, Strategy::Random), Some((1, 0)));
        assert_eq!(select(&rewards, Strategy::MaxMax), None, "the two best are equal");
        assert_eq!(select(&[1.0, 3.0, 2.0], Strategy::MaxMax), Some((1, 2)));
    }

    #[test]
    fn equal_rewards_and_small_groups_have_no_pair() {
        for strategy in [Strategy::MaxMin, Strategy::MaxRandom, Strategy::MaxMax, Strategy::Random, Strategy::MaxMinPenalized] {
            assert_eq!(select(&[0.5; 4], strategy), None, "{strategy:?}");
            assert_eq!(select(&[0.5], strategy), None);
            assert_eq!(select(&[], strategy), None);
        }
        let rule = Rule { min_completions: 3, ..Rule::default() };
        assert_eq!(select_pair(&[1.0, 0.0], None, rule), None);
    }

    #[test]
    fn raw_orientation_can_undo_the_penalty() {
        let (rewards, lengths) = ([3.0, 1.0, 0.5], [400.0, 20.0, 10.0]);
        let of = |orientation| {
            let rule = Rule {
                strategy: Strategy::MaxMinPenalized,
                length_penalty: 0.02,
                orientation,
                margin_scale: 2.0,
                ..Rule::default()
            };
            select_pair(&rewards, Some(&lengths), rule).unwrap()
        };
        assert_eq!(of(Orientation::Raw), Pair { chosen: 0, rejected: 1, margin: 4.0 });
        let shaped = of(Orientation::Shaped);
        assert_eq!((shaped.chosen, shaped.rejected), (1, 0));
        assert!((shaped.margin - 11.2).abs() < 1e-12);
    }

    #[test]
    fn agreement_counts_groups_that_both_label() {
        let pair = |chosen, rejected, margin| Some(Pair { chosen, rejected, margin });
        assert_eq!(
            agreement(&[pair(0, 1, 1.0), pair(0, 1, 1.0), None], &[pair(0, 1, 3.0), pair(1, 0, 1.0), pair(0, 1, 1.0)]),
            0.5
        );
        assert_eq!(agreement(&[None], &[pair(0, 1, 1.0)]), 0.0);
    }

    #[test]
    fn ranks_pair_across_gaps_and_without_the_unranked() {
        let ranks = [Some(3), None, Some(1), Some(3)];
        assert_eq!(all_rank_pairs(&ranks), [(2, 0, 2), (2, 3, 2)]);
        assert_eq!(hardest_pair(&ranks), Some((2, 0)));
        assert_eq!(hardest_pair(&[Some(1), Some(1), None]), None);
        assert_eq!(hardest_pair(&[]), None);
    }

    #[test]
    fn labels_and_several_rewards_compare_by_strict_differences() {
        assert_eq!(label_pairs(&[1.0, 0.0, 1.0]), [(0, 1, 1), (1, 2, -1)]);
        assert_eq!(pareto_preference(&[1.0, 2.0], &[1.0, 1.0]), 1);
        assert_eq!(pareto_preference(&[1.0, 0.0], &[0.0, 1.0]), 0);
        assert_eq!(pareto_preference(&[1.0], &[1.0]), 0);
        assert_eq!(pareto_preference(&[0.0, 1.0], &[1.0, 1.0]), -1);
    }
}
