//! Rewards of tokens and what follows from them: penalties by KL, scores at the end, discounted sums.
//!
//! Everything is of one sequence, padded or not: tokens that are masked have neither reward nor return.

use num_traits::Float;
use plumb_core::recipe::KlEstimator;

use crate::advantage::{mean, variance};
use crate::kl::TokenKl;

/// Log-probabilities of a sequence's tokens under two policies, nats, and which tokens count; all of one length.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a, F> {
    /// Of the policy that is trained.
    pub policy: &'a [F],
    /// Of the reference.
    pub reference: &'a [F],
    /// True on the completion's tokens.
    pub mask: &'a [bool],
}

/// What stands for the KL of each token, nats.
pub fn token_kl<F: Float>(tokens: Tokens<'_, F>, kl: TokenKl) -> Vec<F> {
    let of = |t: usize| if tokens.mask[t] { kl.value(tokens.policy[t], tokens.reference[t]) } else { F::zero() };
    (0..tokens.mask.len()).map(of).collect()
}

/// `-beta · (policy - reference)` of each token: the k1 estimate of its KL, as a penalty.
///
/// Reference: Ouyang et al. 2022, equation 2.
pub fn kl_penalties<F: Float>(tokens: Tokens<'_, F>, beta: F) -> Vec<F> {
    token_penalties(tokens, TokenKl::Estimate(KlEstimator::K1), beta)
}

/// `-beta` times [`token_kl`].
pub fn token_penalties<F: Float>(tokens: Tokens<'_, F>, kl: TokenKl, beta: F) -> Vec<F> {
    token_kl(tokens, kl).into_iter().map(|kl| -beta * kl).collect()
}

/// [`kl_penalties`] with a score of its own for each token.
pub fn kl_penalised_scores<F: Float>(scores: &[F], tokens: Tokens<'_, F>, beta: F) -> Vec<F> {
    let add = |((penalty, score), mask): ((F, &F), &bool)| if *mask { *score + penalty } else { F::zero() };
    kl_penalties(tokens, beta).into_iter().zip(scores).zip(tokens.mask).map(add).collect()
}

/// [`kl_penalties`] with the sequence's score, cut to `-clip ..= clip`, on its last token. A sequence without tokens has no place for it.
///
/// An ensemble's score is cut after its members are combined.
pub fn kl_penalised_final_score<F: Float>(score: F, clip: Option<F>, tokens: Tokens<'_, F>, beta: F) -> Vec<F> {
    let score = clip.map_or(score, |clip| score.max(-clip).min(clip));
    penalised_final_score(score, Place::LastToken, tokens, TokenKl::Estimate(KlEstimator::K1), beta)
}

/// Where the score of a sequence stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// On its last token that counts; nowhere where none does.
    #[default]
    LastToken,
    /// On the last column, padding or not, as some released code has it.
    LastColumn,
}

/// [`token_penalties`] with the sequence's score in its place.
pub fn penalised_final_score<F: Float>(score: F, place: Place, tokens: Tokens<'_, F>, kl: TokenKl, beta: F) -> Vec<F> {
    let mut rewards = token_penalties(tokens, kl, beta);
    let last = match place {
        Place::LastToken => tokens.mask.iter().rposition(|mask| *mask),
        Place::LastColumn => tokens.mask.len().checked_sub(1),
    };
    if let Some(last) = last {
        rewards[last] = rewards[last] + score;
    }
    rewards
}

/// `G_t = r_t + gamma · G_t+1` over the tokens that count; the others have 0 and are no step of the discount.
pub fn discounted<F: Float>(rewards: &[F], mask: &[bool], gamma: F) -> Vec<F> {
    let mut returns = vec![F::zero(); rewards.len()];
    let mut following = F::zero();
    for t in (0..rewards.len()).rev().filter(|&t| mask[t]) {
        following = rewards[t] + gamma * following;
        returns[t] = following;
    }
    returns
}

/// Advantages and returns of a sequence's tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gae<F> {
    /// `A_t = Σ_l (gamma lambda)^l δ_t+l` with `δ_t = r_t + gamma V_t+1 - V_t`.
    pub advantages: Vec<F>,
    /// `A_t + V_t`: what a critic learns.
    pub returns: Vec<F>,
}

