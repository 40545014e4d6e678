//! Pairs out of a ranking of reward factors by importance instead of weights: two answers are told apart by the most important factor
//! that separates them.
//!
//! Reference: Bukharin et al. 2023, "Deep Reinforcement Learning from Hierarchical Preference Design" (HERON).

use crate::advantage::std_dev;

/// One level of the hierarchy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// 1 where more of the factor is better, -1 where less is.
    pub sign: f64,
    /// What an answer must be ahead by, strictly, in units of the factor; at least 0. See [`margin`].
    pub margin: f64,
}

/// `multiple` of the sample deviation of a factor's values; 0 of a single value.
pub fn margin(values: &[f64], multiple: f64) -> f64 {
    multiple * std_dev(values, 1)
}

/// A pair of one group, and the level that decided it, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Index of the preferred answer.
    pub chosen: usize,
    /// Index of the other.
    pub rejected: usize,
    /// Index of the deciding level.
    pub level: usize,
}

/// Every pair `i < j` of a group's answers that some level separates, in order of i, then j; those that none does are dropped.
///
/// Margins make "undecided" non-transitive, so the pairs may contain cycles.
///
/// `factors`: `[levels][answers]`, the most important first.
///
/// # Panics
/// When there are not as many levels as factors.
pub fn pairs(factors: &[Vec<f64>], levels: &[Level]) -> Vec<Pair> {
    assert_eq!(factors.len(), levels.len(), "each factor needs its level");
    let answers = factors.first().map_or(0, Vec::len);
    let ahead = |level: usize, a: usize, b: usize| {
        let (Level { sign, margin }, values) = (levels[level], &factors[level]);
        sign * values[a] > sign * values[b] + margin
    };
    let decide = |(i, j): (usize, usize)| {
        (0..levels.len()).find_map(|level| match (ahead(level, i, j), ahead(level, j, i)) {
            (true, _) => Some(Pair { chosen: i, rejected: j, level }),
            (_, true) => Some(Pair { chosen: j, rejected: i, level }),
            _ => None,
        })
    };
    (0..answers).flat_map(|i| (i + 1..answers).map(move |j| (i, j))).filter_map(decide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(levels: &[(f64, f64)]) -> Vec<Level> {
        levels.iter().map(|&(sign, margin)| Level { sign, margin }).collect()
    }

    fn of(factors: &[Vec<f64>], by: &[(f64, f64)]) -> Vec<(usize, usize, usize)> {
        pairs(factors, &levels(by)).into_iter().map(|pair| (pair.chosen, pair.rejected, pair.level)).collect()
    }

    #[test]
    fn later_levels_decide_what_earlier_ones_leave_open() {
        let factors = [vec![1.0, 0.0, 1.0], vec![5.0, 9.0, 7.0]];
        assert_eq!(of(&factors, &[(1.0, 0.0), (1.0, 0.0)]), [(0, 1, 0), (2, 0, 1), (2, 1, 0)]);
        // Less of the second is better.
        assert_eq!(of(&factors, &[(1.0, 0.0), (-1.0, 0.0)]), [(0, 1, 0), (0, 2, 1), (2, 1, 0)]);
    }

    #[test]
    fn difference_of_just_the_margin_does_not_separate() {
        assert_eq!(of(&[vec![1.0, 1.5, 1.75]], &[(1.0, 0.5)]), [(2, 0, 0)]);
        assert_eq!(of(&[vec![1.0, 1.5, 1.75]], &[(-1.0, 0.5)]), [(0, 2, 0)]);
        assert!(of(&[vec![0.3; 3]], &[(1.0, 0.0)]).is_empty());
    }

    #[test]
    fn fewer_than_two_answers_or_no_levels_have_no_pairs() {
        assert!(of(&[vec![1.0]], &[(1.0, 0.0)]).is_empty());
        assert!(of(&[vec![]], &[(1.0, 0.0)]).is_empty());
        assert!(of(&[], &[]).is_empty());
    }

    #[test]
    fn margins_are_multiples_of_the_sample_deviation() {
        assert!((margin(&[1.0, 3.0], 0.5) - 0.5 * 2f64.sqrt()).abs() < 1e-15);
        assert_eq!([margin(&[4.0], 2.0), margin(&[], 2.0), margin(&[1.0, 3.0], 0.0)], [0.0; 3]);
    }
}
