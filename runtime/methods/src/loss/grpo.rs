//! Group-relative policy optimization (Shao et al. 2024) and its normalizations: DAPO (Yu et al. 2025), Dr. GRPO (Liu et al.
//! 2025), BNPO. Formulas as in TRL 1.16.

use candle_core::Tensor;
use num_traits::Float;
use plumb_core::recipe::{Grpo, ImportanceSamplingLevel, KlEstimator, LossType};

use super::dpo::PairStats;
use super::importance::{self, SamplerStats};
use super::means::Means;
use super::reward::RewardStats;
use crate::kl;

/// The clipped objective's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// 1 - epsilon.
    pub low: f64,
    /// 1 + epsilon_high; where ratios are constant, epsilon_high.
    pub high: f64,
    /// What a ratio is of.
    pub level: ImportanceSamplingLevel,
    /// Whether ratios are constant weights, cut at `high` (CISPO).
    pub constant: bool,
    /// Weight of the KL term.
    pub beta: f64,
    /// Estimator of the KL.
    pub kl_estimator: KlEstimator,
    /// Most that a token counts for having been sampled by another policy: see [`importance`].
    pub importance_max: f64,
}

impl From<&Grpo> for Clip {
    fn from(grpo: &Grpo) -> Self {
        let (constant, high) = (grpo.loss_type == LossType::Cispo, grpo.epsilon_high.unwrap_or(grpo.epsilon));
        Clip {
            low: 1.0 - grpo.epsilon,
            high: if constant { high } else { 1.0 + high },
            level: grpo.importance_sampling_level,
            constant,
            beta: grpo.beta,
            kl_estimator: grpo.kl_estimator,
            importance_max: grpo.importance_sampling_clip_max,
        }
    }
}

/// What the loss reads besides the policy's log-probabilities; all `[M]`, of one dtype, without gradient.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Log-probabilities at sampling time, nats. None: the policy's own, detached, so that every ratio is 1 and the gradient is
    /// that of the plain policy gradient.
    pub old_logprobs: Option<Tensor>,
    /// The reference's, nats. Needed when beta is not 0.
    pub ref_logprobs: Option<Tensor>,
    /// The sampler's, nats, where it was another policy than the old one. None: it was the same.
    pub rollout_logprobs: Option<Tensor>,
    /// Advantage of each token's completion (or of the token).
    pub advantages: Tensor,
    /// Weight of each token in the sum: see [`token_weight`]. 0 masks it.
    pub weights: Tensor,
    /// Tokens of each completion, for ratios of sequences; may be empty for others.
    pub lengths: Vec<usize>,
}

/// Clipped policy loss with a KL penalty, a weighted sum over tokens.
///
/// `ratio = exp(logprob - old)`, `loss = Σ weight · (-u · min(ratio · A, clamp(ratio, low, high) · A) + beta · KL(logprob, ref))`.
///
/// Ratios of sequences are `exp(mean (logprob - old))` over a completion's tokens. Constant ones give
/// `-u · min(ratio, high) · A · logprob` instead, with a gradient through the log-probability alone.
///
/// `u` is 1, or [`importance::weights`] of the old policy over the sampler where they differ.
///
/// # Shapes
/// - `logprobs`: `[M]`, nats; the only input with a gradient.
/// - returns a `[]` scalar.
///
/// # Panics
/// When beta is not 0 and there are no reference log-probabilities.
///
/// Reference: Shao et al. 2024, equation 3; separate bounds: Yu et al. 2025, equation 10; sequences: Zheng et al. 2025 (GSPO), equation 5;
/// constant ratios: MiniMax 2025 (CISPO), equation 4.
pub fn grpo(logprobs: &Tensor, terms: &Terms, clip: &Clip) -> candle_core::Result<Tensor> {
    let old = terms.old_logprobs.clone().unwrap_or_else(|| logprobs.detach());
    let log_ratio = match clip.level {
        ImportanceSamplingLevel::Token => (logprobs - &old)?,
        ImportanceSamplingLevel::Sequence => sequence_means(&(logprobs - &old)?, &terms.lengths)?,
    };
    let ratio = log_ratio.exp()?;
    let objective = if clip.constant {
        ((ratio.detach().minimum(clip.high)? * &terms.advantages)? * logprobs)?
    } else {
        let clipped = ratio.clamp(clip.low, clip.high)?;
        (ratio * &terms.advantages)?.minimum(&(clipped * &terms.advantages)?)?
    };
    let mut loss = objective.neg()?;
    if let Some(rollout) = &terms.rollout_logprobs {
        loss = (loss * importance::weights(&old, rollout, clip.importance_max)?)?;
    }
    if clip.beta != 0.0 {
        let reference = terms.ref_logprobs.as_ref().expect("a KL term needs the reference's log-probabilities");
        loss = (loss + (kl::estimate_tensor(clip.kl_estimator, logprobs, reference)? * clip.beta)?)?;
    }
    (loss * &terms.weights)?.sum_all()
}