/// Generalized advantage estimation over the tokens that count; the others have 0 and are no step. The value after the last one is 0: responses are
/// whole.
///
/// Reference: Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", equation 16.
pub fn gae<F: Float>(rewards: &[F], values: &[F], mask: &[bool], gamma: F, lambda: F) -> Gae<F> {
    let mut gae = Gae { advantages: vec![F::zero(); rewards.len()], returns: vec![F::zero(); rewards.len()] };
    let (mut value, mut advantage) = (F::zero(), F::zero());
    for t in (0..rewards.len()).rev().filter(|&t| mask[t]) {
        let delta = rewards[t] + gamma * value - values[t];
        advantage = delta + gamma * lambda * advantage;
        value = values[t];
        gae.advantages[t] = advantage;
        gae.returns[t] = advantage + value;
    }
    gae
}

/// What centred values are divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divisor<F> {
    /// `√(variance + epsilon)`.
    Deviation(F),
    /// `√(deviation + epsilon)`, as some released code has it.
    RootOfDeviation(F),
    /// `deviation + epsilon`.
    DeviationPlus(F),
}

/// Values by the mean and the population deviation of those that count, over the whole batch; the others are 0.
///
/// `shift_mean` false adds the mean back.
pub fn whiten<F: Float>(values: &[F], mask: &[bool], shift_mean: bool, divisor: Divisor<F>, ddof: usize) -> Vec<F> {
    let seen: Vec<F> = values.iter().zip(mask).filter(|(_, seen)| **seen).map(|(value, _)| *value).collect();
    let (center, variance) = (mean(&seen), variance(&seen, ddof));
    let divisor = match divisor {
        Divisor::Deviation(epsilon) => (variance + epsilon).sqrt(),
        Divisor::RootOfDeviation(epsilon) => (variance.sqrt() + epsilon).sqrt(),
        Divisor::DeviationPlus(epsilon) => variance.sqrt() + epsilon,
    };
    let back = if shift_mean { F::zero() } else { center };
    let whitened = |(value, seen): (&F, &bool)| if *seen { (*value - center) / divisor + back } else { F::zero() };
    values.iter().zip(mask).map(whitened).collect()
}

/// What happens to a batch's rewards before advantages are made of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RewardScale<F> {
    /// They are divided by their deviation and keep their mean.
    Whitened,
    /// They are multiplied by this.
    Times(F),
}

/// Advantages of a batch of rows whose every position counts, padding too, as some released code has it: [`gae`] of the scaled rewards, the advantages
/// whitened over the batch after the returns are made.
///
/// `divisor` and `ddof` are those of [`whiten`], of the rewards as well.
///
/// Reference: the trainer released with Sun et al. 2023, "Aligning Large Multimodal Models with Factually Augmented RLHF".
pub fn full_width_gae<F: Float>(
    rewards: &[Vec<F>],
    values: &[Vec<F>],
    [gamma, lambda]: [F; 2],
    scale: RewardScale<F>,
    divisor: Divisor<F>,
    ddof: usize,
) -> Vec<Gae<F>> {
    let whole = |rows: &[Vec<F>], shift_mean| {
        let flat = rows.concat();
        whiten(&flat, &vec![true; flat.len()], shift_mean, divisor, ddof)
    };
    let scaled = match scale {
        RewardScale::Whitened => whole(rewards, false),
        RewardScale::Times(factor) => rewards.iter().flatten().map(|&reward| reward * factor).collect(),
    };
    let mut rest = scaled.as_slice();
    let mut rows: Vec<Gae<F>> = values
        .iter()
        .map(|values| {
            let (row, others) = rest.split_at(values.len());
            rest = others;
            gae(row, values, &vec![true; row.len()], gamma, lambda)
        })
        .collect();
    let advantages: Vec<Vec<F>> = rows.iter().map(|row| row.advantages.clone()).collect();
    let mut whitened = whole(&advantages, true).into_iter();
    rows.iter_mut().flat_map(|row| &mut row.advantages).for_each(|advantage| *advantage = whitened.next().unwrap_or(F::zero()));
    rows
}

/// Mean and deviation of all rewards so far, by which the next ones are scaled; part of a checkpoint.
///
/// Batches are merged by their counts, means and sums of squares (Chan et al. 1979).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunningStats {
    /// Mean; 0 at first.
    pub mean: f64,
    /// Population variance; 1 at first.
    pub variance: f64,
    /// Rewards so far, a little more than 0 at first.
    pub count: f64,
}

