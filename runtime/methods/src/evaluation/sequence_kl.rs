//! Divergences between models by sequences that one of them sampled.

use plumb_core::recipe::KlEstimator;

use crate::advantage::{mean, std_dev};
use crate::kl::estimate;
use crate::stats::log_sum_exp;

/// Sum over one sequence's unmasked tokens of the estimate of KL(sampler ‖ other), nats; the sequence was sampled from `sampler`.
///
/// # Panics
/// When the lists have different lengths.
pub fn sequence_estimate(estimator: KlEstimator, sampler: &[f64], other: &[f64], mask: &[f64]) -> f64 {
    assert!(sampler.len() == other.len() && sampler.len() == mask.len(), "each token needs both log-probabilities and a mask");
    let tokens = (0..mask.len()).filter(|&t| mask[t] > 0.0);
    tokens.map(|t| estimate(estimator, sampler[t], other[t])).sum()
}

/// Mean of the sequences' estimates, and its standard error (sample deviation over the root of their number); None for one sequence.
pub fn mean_with_error(estimates: &[f64]) -> (f64, Option<f64>) {
    let n = estimates.len() as f64;
    let error = (estimates.len() > 1).then(|| std_dev(estimates, 1) / n.sqrt());
    (mean(estimates), error)
}

/// Jensen-Shannon divergence of two models, nats, by samples of both: half the mean of `ln p - ln m` over samples of p plus half the
/// mean of `ln q - ln m` over those of q, m the mean of both densities. A side without samples adds nothing.
///
/// `p_samples`, `q_samples`: (log-probability under p, under q) of each sequence.
pub fn jensen_shannon(p_samples: &[(f64, f64)], q_samples: &[(f64, f64)]) -> f64 {
    let middle = |p: f64, q: f64| log_sum_exp(&[p, q]) - std::f64::consts::LN_2;
    let of_p: Vec<f64> = p_samples.iter().map(|&(p, q)| p - middle(p, q)).collect();
    let of_q: Vec<f64> = q_samples.iter().map(|&(p, q)| q - middle(p, q)).collect();
    f64::midpoint(mean(&of_p), mean(&of_q))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn masked_tokens_and_empty_sequences_have_no_divergence() {
        let of = |mask: [f64; 2]| sequence_estimate(KlEstimator::K1, &[-1.0, f64::NAN], &[-1.5, -2.0], &mask);
        assert_close(&[of([1.0, 0.0]), of([0.0, 0.0])], &[0.5, 0.0]);
        assert_eq!(sequence_estimate(KlEstimator::K3, &[], &[], &[]), 0.0);
    }

    #[test]
    fn one_sequence_has_no_standard_error() {
        assert_eq!(mean_with_error(&[2.0]), (2.0, None));
        assert_eq!(mean_with_error(&[]), (0.0, None));
        let (mean, error) = mean_with_error(&[1.0, 3.0]);
        assert_close(&[mean, error.unwrap()], &[2.0, 1.0]);
    }

    #[test]
    fn jensen_shannon_is_zero_of_equals_and_ln_2_of_strangers() {
        assert_eq!(jensen_shannon(&[(-5.0, -5.0)], &[(-3.0, -3.0)]), 0.0);
        assert_close(&[jensen_shannon(&[(-5.0, -2000.0)], &[(-2000.0, -3.0)])], &[std::f64::consts::LN_2]);
        assert_eq!(jensen_shannon(&[], &[]), 0.0);
    }
}
