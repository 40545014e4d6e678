//! Truncated importance sampling: completions that another policy sampled than the one that is trained.
//!
//! Rollouts in bfloat16 or 8 bits come from the policy rounded so. A token's loss is therefore multiplied by
//! `u = min(exp(old - rollout), max)`: `old` is its log-probability under the policy that was meant to sample, as the training
//! engine computes it, and `rollout` the one it was drawn with. `u` is a constant, no gradient flows through it. Cut at `max`,
//! since a single token that the sampler thought unlikely must not outweigh a step; the bias is what the cut takes away.
//!
//! Reference: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (TIS, per token); TRL's
//! `vllm_importance_sampling_correction` with mode `token_truncate`, whose metric names are used.

use candle_core::Tensor;

/// `min(exp(old - rollout), max)`, `[M]`, without gradient.
pub fn weights(old: &Tensor, rollout: &Tensor, max: f64) -> candle_core::Result<Tensor> {
    (old.detach() - rollout)?.exp()?.minimum(max)
}

/// How far the sampler is from the policy, over tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplerStats {
    tokens: f64,
    difference_sum: f64,
    difference_max: f64,
    weight_sum: f64,
    /// Least and largest.
    weight_range: Option<(f64, f64)>,
}

impl SamplerStats {
    /// Counts a token.
    pub fn add(&mut self, old: f32, rollout: f32, max: f64) {
        let difference = f64::from(old) - f64::from(rollout);
        let weight = difference.exp().min(max);
        self.tokens += 1.0;
        self.difference_sum += difference.abs();
        self.difference_max = self.difference_max.max(difference.abs());
        self.weight_sum += weight;
        let (least, largest) = self.weight_range.unwrap_or((weight, weight));
        self.weight_range = Some((least.min(weight), largest.max(weight)));
    }

    /// `sampling/sampling_logp_difference/mean` and `max` (of its magnitude, nats), and
    /// `sampling/importance_sampling_ratio/mean`, `min` and `max` (after the cut). Nothing when nothing was counted.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let Some((least, largest)) = self.weight_range else { return Vec::new() };
        vec![
            ("sampling/sampling_logp_difference/mean", self.difference_sum / self.tokens),
            ("sampling/sampling_logp_difference/max", self.difference_max),
            ("sampling/importance_sampling_ratio/mean", self.weight_sum / self.tokens),
            ("sampling/importance_sampling_ratio/min", least),
            ("sampling/importance_sampling_ratio/max", largest),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_of_the_weights_after_the_cut_and_absent_without_another_sampler() {
        assert!(SamplerStats::default().metrics().is_empty());
        let mut stats = SamplerStats::default();
        for (old, rollout) in [(-1.0, -1.0), (-1.0, -3.0), (-2.5, -2.0)] {
            stats.add(old, rollout, 2.0);
        }
        let metrics = stats.metrics();
        let u = (-0.5f64).exp();
        let wanted = [
            ("sampling/sampling_logp_difference/mean", 2.5 / 3.0),
            ("sampling/sampling_logp_difference/max", 2.0),
            ("sampling/importance_sampling_ratio/mean", (1.0 + 2.0 + u) / 3.0),
            ("sampling/importance_sampling_ratio/min", u),
            ("sampling/importance_sampling_ratio/max", 2.0),
        ];
        assert_eq!(metrics.len(), wanted.len());
        for (got, want) in metrics.into_iter().zip(wanted) {
            assert!(got.0 == want.0 && (got.1 - want.1).abs() < 1e-12, "{got:?} is not {want:?}");
        }
    }
}