impl Default for RunningStats {
    fn default() -> Self {
        RunningStats { mean: 0.0, variance: 1.0, count: 1e-24 }
    }
}

impl RunningStats {
    /// Takes in a batch; an empty one changes nothing.
    pub fn update(&mut self, batch: &[f64]) {
        if batch.is_empty() {
            return;
        }
        let (own, of_batch) = (mean(batch), batch.len() as f64);
        let (delta, total) = (own - self.mean, self.count + of_batch);
        let squares = self.variance * self.count + variance(batch, 0) * of_batch + delta * delta * self.count * of_batch / total;
        *self = RunningStats { mean: self.mean + delta * of_batch / total, variance: squares / total, count: total };
    }

    /// Deviation with count / (count - 1); 1 up to a count of 1.
    pub fn std(&self) -> f64 {
        if self.count <= 1.0 { 1.0 } else { (self.variance * self.count / (self.count - 1.0)).sqrt() }
    }

    /// Rewards by the statistics: less the mean where `normalize`, then over the deviation (over 1 where that is below 1e-8), then cut.
    ///
    /// Reference: Zheng et al. 2023, "Secrets of RLHF Part I: PPO", section 5.3.1.
    pub fn scaled(&self, rewards: &[f64], normalize: bool, clip: Option<f64>) -> Vec<f64> {
        let (center, std) = (if normalize { self.mean } else { 0.0 }, self.std());
        let divisor = if std < 1e-8 { 1.0 } else { std };
        let cut = |reward: f64| clip.map_or(reward, |clip| reward.clamp(-clip, clip));
        rewards.iter().map(|reward| cut((reward - center) / divisor)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    const TOKENS: Tokens<'static, f64> = Tokens {
        policy: &[-1.0, -2.0, -1.5, f64::NEG_INFINITY],
        reference: &[-1.5, -1.0, -1.5, f64::NEG_INFINITY],
        mask: &[true, true, true, false],
    };

    #[test]
    fn score_is_cut_and_stands_on_the_last_token_that_counts() {
        assert_close(&kl_penalised_final_score(25.0, Some(10.0), TOKENS, 0.5), &[-0.25, 0.5, 10.0, 0.0]);
        assert_close(&kl_penalised_final_score(-25.0, Some(10.0), TOKENS, 0.0), &[0.0, 0.0, -10.0, 0.0]);
        assert_close(&kl_penalised_final_score(25.0, None, TOKENS, 0.0), &[0.0, 0.0, 25.0, 0.0]);
    }

    #[test]
    fn masked_tokens_have_no_reward_whatever_their_log_probabilities() {
        assert_close(&kl_penalised_scores(&[1.0, 1.0, 1.0, f64::NAN], TOKENS, 0.5), &[0.75, 1.5, 1.0, 0.0]);
        let none = Tokens { mask: &[false; 4], ..TOKENS };
        assert_close(&kl_penalised_final_score(3.0, None, none, 0.5), &[0.0; 4]);
    }

    #[test]
    fn last_column_has_the_score_of_a_sequence_that_is_all_padding_too() {
        let of = |mask: &'static [bool; 4], place| {
            penalised_final_score(3.0, place, Tokens { mask, ..TOKENS }, TokenKl::PositiveK1, 0.5)
        };
        assert_close(&of(&[true, true, true, false], Place::LastColumn), &[-0.25, 0.0, 0.0, 3.0]);
        assert_close(&of(&[true, true, true, false], Place::LastToken), &[-0.25, 0.0, 3.0, 0.0]);
        assert_close(&of(&[false; 4], Place::LastColumn), &[0.0, 0.0, 0.0, 3.0]);
        assert_close(&of(&[false; 4], Place::LastToken), &[0.0; 4]);
        let empty = Tokens { policy: &[], reference: &[], mask: &[] };
        assert!(penalised_final_score(3.0f64, Place::LastColumn, empty, TokenKl::PositiveK1, 0.5).is_empty());
    }

    #[test]
    fn returns_are_sums_of_what_follows() {
        assert_close(&discounted(&[1.0, 2.0, 4.0], &[true; 3], 0.5), &[3.0, 4.0, 4.0]);
        assert_close(&discounted(&[1.0, 9.0, 4.0, 9.0], &[true, false, true, false], 0.5), &[3.0, 0.0, 4.0, 0.0]);
        assert!(discounted::<f64>(&[], &[], 0.5).is_empty());
    }

