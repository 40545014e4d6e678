//! Ranking losses of reward models beyond [`bradley_terry`](super::reward::bradley_terry), and penalties that keep scores in bounds.

use candle_core::Tensor;

use super::log_sigmoid;
use crate::rectify::{clamp, positive_part};

/// `r / ln(tokens + 1)` of each answer: rewards per order of length. An answer without tokens counts as one token.
///
/// Reference: Zhang et al. 2025 ("BaseReward"), the length normalisation that was compared.
pub fn length_normalised(rewards: &Tensor, tokens: &[usize]) -> candle_core::Result<Tensor> {
    let logs = tokens.iter().map(|tokens| ((*tokens).max(1) as f64).ln_1p());
    let logs = Tensor::from_iter(logs.collect::<Vec<f64>>(), rewards.device())?;
    rewards / logs.to_dtype(rewards.dtype())?
}

/// `-(1 - 2 · max(σ(z) - 1/2, 0))² · ln σ(z)` of each pair, `z = chosen - rejected`, `[P]`: pairs that are ranked well count less.
///
/// # Shapes
/// - `chosen`, `rejected`: `[P]`. Gradient flows to both, through the factor too.
///
/// Reference: Cai et al. 2024 ("InternLM2"), the focal ranking loss.
pub fn focal_ranking(chosen: &Tensor, rejected: &Tensor) -> candle_core::Result<Tensor> {
    let ln_sigmoid = log_sigmoid(&(chosen - rejected)?)?;
    let ease = positive_part(&(ln_sigmoid.exp()? - 0.5)?)?;
    let factor = (1.0 - (ease * 2.0)?)?.sqr()?;
    (factor * ln_sigmoid)?.neg()
}

/// What keeps scores from drifting.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ScorePenalty {
    /// Nothing.
    #[default]
    None,
    /// `-ln(upper - s) - ln(s - lower)` of scores clamped to `lower + margin ..= upper - margin`, without gradient beyond.
    LogBarrier {
        /// Least score.
        lower: f64,
        /// Greatest score.
        upper: f64,
        /// Distance from the bounds at which scores are clamped.
        margin: f64,
    },
    /// `s²`.
    L2,
}

/// Penalty of both scores of each pair, added up, `[P]`.
///
/// # Shapes
/// - `chosen`, `rejected`: `[P]`. Gradient flows to both.
///
/// Reference: Cai et al. 2024 ("InternLM2"), the logarithmic barrier.
pub fn score_penalty(chosen: &Tensor, rejected: &Tensor, penalty: ScorePenalty) -> candle_core::Result<Tensor> {
    let of = |scores: &Tensor| match penalty {
        ScorePenalty::None => scores.zeros_like(),
        ScorePenalty::L2 => scores.sqr(),
        ScorePenalty::LogBarrier { lower, upper, margin } => {
            let scores = clamp(scores, lower + margin, upper - margin)?;
            (upper - &scores)?.log()?.neg()? - (scores - lower)?.log()?
        }
    };
    of(chosen)? + of(rejected)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, assert_float32_agrees, check_gradients, gradients, numbers, vector};

    const BARRIER: ScorePenalty = ScorePenalty::LogBarrier { lower: -5.0, upper: 5.0, margin: 1e-3 };

    fn scores() -> [Tensor; 2] {
        [vector(&[1.5, -0.5, 0.25, 4.9]), vector(&[0.5, -0.2, 3.0, -4.9])]
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        check_gradients(&scores(), 1e-7, |l| focal_ranking(&l[0], &l[1])?.mean_all());
        check_gradients(&scores(), 1e-7, |l| length_normalised(&l[0], &[0, 1, 5, 300])?.sqr()?.mean_all());
        for penalty in [ScorePenalty::None, ScorePenalty::L2, BARRIER] {
            check_gradients(&scores(), 1e-6, |l| score_penalty(&l[0], &l[1], penalty)?.mean_all());
        }
    }

    #[test]
    fn focal_loss_is_bradley_terry_for_pairs_ranked_wrongly_and_less_for_the_others() {
        let (chosen, rejected) = (vector(&[0.0, 1.0]), vector(&[2.0, 0.0]));
        let plain = numbers(&log_sigmoid(&(&chosen - &rejected).unwrap()).unwrap());
        let focal = numbers(&focal_ranking(&chosen, &rejected).unwrap());
        let win = 1.0 / (1.0 + (-1.0f64).exp());
        assert_close(&focal, &[-plain[0], -plain[1] * (2.0 - 2.0 * win).powi(2)]);
        let tie = [vector(&[0.3]), vector(&[0.3])];
        let (_, gradient) = gradients(&tie, |l| focal_ranking(&l[0], &l[1])?.sum_all()).unwrap();
        assert_close(&gradient.concat(), &[-0.5, 0.5]);
    }

    #[test]
    fn float32_agrees() {
        let far = [vector(&[1.5, -0.5, 7.0]), vector(&[0.5, -0.2, 3.0])];
        assert_float32_agrees(&far, |l| focal_ranking(&l[0], &l[1])?.mean_all());
        assert_float32_agrees(&far, |l| score_penalty(&l[0], &l[1], BARRIER)?.mean_all());
        assert_float32_agrees(&far, |l| length_normalised(&l[0], &[1, 2, 3])?.mean_all());
    }

    #[test]
    fn barrier_has_no_gradient_beyond_its_bounds() {
        let far = [vector(&[7.0, 0.0]), vector(&[-1e4, 0.0])];
        let (value, gradients) = gradients(&far, |l| score_penalty(&l[0], &l[1], BARRIER)?.sum_all()).unwrap();
        assert!(value.is_finite());
        assert_eq!([gradients[0][0], gradients[1][0]], [0.0, 0.0]);
        assert_close(&[gradients[0][1]], &[0.0]);
    }

    #[test]
    fn extreme_scores_have_finite_losses_and_gradients() {
        for far in [1e4, -1e4] {
            let scores = [vector(&[far]), vector(&[-far])];
            assert_finite(&scores, |l| focal_ranking(&l[0], &l[1])?.sum_all());
            assert_finite(&scores, |l| score_penalty(&l[0], &l[1], BARRIER)?.sum_all());
        }
    }

    #[test]
    fn answers_without_tokens_are_not_divided_by_zero() {
        let ln_2 = std::f64::consts::LN_2;
        assert_close(&numbers(&length_normalised(&vector(&[1.0, 1.0]), &[0, 1]).unwrap()), &[1.0 / ln_2; 2]);
    }
}
