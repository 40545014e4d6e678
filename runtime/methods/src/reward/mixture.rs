//! A mixture of reward heads whose weights depend on the prompt, learned from pairs without labels of groups.
//!
//! Reference: Shen et al. 2025, "MiCRo: Mixture Modeling and Context-aware Routing for Personalized Preference Learning".

use candle_core::{D, Tensor};

use crate::loss::log_sigmoid;
use crate::softmax::{log_softmax, log_sum_exp};
use crate::stats::{self, dot, first_max};

/// Parts of [`mixture_bradley_terry`].
#[derive(Clone, Debug)]
pub struct MixtureLoss {
    /// `mle + alpha · regulariser`, `[]`.
    pub loss: Tensor,
    /// `-mean ln Σ_k f_k σ(m_k)`, `[]`.
    pub mle: Tensor,
    /// `mean Σ_k f_k ln f_k`, the negative entropy of the router, `[]`.
    pub regulariser: Tensor,
    /// Head k's share in a pair, `f_k σ(m_k) / Σ_j f_j σ(m_j)`, `[P, K]`.
    pub posterior: Tensor,
}

/// Likelihood of pairs under a mixture of Bradley-Terry heads, with the router's entropy rewarded by `alpha`.
///
/// # Shapes
/// - `margins`: `[P, K]`, chosen minus rejected by head.
/// - `router_logits`: `[P, K]`, or `[1, K]` where one mixture serves all prompts. Gradient flows to both.
pub fn mixture_bradley_terry(margins: &Tensor, router_logits: &Tensor, alpha: f64) -> candle_core::Result<MixtureLoss> {
    let log_f = log_softmax(router_logits)?;
    // The logarithm of a sum, not a sum of logarithms, so it is taken by log-sum-exp.
    let joint = log_sigmoid(margins)?.broadcast_add(&log_f)?;
    let evidence = log_sum_exp(&joint)?;
    let mle = evidence.mean_all()?.neg()?;
    let regulariser = (log_f.exp()? * &log_f)?.sum(D::Minus1)?.mean_all()?;
    let posterior = joint.broadcast_sub(&evidence)?.exp()?;
    let loss = (&mle + (&regulariser * alpha)?)?;
    Ok(MixtureLoss { loss, mle, regulariser, posterior })
}

/// Mean Bradley-Terry loss over pairs and heads of margins `[P, K]`, a `[]` scalar: an ensemble over one trunk, without a router.
pub fn shared_base_loss(margins: &Tensor) -> candle_core::Result<Tensor> {
    log_sigmoid(margins)?.mean_all()?.neg()
}

/// What the router of a user's context is trained towards: Hedge's multiplicative weights.
///
/// `ω_k ∝ f_k · exp(-L_k / τ)`, which minimises `Σ_k g_k L_k + τ · KL(g ‖ f)`. No gradient flows through it.
///
/// # Shapes
/// - `router_logits`, `head_losses`: `[P, K]`; returns `[P, K]`, rows adding up to 1.
///
/// # Errors
/// Those of candle; τ that is not positive.
pub fn hedge_targets(router_logits: &Tensor, head_losses: &Tensor, tau: f64) -> candle_core::Result<Tensor> {
    if tau <= 0.0 {
        candle_core::bail!("the temperature of Hedge's targets must be positive, not {tau}");
    }
    crate::softmax::softmax(&(log_softmax(&router_logits.detach())? - (head_losses.detach() / tau)?)?)
}

/// Cross-entropy of the router against constant targets, the mean over pairs, a `[]` scalar. Both `[P, K]`.
pub fn router_loss(router_logits: &Tensor, targets: &Tensor) -> candle_core::Result<Tensor> {
    (log_softmax(router_logits)? * targets)?.sum(D::Minus1)?.mean_all()?.neg()
}

/// `Σ_k g_k L_k + τ · KL(g ‖ f)` of a candidate g, with 0 ln 0 = 0; infinite where g has weight and the prior f none.
pub fn hedge_objective(candidate: &[f64], prior: &[f64], head_losses: &[f64], tau: f64) -> f64 {
    let divergence = |(g, f): (&f64, &f64)| if *g == 0.0 { 0.0 } else { g * (g / f).ln() };
    dot(candidate, head_losses) + tau * candidate.iter().zip(prior).map(divergence).sum::<f64>()
}

/// The least value of [`hedge_objective`] over all candidates: `-τ ln Σ_k f_k exp(-L_k / τ)`.
pub fn hedge_minimum(prior: &[f64], head_losses: &[f64], tau: f64) -> f64 {
    let terms: Vec<f64> = prior.iter().zip(head_losses).map(|(f, loss)| f.ln() - loss / tau).collect();
    -tau * stats::log_sum_exp(&terms)
}

/// How a mixture's heads score one answer; see [`score`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoreRule {
    /// `Σ_k f_k r_k`.
    #[default]
    WeightedReward,
    /// `Σ_k f_k ln σ(r_k)`.
    WeightedLogSigmoid,
    /// The reward of the head with the most weight, the first one on ties.
    Argmax,
}

/// Score of one answer from its heads' rewards r and the router's weights f; 0 without heads.
pub fn score(rewards: &[f64], weights: &[f64], rule: ScoreRule) -> f64 {
    let weighted = |value: fn(f64) -> f64| rewards.iter().zip(weights).map(|(r, f)| f * value(*r)).sum();
    match rule {
        ScoreRule::WeightedReward => weighted(|r| r),
        ScoreRule::WeightedLogSigmoid => weighted(stats::log_sigmoid),
        ScoreRule::Argmax => first_max(weights).map_or(0.0, |head| rewards[head]),
    }
}