    #[test]
    fn advantages_with_lambda_one_are_returns_less_values() {
        let (rewards, values, mask) = ([1.0, 2.0, 9.0, 4.0], [0.5, 1.0, 7.0, -1.0], [true, true, false, true]);
        let all = gae(&rewards, &values, &mask, 0.5, 1.0);
        assert_close(&all.returns, &discounted(&rewards, &mask, 0.5));
        assert_close(&all.advantages, &[2.5, 3.0, 0.0, 5.0]);
        // With lambda 0 each is one step's surprise.
        assert_close(&gae(&rewards, &values, &mask, 0.5, 0.0).advantages, &[1.0, 0.5, 0.0, 5.0]);
        assert_eq!(gae::<f64>(&[3.0], &[1.0], &[false], 1.0, 1.0), Gae { advantages: vec![0.0], returns: vec![0.0] });
    }

    #[test]
    fn whitened_values_have_mean_0_and_deviation_1_where_they_count() {
        let got = whiten(&[1.0, 3.0, 99.0], &[true, true, false], true, Divisor::Deviation(0.0), 0);
        assert_close(&got, &[-1.0, 1.0, 0.0]);
        assert_close(&whiten(&[1.0, 3.0], &[true, true], false, Divisor::Deviation(0.0), 0), &[1.0, 3.0]);
        assert_close(&whiten(&[2.0, 2.0, 5.0], &[true, true, false], true, Divisor::Deviation(1e-6), 0), &[0.0; 3]);
        assert_close(&whiten(&[0.0, 8.0], &[true, true], true, Divisor::RootOfDeviation(0.0), 0), &[-2.0, 2.0]);
        assert_close(&whiten(&[0.0, 8.0], &[true, true], true, Divisor::DeviationPlus(1.0), 0), &[-0.8, 0.8]);
        assert_close(&whiten(&[5.0], &[true], true, Divisor::DeviationPlus(1e-8), 1), &[0.0]);
    }

    #[test]
    fn advantages_of_a_batch_are_whitened_together_and_returns_are_not() {
        let of = |rewards: &[Vec<f64>], values: &[Vec<f64>], scale| {
            full_width_gae(rewards, values, [1.0, 1.0], scale, Divisor::DeviationPlus(0.0), 0)
        };
        // Returns 40 and 20, then 20; advantages 30, 10 and 20, of mean 20 and variance 200/3.
        let got = of(&[vec![2.0, 2.0], vec![2.0]], &[vec![10.0, 10.0], vec![0.0]], RewardScale::Times(10.0));
        let s = 1.5f64.sqrt();
        assert_close(&got[0].returns, &[40.0, 20.0]);
        assert_close(&[got[0].advantages[0], got[0].advantages[1], got[1].advantages[0]], &[s, -s, 0.0]);
        // Mean 2 and deviation 1 are whitened to 1 and 3, the mean kept.
        let whitened = of(&[vec![1.0], vec![3.0]], &[vec![0.0], vec![0.0]], RewardScale::Whitened);
        assert_close(&[whitened[0].returns[0], whitened[1].returns[0]], &[1.0, 3.0]);
        let equal =
            full_width_gae(&[vec![1.0]], &[vec![0.0]], [1.0, 1.0], RewardScale::Whitened, Divisor::DeviationPlus(1e-8), 0);
        assert_eq!(equal[0], Gae { advantages: vec![0.0], returns: vec![1.0] });
        assert!(full_width_gae::<f64>(&[], &[], [1.0, 1.0], RewardScale::Whitened, Divisor::DeviationPlus(1e-8), 0).is_empty());
    }

    #[test]
    fn running_statistics_are_those_of_all_batches_together() {
        let mut stats = RunningStats::default();
        assert_eq!(stats.std(), 1.0);
        stats.update(&[5.0]);
        assert_eq!((stats.mean, stats.std()), (5.0, 1.0));
        stats.update(&[]);
        stats.update(&[1.0, 3.0]);
        assert_close(&[stats.mean, stats.std()], &[3.0, 2.0]);
        assert_eq!(stats.scaled(&[9.0, 1.0], true, Some(2.0)), [2.0, -1.0]);
        let mut equal = RunningStats::default();
        equal.update(&[4.0, 4.0]);
        assert_eq!(equal.scaled(&[4.0], false, None), [4.0]);
    }
}
