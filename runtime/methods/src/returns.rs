//! Rewards of tokens and what follows from them: penalties by KL, scores at the end, discounted sums.
//!
//! Everything is of one sequence, padded or not: tokens that are masked have neither reward nor return.

use num_traits::Float;

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

/// `-beta · (policy - reference)` of each token: the k1 estimate of its KL, as a penalty.
///
/// Reference: Ouyang et al. 2022, equation 2.
pub fn kl_penalties<F: Float>(tokens: Tokens<'_, F>, beta: F) -> Vec<F> {
    let penalty = |t: usize| if tokens.mask[t] { -beta * (tokens.policy[t] - tokens.reference[t]) } else { F::zero() };
    (0..tokens.mask.len()).map(penalty).collect()
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
    let mut rewards = kl_penalties(tokens, beta);
    if let Some(last) = tokens.mask.iter().rposition(|mask| *mask) {
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
    fn returns_are_sums_of_what_follows() {
        assert_close(&discounted(&[1.0, 2.0, 4.0], &[true; 3], 0.5), &[3.0, 4.0, 4.0]);
        assert_close(&discounted(&[1.0, 9.0, 4.0, 9.0], &[true, false, true, false], 0.5), &[3.0, 0.0, 4.0, 0.0]);
        assert!(discounted::<f64>(&[], &[], 0.5).is_empty());
    }
}