/// The mean of each sequence's values, for each of its tokens, `[M]`.
fn sequence_means(values: &Tensor, lengths: &[usize]) -> candle_core::Result<Tensor> {
    let owners = lengths.iter().enumerate().flat_map(|(sequence, &tokens)| std::iter::repeat_n(sequence as u32, tokens));
    let owners = Tensor::from_iter(owners, values.device())?;
    let shares = lengths.iter().flat_map(|&tokens| std::iter::repeat_n(1.0 / tokens as f64, tokens));
    let shares = Tensor::from_iter(shares, values.device())?.to_dtype(values.dtype())?;
    let means = Tensor::zeros(lengths.len(), values.dtype(), values.device())?.index_add(&owners, &(values * shares)?, 0)?;
    means.index_select(&owners, 0)
}

/// What the normalizers count. Rows that left the step (dropped by a filter or without a reward) are in none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Completions of the whole step, masked ones included.
    pub sequences: usize,
    /// Completion tokens of the whole step, masked ones included: TRL's `num_items_in_batch`.
    pub tokens: usize,
    /// Unmasked completion tokens of the row's part of the step.
    pub part_tokens: usize,
    /// Parts of the step (`gradient_accumulation_steps`).
    pub parts: usize,
}

/// Weight of each token of a completion of `tokens` tokens.
///
/// - `grpo`: 1 / (tokens · sequences)
/// - `dr_grpo`: 1 / (sequences · max_completion_length)
/// - `dapo`, `cispo`: 1 / tokens of the step
/// - `bnpo`: 1 / (unmasked tokens of the part · parts), TRL's local batch being a part here
pub fn token_weight(loss_type: LossType, tokens: usize, max_completion_length: usize, totals: Totals) -> f64 {
    let divisor = match loss_type {
        LossType::Grpo => tokens.max(1) * totals.sequences,
        LossType::DrGrpo => totals.sequences * max_completion_length,
        LossType::Dapo | LossType::Cispo => totals.tokens,
        LossType::Bnpo => totals.part_tokens.max(1) * totals.parts,
    };
    1.0 / divisor.max(1) as f64
}

/// Sums over unmasked tokens behind the metrics `kl`, `entropy` and `clip_ratio/*`, and over pairs; micro-batches add up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenStats {
    /// Unmasked tokens.
    pub tokens: f64,
    /// Of their KL estimates, nats.
    pub kl: f64,
    /// Of their entropies, nats.
    pub entropy: f64,
    /// Tokens below the lower bound with a negative advantage.
    pub clipped_low: f64,
    /// Tokens above the upper bound with a positive advantage.
    pub clipped_high: f64,
    /// Of the sampler, where it was another policy.
    pub sampler: SamplerStats,
    /// Of pairs, where the loss is over them.
    pub pairs: PairStats,
    /// Of rewards, where the loss is over those of pairs.
    pub rewards: RewardStats,
    /// Of what the loss alone knows.
    pub means: Means,
}

