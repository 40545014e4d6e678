//! Which answers of a group are learned from where judges say which ones satisfy the constraints. The first index wins ties.
//!
//! Reference: Xu et al. 2024, "The Perfect Blend: Redefining RLHF with Mixture of Judges" (CGPO), sections 4 and 5.

use crate::stats::{first_max, first_min};

/// The value's index among `candidates` that `extreme` of their rewards has.
fn among(candidates: &[usize], rewards: &[f64], extreme: fn(&[f64]) -> Option<usize>) -> Option<usize> {
    extreme(&candidates.iter().map(|&i| rewards[i]).collect::<Vec<_>>()).map(|place| candidates[place])
}

/// (chosen, rejected): the best answer of those that satisfy all judges against the worst of those that do not, or of all where every answer does.
///
/// None where no answer satisfies them, and where both would be the same answer. Selection is by index: of satisfied answers with negative rewards the best is
/// still above a violated one, which it would not be by the product of verdict and reward.
///
/// # Panics
/// When there are not as many verdicts as rewards.
pub fn constrained_pair(rewards: &[f64], satisfied: &[bool]) -> Option<(usize, usize)> {
    assert_eq!(rewards.len(), satisfied.len(), "each answer needs a verdict");
    let (inside, outside): (Vec<usize>, Vec<usize>) = (0..rewards.len()).partition(|&i| satisfied[i]);
    let chosen = among(&inside, rewards, first_max)?;
    let rejected = among(&outside, rewards, first_min).or_else(|| first_min(rewards))?;
    (chosen != rejected).then_some((chosen, rejected))
}

/// What a prompt's likelihood is learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The completion of this index.
    Completion(usize),
    /// The fixed answer that rewards are compared with.
    Baseline,
}

/// The best completion of those that satisfy all judges and whose log-ratio of policy to reference is at most `kl_max`, nats; without any the fixed
/// answer, if that satisfies them; else None.
///
/// # Panics
/// When the lists differ in length.
pub fn constrained_best(
    rewards: &[f64],
    satisfied: &[bool],
    log_ratios: &[f64],
    kl_max: f64,
    baseline_satisfied: bool,
) -> Option<Learned> {
    assert!(rewards.len() == satisfied.len() && rewards.len() == log_ratios.len(), "each answer needs a verdict and a log-ratio");
    let inside: Vec<usize> = (0..rewards.len()).filter(|&i| satisfied[i] && log_ratios[i] <= kl_max).collect();
    let best = among(&inside, rewards, first_max).map(Learned::Completion);
    best.or_else(|| baseline_satisfied.then_some(Learned::Baseline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_inside_stands_against_the_worst_outside() {
        assert_eq!(constrained_pair(&[-3.0, -1.0, 5.0, 4.0], &[true, true, false, false]), Some((1, 3)));
        assert_eq!(constrained_pair(&[1.0, 2.0, 0.0], &[true; 3]), Some((1, 2)));
        assert_eq!(constrained_pair(&[2.0, 2.0, 0.0, 0.0], &[true, true, false, false]), Some((0, 2)));
    }

    #[test]
    fn prompts_without_two_sides_have_no_pair() {
        assert_eq!(constrained_pair(&[1.0, 2.0], &[false; 2]), None);
        assert_eq!(constrained_pair(&[1.0], &[true]), None);
        assert_eq!(constrained_pair(&[1.0, 1.0], &[true; 2]), None);
        assert_eq!(constrained_pair(&[], &[]), None);
    }

    #[test]
    fn cap_belongs_to_what_is_allowed_and_the_baseline_stands_in() {
        let of = |satisfied: &[bool], kl_max, baseline| {
            constrained_best(&[1.0, 3.0, 3.0], satisfied, &[-2.0, 4.0, 1.0], kl_max, baseline)
        };
        assert_eq!(of(&[true; 3], 4.0, true), Some(Learned::Completion(1)));
        assert_eq!(of(&[true; 3], 3.9, true), Some(Learned::Completion(2)));
        assert_eq!(of(&[true, false, false], 4.0, true), Some(Learned::Completion(0)));
        assert_eq!(of(&[false, true, false], 3.0, true), Some(Learned::Baseline));
        assert_eq!(of(&[false; 3], 4.0, false), None);
        assert_eq!(constrained_best(&[], &[], &[], 4.0, false), None);
    }
}
