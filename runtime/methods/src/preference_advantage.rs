//! Advantages of a group whose completions a judge compared two by two, without rewards of their own.
//!
//! Reference: Hong et al. 2025, "Think-RM: Enabling Long-Horizon Reasoning in Generative Reward Models".

use crate::advantage::mean;
use crate::evaluation::verdicts::Verdict;

/// What a judge says of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judgement {
    /// A signed strength: below 0 the first completion is better, above 0 the second.
    Strength(f64),
    /// A verdict alone; the more the judge had to think, the less it counts.
    Binary {
        /// Which is better.
        verdict: Verdict,
        /// Length of the judge's reasoning, in tokens; 0 counts as 1.
        trace_length: usize,
    },
}

impl Judgement {
    /// By how much the first completion is better.
    pub fn difference(self) -> f64 {
        match self {
            Judgement::Strength(strength) => -strength,
            Judgement::Binary { verdict, trace_length } => (2.0 * verdict.points() - 1.0) / trace_length.max(1) as f64,
        }
    }
}

/// `d_ij`, by how much completion i is better than j, and `d_ji = -d_ij`; 0 where the judgement could not be read (None) and for pairs
/// that are not among `judged`.
///
/// # Panics
/// When a pair has an index that is not below `completions`.
pub fn differences(completions: usize, judged: &[([usize; 2], Option<Judgement>)]) -> Vec<Vec<f64>> {
    let mut differences = vec![vec![0.0; completions]; completions];
    for &([i, j], judgement) in judged {
        let difference = judgement.map_or(0.0, Judgement::difference);
        differences[i][j] = difference;
        differences[j][i] = -difference;
    }
    differences
}

/// `A_i = (1/G) Σ_j d_ij / sqrt(Σ_ij d_ij² / (2 G (G - 1)) + epsilon)`; 0 without differences.
///
/// Of `d_ij = r_i - r_j` these are rewards centred and divided by `sqrt(variance + epsilon)`, the variance dividing by `G - 1`.
pub fn advantages(differences: &[Vec<f64>], epsilon: f64) -> Vec<f64> {
    let completions = differences.len() as f64;
    let squares: f64 = differences.iter().flatten().map(|d| d * d).sum();
    if squares == 0.0 {
        return vec![0.0; differences.len()];
    }
    let deviation = (squares / (2.0 * completions * (completions - 1.0)) + epsilon).sqrt();
    differences.iter().map(|row| mean(row) / deviation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::returns::{Divisor, whiten};
    use crate::testing::assert_close;

    #[test]
    fn differences_of_rewards_give_the_advantages_of_the_rewards() {
        let rewards = [0.5, -1.0, 2.0, 0.25];
        let differences: Vec<Vec<f64>> = rewards.iter().map(|r| rewards.iter().map(|other| r - other).collect()).collect();
        let want = whiten(&rewards, &[true; 4], true, Divisor::Deviation(1e-3), 1);
        assert_close(&advantages(&differences, 1e-3), &want);
    }

    #[test]
    fn judgements_count_for_the_first_and_against_the_second() {
        let judged = [
            ([0, 1], Some(Judgement::Strength(-3.0))),
            ([2, 0], Some(Judgement::Binary { verdict: Verdict::Second, trace_length: 4 })),
            ([1, 2], None),
        ];
        assert_eq!(differences(3, &judged), [[0.0, 3.0, 0.25], [-3.0, 0.0, 0.0], [-0.25, 0.0, 0.0]]);
        assert_eq!(Judgement::Binary { verdict: Verdict::First, trace_length: 0 }.difference(), 1.0);
    }

    #[test]
    fn what_nothing_is_compared_with_has_no_advantage() {
        assert_eq!(advantages(&differences(1, &[]), 0.0), [0.0]);
        assert_eq!(advantages(&differences(2, &[([0, 1], None)]), 0.0), [0.0; 2]);
        assert!(advantages(&[], 1e-6).is_empty());
    }
}
