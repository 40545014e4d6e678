//! How often a reward agrees with preferences, and how that carries over to other data.

use crate::advantage::mean;
use crate::stats::mean_opt;

/// What a pair of equal rewards counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// Nothing: a constant reward has accuracy 0.
    #[default]
    Strict,
    /// One half.
    Half,
    /// As much as a win.
    Win,
}

impl Ties {
    /// What the comparison of an answer that should win with another one counts.
    pub fn credit(self, better: f64, worse: f64) -> f64 {
        match self {
            _ if better > worse => 1.0,
            Ties::Half if better == worse => 0.5,
            Ties::Win if better == worse => 1.0,
            _ => 0.0,
        }
    }
}

/// Agreement of rewards with preferences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Share of the pairs whose chosen answer has the greater reward; 0 without pairs.
    pub accuracy: f64,
    /// Pairs with equal rewards.
    pub ties: usize,
    /// Mean of chosen - rejected; 0 without pairs.
    pub mean_margin: f64,
}

/// Agreement of the rewards of pairs.
///
/// # Panics
/// When there are not as many rejected as chosen rewards.
pub fn agreement(chosen: &[f64], rejected: &[f64], ties: Ties) -> Agreement {
    assert_eq!(chosen.len(), rejected.len(), "each pair needs both rewards");
    let margins: Vec<f64> = chosen.iter().zip(rejected).map(|(chosen, rejected)| chosen - rejected).collect();
    let tied = chosen.iter().zip(rejected).filter(|(chosen, rejected)| chosen == rejected).count();
    let right: f64 = chosen.iter().zip(rejected).map(|(chosen, rejected)| ties.credit(*chosen, *rejected)).sum();
    Agreement { accuracy: right / margins.len().max(1) as f64, ties: tied, mean_margin: mean(&margins) }
}

/// How much worse one kind of reward does than another, by set of pairs (Lin et al. 2024, "On the Limited Generalization Capability of
/// the Implicit Reward Model Induced by DPO").
#[derive(Clone, Debug, PartialEq)]
pub struct Drops {
    /// Accuracy of the one minus that of the other, by set.
    pub drops: Vec<f64>,
    /// Mean over sets of another distribution; 0 without any.
    pub mean_shifted: f64,
    /// Greatest over sets of another distribution; 0 without any.
    pub max_shifted: f64,
    /// Mean over sets of the training distribution; 0 without any.
    pub mean_unshifted: f64,
}

/// Drops from `explicit` to `implicit` accuracies; `shifted` sets are of another distribution than the training data.
///
/// # Panics
/// When the lists have different lengths.
pub fn accuracy_drops(explicit: &[f64], implicit: &[f64], shifted: &[bool]) -> Drops {
    assert!(explicit.len() == implicit.len() && explicit.len() == shifted.len(), "each set needs both accuracies and its kind");
    let drops: Vec<f64> = explicit.iter().zip(implicit).map(|(explicit, implicit)| explicit - implicit).collect();
    let of = |kind: bool| drops.iter().zip(shifted).filter(|(_, s)| **s == kind).map(|(drop, _)| *drop).collect::<Vec<_>>();
    let (yes, no) = (of(true), of(false));
    let max_shifted = yes.iter().copied().reduce(f64::max).unwrap_or(0.0);
    Drops { mean_shifted: mean(&yes), max_shifted, mean_unshifted: mean(&no), drops }
}

/// Rewards of completions: (mean over all, mean over prompts of the best of each). Prompts without completions are in neither; None
/// where all are.
pub fn generation_means(rewards: &[Vec<f64>]) -> Option<(f64, f64)> {
    let best: Vec<f64> = rewards.iter().filter_map(|group| group.iter().copied().reduce(f64::max)).collect();
    Some((mean_opt(&rewards.concat())?, mean_opt(&best)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn ties_count_by_their_rule() {
        let (chosen, rejected) = ([1.0, 2.0, 0.0], [0.0, 2.0, 3.0]);
        let strict = agreement(&chosen, &rejected, Ties::Strict);
        assert_close(&[strict.accuracy, strict.mean_margin], &[1.0 / 3.0, -2.0 / 3.0]);
        assert_eq!(strict.ties, 1);
        assert_eq!(agreement(&chosen, &rejected, Ties::Half).accuracy, 0.5);
        assert_eq!(agreement(&[], &[], Ties::Half), Agreement { accuracy: 0.0, ties: 0, mean_margin: 0.0 });
    }

    #[test]
    fn drops_of_a_kind_without_sets_are_zero() {
        let drops = accuracy_drops(&[0.5, 0.6], &[0.6, 0.9], &[true, true]);
        assert_close(&[drops.mean_shifted, drops.max_shifted, drops.mean_unshifted], &[-0.2, -0.1, 0.0]);
        assert_eq!(accuracy_drops(&[], &[], &[]).max_shifted, 0.0);
    }

    #[test]
    fn prompts_without_completions_have_no_best() {
        assert_eq!(generation_means(&[vec![1.0, 3.0], vec![], vec![2.0]]), Some((2.0, 2.5)));
        assert_eq!(generation_means(&[vec![]]), None);
    }
}