impl TokenStats {
    /// Counts tokens of which only the entropy is of interest.
    pub fn add_entropies(&mut self, entropies: &[f32]) {
        self.tokens += entropies.len() as f64;
        self.entropy += entropies.iter().map(|&entropy| f64::from(entropy)).sum::<f64>();
    }

    /// Counts one unmasked token. `old` and `reference` are None where the loss has none.
    pub fn add<F: Float>(&mut self, clip: &Clip, logprob: F, old: Option<F>, reference: Option<F>, advantage: F, entropy: F) {
        let number = |x: F| x.to_f64().unwrap_or(f64::NAN);
        self.tokens += 1.0;
        self.entropy += number(entropy);
        if let Some(reference) = reference {
            self.kl += number(kl::estimate(clip.kl_estimator, logprob, reference));
        }
        let ratio = old.map_or(1.0, |old| number((logprob - old).exp()));
        self.clipped_low += f64::from(u8::from(ratio < clip.low && advantage < F::zero()));
        self.clipped_high += f64::from(u8::from(ratio > clip.high && advantage > F::zero()));
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::differentiate;
    use super::*;

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    const CLIP: Clip = Clip {
        low: 0.8,
        high: 1.28,
        level: ImportanceSamplingLevel::Token,
        constant: false,
        beta: 0.1,
        kl_estimator: KlEstimator::K3,
        importance_max: 2.0,
    };
    const LOGPROBS: [f64; 5] = [-1.0, -0.5, -2.0, -0.2, -1.5];

    fn terms() -> Terms {
        // Ratios: 1, e^0.5 (clipped when A > 0), e^-0.5 (clipped when A < 0), e^0.1, e^-0.3 (below the bound, but A > 0: kept).
        Terms {
            old_logprobs: Some(tensor(&[-1.0, -1.0, -1.5, -0.3, -1.2])),
            ref_logprobs: Some(tensor(&[-1.1, -0.4, -2.5, -0.2, -1.0])),
            rollout_logprobs: None,
            advantages: tensor(&[1.0, 2.0, -1.0, -0.5, 0.7]),
            weights: tensor(&[0.2, 0.1, 0.3, 0.0, 0.25]),
            lengths: vec![2, 3],
        }
    }

    #[test]
    fn grpo_loss_matches_a_case_by_hand() {
        let terms = terms();
        let (loss, gradient) = differentiate(&LOGPROBS, |l| grpo(l, &terms, &CLIP)).unwrap();
        let k3 = |d: f64| d.exp() - d - 1.0;
        let want = 0.2 * (-1.0 + 0.1 * k3(-0.1))
            + 0.1 * (-1.28 * 2.0 + 0.1 * k3(0.1))
            + 0.3 * (0.8 + 0.1 * k3(-0.5))
            + 0.25 * (-0.7 * (-0.3f64).exp() + 0.1 * k3(0.5));
        assert!((loss - want).abs() < 1e-14, "{loss} is not {want}");
        // Of the clipped tokens only the KL term has a gradient: d k3 / d logprob = 1 - exp(d).
        assert!((gradient[1] - 0.1 * 0.1 * (1.0 - 0.1f64.exp())).abs() < 1e-14);
        assert!((gradient[2] - 0.3 * 0.1 * (1.0 - (-0.5f64).exp())).abs() < 1e-14);
    }

    #[test]
    fn masked_token_has_neither_loss_nor_gradient() {
        let mut other = LOGPROBS;
        other[3] = -9.0;
        let terms = terms();
        let (a, gradient) = differentiate(&LOGPROBS, |l| grpo(l, &terms, &CLIP)).unwrap();
        let (b, _) = differentiate(&other, |l| grpo(l, &terms, &CLIP)).unwrap();
        assert_eq!(a, b);
        assert_eq!(gradient[3], 0.0);
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        for kl_estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
            let (clip, terms, h) = (Clip { kl_estimator, ..CLIP }, terms(), 1e-6);
            let value = |l: &[f64]| differentiate(l, |l| grpo(l, &terms, &clip)).unwrap();
            let (_, gradient) = value(&LOGPROBS);
            for i in 0..LOGPROBS.len() {
                let (mut up, mut down) = (LOGPROBS, LOGPROBS);
                up[i] += h;
                down[i] -= h;
                let numeric = (value(&up).0 - value(&down).0) / (2.0 * h);
                assert!((gradient[i] - numeric).abs() < 1e-8, "{kl_estimator:?}, token {i}: {} is not {numeric}", gradient[i]);
            }
        }
    }

