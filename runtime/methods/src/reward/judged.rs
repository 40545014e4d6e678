//! Rewards that count only inside constraints which judges check.
//!
//! Reference: Xu et al. 2024, "The Perfect Blend: Redefining RLHF with Mixture of Judges" (CGPO), sections 4 and 5.

use crate::stats::{mean_opt, sigmoid};

/// Whether each answer satisfies all judges, from their verdicts `[judges][answers]`; nothing without judges.
pub fn satisfied(verdicts: &[Vec<bool>]) -> Vec<bool> {
    let answers = verdicts.first().map_or(0, Vec::len);
    (0..answers).map(|i| verdicts.iter().all(|judge| judge[i])).collect()
}

/// Share of the answers that satisfy their judge or judges; None without answers.
pub fn satisfaction_rate(verdicts: &[bool]) -> Option<f64> {
    mean_opt(&verdicts.iter().map(|&satisfied| f64::from(u8::from(satisfied))).collect::<Vec<_>>())
}

/// `σ(r - r_baseline)`: a reward against that of a fixed answer to the same prompt, comparable across prompts; 1/2 for the fixed answer itself.
pub fn calibrated(reward: f64, baseline: f64) -> f64 {
    sigmoid(reward - baseline)
}

/// `max(1 - ln(π/π_ref) / kl_max, 0)` times the calibrated reward; 0 where a judge is not satisfied.
///
/// `log_ratio` and `kl_max`, above 0, are of the whole answer, in nats. Where the policy is below its reference the factor exceeds 1.
pub fn regularised(calibrated: f64, satisfied: bool, log_ratio: f64, kl_max: f64) -> f64 {
    if satisfied { (1.0 - log_ratio / kl_max).max(0.0) * calibrated } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn one_judge_is_enough_to_reject() {
        assert_eq!(satisfied(&[vec![true, true, false], vec![true, false, false]]), [true, false, false]);
        assert!(satisfied(&[]).is_empty() && satisfied(&[vec![], vec![]]).is_empty());
        assert_eq!([satisfaction_rate(&[true, false]), satisfaction_rate(&[])], [Some(0.5), None]);
    }

    #[test]
    fn reward_falls_to_zero_at_the_cap_and_grows_below_the_reference() {
        let of = |log_ratio| regularised(0.5, true, log_ratio, 10.0);
        assert_close(&[-5.0, 0.0, 5.0, 10.0, 1e9].map(of), &[0.75, 0.5, 0.25, 0.0, 0.0]);
        assert_eq!(regularised(0.5, false, -5.0, 10.0), 0.0);
        assert_eq!([calibrated(3.0, 3.0), calibrated(1e4, -1e4), calibrated(-1e4, 1e4)], [0.5, 1.0, 0.0]);
    }
}