/// Probability that the first answer is preferred, `Σ_k f_k σ(m_k)`, from the heads' rewards of both.
pub fn preference(chosen: &[f64], rejected: &[f64], weights: &[f64]) -> f64 {
    let wins: Vec<f64> = chosen.iter().zip(rejected).map(|(c, r)| stats::sigmoid(c - r)).collect();
    dot(weights, &wins)
}

/// Accuracy of each head on the pairs of one group, a margin above 0 being right, and the best head, the first one on ties.
///
/// None without pairs. `margins` is `[pair][head]`.
pub fn head_accuracies(margins: &[Vec<f64>]) -> Option<(Vec<f64>, usize)> {
    let heads = margins.first()?.len();
    let accuracy = |k: usize| margins.iter().filter(|pair| pair[k] > 0.0).count() as f64 / margins.len() as f64;
    let accuracies: Vec<f64> = (0..heads).map(accuracy).collect();
    let best = first_max(&accuracies)?;
    Some((accuracies, best))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, check_gradients, matrix, numbers, vector};

    fn pairs() -> [Tensor; 2] {
        [matrix([[0.5, -1.0, 2.0], [0.1, 0.3, -0.2]]), matrix([[0.0, 1.0, -0.5], [0.4, 0.4, 0.2]])]
    }

    #[test]
    fn loss_matches_the_formula_by_hand() {
        let loss = mixture_bradley_terry(&matrix([[1.0, -1.0]]), &matrix([[0.0, 0.0]]), 0.5).unwrap();
        // σ(1) + σ(-1) = 1, so the even mixture has likelihood one half.
        assert_close(&[loss.mle.to_scalar().unwrap()], &[std::f64::consts::LN_2]);
        assert_close(&[loss.regulariser.to_scalar().unwrap()], &[-std::f64::consts::LN_2]);
        assert_close(&[loss.loss.to_scalar().unwrap()], &[std::f64::consts::LN_2 / 2.0]);
        assert_close(&numbers(&loss.posterior), &[stats::sigmoid(1.0), stats::sigmoid(-1.0)]);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        check_gradients(&pairs(), 1e-8, |l| Ok(mixture_bradley_terry(&l[0], &l[1], 0.5)?.loss));
        let one = [pairs()[0].clone(), matrix([[0.3, -0.2, 0.0]])];
        check_gradients(&one, 1e-8, |l| Ok(mixture_bradley_terry(&l[0], &l[1], 0.0)?.loss));
        check_gradients(&pairs(), 1e-8, |l| shared_base_loss(&l[0]));
        let [losses, logits] = pairs();
        let targets = hedge_targets(&logits, &losses, 0.5).unwrap();
        check_gradients(&[logits], 1e-8, |l| router_loss(&l[0], &targets));
    }

    #[test]
    fn extreme_margins_and_logits_have_finite_losses_and_gradients() {
        let far = [matrix([[1e4, -1e4], [-1e4, -1e4]]), matrix([[-1e4, 1e4], [1e4, -1e4]])];
        assert_finite(&far, |l| Ok(mixture_bradley_terry(&l[0], &l[1], 0.5)?.loss));
    }

    #[test]
    fn hedge_targets_reach_the_minimum_of_their_objective() {
        let (prior, losses) = ([0.2, 0.3, 0.5], [0.2, 0.9, 1.4]);
        for tau in [1e-3, 0.5, 1e3] {
            let logits = vector(&prior.map(f64::ln)).unsqueeze(0).unwrap();
            let targets = numbers(&hedge_targets(&logits, &vector(&losses).unsqueeze(0).unwrap(), tau).unwrap());
            let minimum = hedge_minimum(&prior, &losses, tau);
            assert!((hedge_objective(&targets, &prior, &losses, tau) - minimum).abs() < 1e-9, "{tau}");
            assert!(hedge_objective(&[1.0 / 3.0; 3], &prior, &losses, tau) >= minimum);
        }
        assert!(hedge_targets(&pairs()[0], &pairs()[1], 0.0).is_err());
    }

    #[test]
    fn heads_without_prior_weight_are_no_obstacle_to_the_minimum() {
        assert_close(&[hedge_minimum(&[0.0, 1.0], &[-5.0, 2.0], 0.5)], &[2.0]);
        assert_close(&[hedge_objective(&[0.0, 1.0], &[0.0, 1.0], &[-5.0, 2.0], 0.5)], &[2.0]);
        assert_eq!(hedge_objective(&[1.0, 0.0], &[0.0, 1.0], &[-5.0, 2.0], 0.5), f64::INFINITY);
    }

    #[test]
    fn first_of_equal_heads_wins_and_a_margin_of_zero_is_an_error() {
        assert_eq!(score(&[1.0, 2.0, 3.0], &[0.2, 0.4, 0.4], ScoreRule::Argmax), 2.0);
        assert!(score(&[-1e4, 1e4], &[0.5, 0.5], ScoreRule::WeightedLogSigmoid).is_finite());
        assert_eq!(head_accuracies(&[vec![0.0, 1.0, 1.0], vec![1.0, 1.0, 1.0]]), Some((vec![0.5, 1.0, 1.0], 1)));
        assert_eq!(head_accuracies(&[]), None);
        assert_eq!(preference(&[1.0, 1.0], &[1.0, 1.0], &[0.25, 0.75]), 0.5);
    }
}