    #[test]
    fn ratio_of_a_sequence_is_the_geometric_mean_of_its_tokens() {
        let clip = Clip { level: ImportanceSamplingLevel::Sequence, high: 1.4, beta: 0.0, ..CLIP };
        let terms = terms();
        let (loss, gradient) = differentiate(&LOGPROBS, |l| grpo(l, &terms, &clip)).unwrap();
        // Mean log-ratios: (0 + 0.5) / 2, within the bounds; (-0.5 + 0.1 - 0.3) / 3 = -0.233, below the lower one.
        let (first, second) = (0.25f64.exp(), (-0.7f64 / 3.0).exp());
        let want = -0.2 * first - 0.1 * 2.0 * first + 0.3 * 0.8 - 0.25 * 0.7 * second;
        assert!((loss - want).abs() < 1e-14, "{loss} is not {want}");
        let value = |l: &[f64]| differentiate(l, |l| grpo(l, &terms, &clip)).unwrap().0;
        for i in 0..LOGPROBS.len() {
            let (mut up, mut down) = (LOGPROBS, LOGPROBS);
            up[i] += 1e-6;
            down[i] -= 1e-6;
            let numeric = (value(&up) - value(&down)) / 2e-6;
            assert!((gradient[i] - numeric).abs() < 1e-8, "token {i}: {} is not {numeric}", gradient[i]);
        }
    }

    #[test]
    fn constant_ratios_are_cut_and_every_token_keeps_its_gradient() {
        let clip = Clip { constant: true, high: 1.2, beta: 0.0, ..CLIP };
        let terms = terms();
        let (_, gradient) = differentiate(&LOGPROBS, |l| grpo(l, &terms, &clip)).unwrap();
        let want = [-0.2, -0.1 * 1.2 * 2.0, 0.3 * (-0.5f64).exp(), 0.0, -0.25 * (-0.3f64).exp() * 0.7];
        for (got, want) in gradient.iter().zip(want) {
            assert!((got - want).abs() < 1e-14, "{gradient:?}");
        }
    }

    #[test]
    fn without_old_logprobs_the_gradient_is_the_plain_policy_gradient() {
        let terms = Terms { old_logprobs: None, ..terms() };
        let (loss, gradient) = differentiate(&LOGPROBS, |l| grpo(l, &terms, &Clip { beta: 0.0, ..CLIP })).unwrap();
        let want = [-0.2, -0.2, 0.3, 0.0, -0.175];
        assert!((loss - want.iter().sum::<f64>()).abs() < 1e-14);
        for (got, want) in gradient.iter().zip(want) {
            assert!((got - want).abs() < 1e-14, "{gradient:?}");
        }
    }

    #[test]
    fn another_sampler_weighs_the_policy_term_of_each_token_and_leaves_the_kl_alone() {
        let plain = terms();
        // exp(old - rollout): e^0.5, e^1.5 (cut at 2), e^-1, 1, e^0.1.
        let terms = Terms { rollout_logprobs: Some(tensor(&[-1.5, -2.5, -0.5, -0.3, -1.3])), ..terms() };
        let clip = Clip { beta: 0.0, ..CLIP };
        let u = [0.5f64.exp(), 2.0, (-1.0f64).exp(), 1.0, 0.1f64.exp()];
        let value = |terms: &Terms, clip: &Clip| differentiate(&LOGPROBS, |l| grpo(l, terms, clip)).unwrap();
        let ((_, without), (_, with)) = (value(&plain, &clip), value(&terms, &clip));
        for i in 0..5 {
            assert!((with[i] - u[i] * without[i]).abs() < 1e-14, "the weight of token {i} is a constant: {with:?} {without:?}");
        }
        let kl_terms = |terms: &Terms| {
            let ((all, _), (policy, _)) = (value(terms, &CLIP), value(terms, &clip));
            all - policy
        };
        assert!((kl_terms(&terms) - kl_terms(&plain)).abs() < 1e-14);
        let want = -0.2 * u[0] - 0.1 * 1.28 * 2.0 * u[1] + 0.3 * 0.8 * u[2] - 0.25 * 0.7 * (-0.3f64).exp() * u[4];
        let (loss, _) = value(&terms, &clip);
        assert!((loss - want).abs() < 1e-14, "{loss} is not {want}");
    }

