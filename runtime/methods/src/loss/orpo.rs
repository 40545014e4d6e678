//! Odds ratio preference optimization (Hong et al. 2024, equations 4 to 7), without a reference; as in TRL 1.16.

use candle_core::Tensor;

use super::dpo::PairLogps;
use super::log_sigmoid;

/// Least distance of a mean log-probability from 0, nats: certain answers would have infinite odds.
const CERTAIN: f64 = 1e-7;

/// `-beta · ln σ(ln odds(chosen) - ln odds(rejected))` of each pair, `[P]`, with odds p / (1 - p).
///
/// A step's loss is its mean plus the negative log-likelihood of the chosen answers ([`super::sft::sft`]).
///
/// # Shapes
/// - `mean_logps`: `[P]` each, log-probability per token of each answer, at most 0, nats. Gradient flows to them; where an answer is
///   certain none does.
pub fn odds_ratio(mean_logps: &PairLogps, beta: f64) -> candle_core::Result<Tensor> {
    log_sigmoid(&log_odds_ratio(mean_logps)?)? * -beta
}

/// `ln odds(chosen) - ln odds(rejected)` of each pair, `[P]`; for shapes see [`odds_ratio`].
pub fn log_odds_ratio(mean_logps: &PairLogps) -> candle_core::Result<Tensor> {
    log_odds(&mean_logps.chosen)? - log_odds(&mean_logps.rejected)?
}

/// `x - ln(1 - e^x)` for x below 0. With 1 - e^x = tanh(-x/2) (1 + e^x) small x keep their digits.
fn log_odds(x: &Tensor) -> candle_core::Result<Tensor> {
    let x = x.minimum(-CERTAIN)?;
    let complement = ((&x * -0.5)?.tanh()?.log()? + (x.exp()? + 1.0)?.log()?)?;
    x - complement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, check_gradients, numbers, vector};

    fn loss(leaves: &[Tensor]) -> candle_core::Result<Tensor> {
        odds_ratio(&PairLogps { chosen: leaves[0].clone(), rejected: leaves[1].clone() }, 0.2)?.sum_all()
    }

    #[test]
    fn loss_matches_the_odds_by_hand() {
        let pair = PairLogps { chosen: vector(&[0.6f64.ln()]), rejected: vector(&[0.25f64.ln()]) };
        let ratio: f64 = (0.6 / 0.4) / (0.25 / 0.75);
        assert_close(&numbers(&log_odds_ratio(&pair).unwrap()), &[ratio.ln()]);
        assert_close(&numbers(&odds_ratio(&pair, 0.2).unwrap()), &[-0.2 * (ratio / (1.0 + ratio)).ln()]);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let gradients = check_gradients(&[vector(&[-0.7, -2.0, -0.01]), vector(&[-1.3, -0.4, -9.0])], 1e-6, loss);
        assert!(gradients[0].iter().all(|&g| g < 0.0) && gradients[1].iter().all(|&g| g > 0.0), "{gradients:?}");
    }

    #[test]
    fn certain_and_impossible_answers_have_finite_losses() {
        for (chosen, rejected) in [(0.0, -1e4), (-1e4, 0.0), (0.0, 0.0), (-1e4, -1e4)] {
            assert_finite(&[vector(&[chosen]), vector(&[rejected])], loss);
        }
    }
}
