//! The best completions of a group, and noise in what is preferred.

use crate::stats::order;

/// The k best of a group's completions by `reward - penalty · ln(length)`, best first, each with that score.
///
/// Completions without length are dropped first; of fewer than k all stay. Of equal scores the lower index comes first.
///
/// Reference: Mukobi et al. 2023, "SuperHF"; the length is in characters.
pub fn top_k(rewards: &[f64], lengths: &[usize], k: usize, length_penalty: f64) -> Vec<(usize, f64)> {
    let score = |i: usize| rewards[i] - length_penalty * (lengths[i] as f64).ln();
    let mut kept: Vec<(usize, f64)> = (0..rewards.len()).filter(|&i| lengths[i] > 0).map(|i| (i, score(i))).collect();
    kept.sort_by(|a, b| order(b.1, a.1));
    kept.truncate(k);
    kept
}

/// Whether each preference is flipped, from one uniform number in 0..1 for each: those below the rate.
///
/// Reference: Coste et al. 2023, "Reward Model Ensembles Help Mitigate Overoptimization", 25 % label noise.
pub fn label_noise(uniforms: &[f64], rate: f64) -> Vec<bool> {
    uniforms.iter().map(|uniform| *uniform < rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_completions_go_first_and_ties_to_the_lower_index() {
        assert_eq!(top_k(&[1.0, 9.0, 1.0, 0.5], &[3, 0, 3, 3], 2, 0.0), [(0, 1.0), (2, 1.0)]);
        assert_eq!(top_k(&[1.0, 9.0], &[3, 0], 5, 0.0), [(0, 1.0)]);
        assert!(top_k(&[1.0], &[0], 1, 0.5).is_empty());
        assert!(top_k(&[], &[], 1, 0.5).is_empty());
    }

    #[test]
    fn length_costs_its_logarithm() {
        let kept = top_k(&[1.0, 1.0], &[10, 1], 1, 0.5);
        assert_eq!(kept, [(1, 1.0)]);
    }

    #[test]
    fn noise_flips_below_the_rate_and_not_at_it() {
        assert_eq!(label_noise(&[0.25, 0.2499, 0.9], 0.25), [false, true, false]);
        assert_eq!(label_noise(&[0.0], 0.0), [false]);
    }
}