    #[test]
    fn without_old_logprobs_another_sampler_is_held_against_the_policy_as_it_is() {
        let rollout_logprobs = Some(tensor(&[-1.2, -0.5, -1.0, -0.2, -4.0]));
        let terms = Terms { old_logprobs: None, rollout_logprobs, ..terms() };
        let (_, gradient) = differentiate(&LOGPROBS, |l| grpo(l, &terms, &Clip { beta: 0.0, ..CLIP })).unwrap();
        let want = [-0.2 * 0.2f64.exp(), -0.2, 0.3 * (-1.0f64).exp(), 0.0, -0.175 * 2.0];
        for (got, want) in gradient.iter().zip(want) {
            assert!((got - want).abs() < 1e-14, "{gradient:?}");
        }
    }

    #[test]
    fn float32_and_float64_run_the_same_graph() {
        let wide = terms();
        let narrow = |t: &Tensor| t.to_dtype(candle_core::DType::F32).unwrap();
        let terms = Terms {
            old_logprobs: wide.old_logprobs.as_ref().map(narrow),
            ref_logprobs: wide.ref_logprobs.as_ref().map(narrow),
            rollout_logprobs: wide.rollout_logprobs.as_ref().map(narrow),
            advantages: narrow(&wide.advantages),
            weights: narrow(&wide.weights),
            lengths: wide.lengths.clone(),
        };
        let (a, _) = differentiate(&LOGPROBS, |l| grpo(l, &wide, &CLIP)).unwrap();
        let (b, _) = differentiate(&LOGPROBS.map(|x| x as f32), |l| grpo(l, &terms, &CLIP)).unwrap();
        assert!((a - b).abs() < 1e-6);
    }

    #[test]
    fn token_weights_follow_the_normalizers() {
        // Two completions of 2 and 6 tokens in one of two parts; 12 tokens and 3 completions in the step.
        let totals = Totals { sequences: 3, tokens: 12, part_tokens: 8, parts: 2 };
        let weight = |kind, tokens| token_weight(kind, tokens, 10, totals);
        assert_eq!(weight(LossType::Grpo, 2), 1.0 / 6.0);
        assert_eq!(weight(LossType::Grpo, 6), 1.0 / 18.0);
        assert_eq!(weight(LossType::DrGrpo, 2), 1.0 / 30.0);
        assert_eq!(weight(LossType::Dapo, 2), 1.0 / 12.0);
        assert_eq!(weight(LossType::Bnpo, 2), 1.0 / 16.0);
    }

    #[test]
    fn stats_count_a_clip_only_where_it_cuts_the_gradient() {
        let mut stats = TokenStats::default();
        let terms = terms();
        let vector = |t: &Tensor| t.to_vec1::<f64>().unwrap();
        let (old, advantages) = (vector(terms.old_logprobs.as_ref().unwrap()), vector(&terms.advantages));
        for i in 0..5 {
            stats.add(&CLIP, LOGPROBS[i], Some(old[i]), None, advantages[i], 0.5);
        }
        assert_eq!(
            stats,
            TokenStats { tokens: 5.0, kl: 0.0, entropy: 2.5, clipped_low: 1.0, clipped_high: 1.0, ..TokenStats::default() }
        );
    }
}
