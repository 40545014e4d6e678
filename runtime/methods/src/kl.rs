//! Estimators of KL(policy ‖ reference) from tokens that the policy sampled (Schulman 2020, "Approximating KL divergence").
//!
//! All are written in `d = reference - policy` log-probability (nats) of the sampled token.

use candle_core::Tensor;
use num_traits::Float;
use plumb_core::recipe::KlEstimator;

/// One token's estimate: k1 = -d (unbiased), k2 = d² / 2 (low variance, biased), k3 = exp(d) - d - 1 (unbiased, never negative).
pub fn estimate<F: Float>(estimator: KlEstimator, policy: F, reference: F) -> F {
    let d = reference - policy;
    match estimator {
        KlEstimator::K1 => -d,
        KlEstimator::K2 => d * d / (F::one() + F::one()),
        KlEstimator::K3 => d.exp() - d - F::one(),
    }
}

/// What stands for a token's KL in its penalty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKl {
    /// An estimate.
    Estimate(KlEstimator),
    /// `max(k1, 0)`, as some released code has it: never negative, and no estimate of the divergence any more but more than it.
    PositiveK1,
}

impl TokenKl {
    /// Of one token.
    pub fn value<F: Float>(self, policy: F, reference: F) -> F {
        match self {
            TokenKl::Estimate(estimator) => estimate(estimator, policy, reference),
            TokenKl::PositiveK1 => estimate(KlEstimator::K1, policy, reference).max(F::zero()),
        }
    }
}

/// [`estimate`] as a graph over tensors of equal shape; gradient flows through both.
pub fn estimate_tensor(estimator: KlEstimator, policy: &Tensor, reference: &Tensor) -> candle_core::Result<Tensor> {
    let d = (reference - policy)?;
    match estimator {
        KlEstimator::K1 => d.neg(),
        KlEstimator::K2 => d.sqr()? / 2.0,
        KlEstimator::K3 => (d.exp()? - d)? - 1.0,
    }
}

/// KL(p ‖ q) = `Σ_v p_v (ln p_v - ln q_v)` over the whole vocabulary, the last dimension; gradient flows through both.
///
/// Of log-probabilities of one shape `[.., V]`, nats; returns `[..]`.
pub fn divergence(log_p: &Tensor, log_q: &Tensor) -> candle_core::Result<Tensor> {
    (log_p.exp()? * (log_p - log_q)?)?.sum(candle_core::D::Minus1)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const ALL: [KlEstimator; 3] = [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3];

    #[test]
    fn estimates_match_values_by_hand() {
        // d = ln 2.
        let (policy, reference) = (-1.0f64, -1.0 + 2.0f64.ln());
        let want = [-std::f64::consts::LN_2, std::f64::consts::LN_2.powi(2) / 2.0, 1.0 - std::f64::consts::LN_2];
        for (estimator, want) in ALL.into_iter().zip(want) {
            assert!((estimate(estimator, policy, reference) - want).abs() < 1e-15, "{estimator:?}");
        }
    }

    #[test]
    fn positive_part_drops_tokens_that_the_reference_prefers() {
        let kl = |policy: f64| TokenKl::PositiveK1.value(policy, -1.0);
        assert_eq!([kl(-0.5), kl(-1.0), kl(-3.0)], [0.5, 0.0, 0.0]);
        assert_eq!(TokenKl::Estimate(KlEstimator::K1).value(-3.0, -1.0), -2.0);
    }

    #[test]
    fn expectations_of_k1_and_k3_are_the_divergence() {
        let (p, q) = ([0.5f64, 0.3, 0.2], [0.25f64, 0.25, 0.5]);
        let exact: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
        for estimator in [KlEstimator::K1, KlEstimator::K3] {
            let expected: f64 = p.iter().zip(&q).map(|(p, q)| p * estimate(estimator, p.ln(), q.ln())).sum();
            assert!((expected - exact).abs() < 1e-15, "{estimator:?}");
        }
        let logs = |p: [f64; 3]| Tensor::new(&p.map(f64::ln), &Device::Cpu).unwrap();
        let full = divergence(&logs(p), &logs(q)).unwrap().to_scalar::<f64>().unwrap();
        assert!((full - exact).abs() < 1e-15);
    }

    #[test]
    fn tensors_and_numbers_agree() {
        let (policy, reference) = ([-0.1f64, -2.0, -7.5], [-0.3f64, -1.0, -7.5]);
        let a = Tensor::new(&policy, &Device::Cpu).unwrap();
        let b = Tensor::new(&reference, &Device::Cpu).unwrap();
        for estimator in ALL {
            let got = estimate_tensor(estimator, &a, &b).unwrap().to_vec1::<f64>().unwrap();
            for i in 0..3 {
                assert!((got[i] - estimate(estimator, policy[i], reference[i])).abs() < 1e-14, "{estimator:?} {i}");
            }
        }
    }
}
