//! Rewards that a policy implies by its distance from a reference: `beta (ln π - ln ref)` (Rafailov et al. 2023, equation 5, without the
//! prompt's constant).

/// How a sequence's reward is made of its tokens'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum.
    #[default]
    Sum,
    /// Their mean over the unmasked ones.
    Mean,
}

/// `beta (policy - reference)` of log-probabilities of tokens or sequences, nats.
///
/// # Panics
/// When the lists have different lengths.
pub fn rewards(policy: &[f64], reference: &[f64], beta: f64) -> Vec<f64> {
    assert_eq!(policy.len(), reference.len(), "each log-probability needs a reference");
    policy.iter().zip(reference).map(|(policy, reference)| beta * (policy - reference)).collect()
}

/// Rewards of one answer's tokens, 0 where `mask` is, and of the answer; one without tokens has 0.
///
/// # Panics
/// When the lists have different lengths.
pub fn token_rewards(policy: &[f64], reference: &[f64], mask: &[f64], beta: f64, reduction: Reduction) -> (Vec<f64>, f64) {
    assert_eq!(policy.len(), mask.len(), "each token needs a mask");
    let all = rewards(policy, reference, beta);
    let tokens: Vec<f64> = all.iter().zip(mask).map(|(reward, mask)| if *mask > 0.0 { *reward } else { 0.0 }).collect();
    let sum: f64 = tokens.iter().sum();
    let count = mask.iter().filter(|mask| **mask > 0.0).count();
    let divisor = if reduction == Reduction::Mean { count.max(1) as f64 } else { 1.0 };
    (tokens, sum / divisor)
}

/// Rewards of a response's tokens by what the same model thinks of them when it is asked for a better and for a worse version:
/// `σ(better - worse) - 1/2`, within ±1/2; 0 where `mask` is (Zhou et al. 2024, "T-REG").
///
/// # Panics
/// When the lists have different lengths.
pub fn contrastive_token_rewards(better: &[f64], worse: &[f64], mask: &[f64]) -> Vec<f64> {
    assert!(better.len() == worse.len() && better.len() == mask.len(), "each token needs both log-probabilities and a mask");
    let reward = |i: usize| if mask[i] > 0.0 { crate::stats::sigmoid(better[i] - worse[i]) - 0.5 } else { 0.0 };
    (0..better.len()).map(reward).collect()
}

/// How far training moved both answers of pairs from the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Displacement {
    /// Mean log-ratio of the chosen answers, nats; below 0 they are less likely than they were.
    pub chosen: f64,
    /// Mean log-ratio of the rejected answers, nats.
    pub rejected: f64,
}

/// Displacement of sequence log-probabilities `[policy, reference]` of chosen and rejected answers; 0 without any.
///
/// # Panics
/// When lists of one side have different lengths.
pub fn displacement(chosen: [&[f64]; 2], rejected: [&[f64]; 2]) -> Displacement {
    let of = |[policy, reference]: [&[f64]; 2]| crate::advantage::mean(&rewards(policy, reference, 1.0));
    Displacement { chosen: of(chosen), rejected: of(rejected) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn masked_tokens_have_no_reward_whatever_they_hold() {
        let (policy, reference, mask) = ([-1.0, -2.0, f64::NAN], [-1.5, -1.0, 0.0], [1.0, 1.0, 0.0]);
        let (tokens, sum) = token_rewards(&policy, &reference, &mask, 0.1, Reduction::Sum);
        assert_close(&tokens, &[0.05, -0.1, 0.0]);
        assert_close(&[sum, token_rewards(&policy, &reference, &mask, 0.1, Reduction::Mean).1], &[-0.05, -0.025]);
        assert_eq!(token_rewards(&policy, &reference, &[0.0; 3], 0.1, Reduction::Mean).1, 0.0);
    }

    #[test]
    fn displacement_is_the_mean_log_ratio() {
        let got = displacement([&[-11.0, -9.0], &[-10.0, -9.5]], [&[], &[]]);
        assert_eq!(got, Displacement { chosen: -0.25, rejected: 0.0 });
    }

    #[test]
    fn contrastive_rewards_are_centred_and_bounded() {
        let rewards = contrastive_token_rewards(&[-1.0, 0.0, -900.0, -3.0], &[-1.0, -900.0, 0.0, -1.0], &[1.0, 1.0, 1.0, 0.0]);
        assert_close(&rewards, &[0.0, 0.5, -0.5, 0.0]);
    }
}
