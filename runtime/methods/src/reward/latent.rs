//! A latent variable for each user, inferred from a few pairs that the user annotated, on which the reward depends.
//!
//! Reference: Poddar et al. 2024, "Personalizing Reinforcement Learning from Human Feedback with Variational Preference Learning".

use candle_core::{D, Tensor};

use crate::advantage::{mean, variance};
use crate::loss::log_sigmoid;
use crate::rectify::clamp;
use crate::softmax::softmax;

/// A diagonal Gaussian by mean and logarithm of its variance: `[U, D]`, one by user, or `[D]`, one for all.
#[derive(Clone, Debug)]
pub struct Gaussian {
    /// Means.
    pub mean: Tensor,
    /// ln σ².
    pub log_var: Tensor,
}

/// `½ Σ_d (ln σ_p² - ln σ² + (σ² + (μ - μ_p)²) / σ_p² - 1)` of each user, `[U]`, nats: KL(posterior ‖ prior).
///
/// Without a prior it is the standard normal distribution. Gradient flows to all four.
pub fn gaussian_kl(posterior: &Gaussian, prior: Option<&Gaussian>) -> candle_core::Result<Tensor> {
    let Gaussian { mean, log_var } = posterior;
    let sum = match prior {
        None => ((log_var.exp()? + mean.sqr()?)? - log_var)?,
        Some(prior) => {
            // As a difference of logarithms, so that narrow priors do not divide by what underflowed.
            let log_ratio = log_var.broadcast_sub(&prior.log_var)?;
            let shift = mean.broadcast_sub(&prior.mean)?.sqr()?.broadcast_mul(&prior.log_var.neg()?.exp()?)?;
            ((log_ratio.exp()? + shift)? - log_ratio)?
        }
    };
    (sum - 1.0)?.sum(D::Minus1)? * 0.5
}

/// Parts of [`elbo`].
#[derive(Clone, Debug)]
pub struct Elbo {
    /// `reconstruction + kl_weight · kl`, `[]`: the negative evidence bound, which is minimised.
    pub loss: Tensor,
    /// Mean Bradley-Terry loss of the pairs, `[]`.
    pub reconstruction: Tensor,
    /// Mean over users of the KL, summed over dimensions, `[]`.
    pub kl: Tensor,
}

/// Negative evidence lower bound of pairs given their users' latents.
///
/// # Shapes
/// - `margins`: `[P]`, chosen minus rejected reward given the latent. `posterior`: `[U, D]`. Gradient flows to all.
pub fn elbo(margins: &Tensor, posterior: &Gaussian, prior: Option<&Gaussian>, kl_weight: f64) -> candle_core::Result<Elbo> {
    let reconstruction = log_sigmoid(margins)?.mean_all()?.neg()?;
    let kl = gaussian_kl(posterior, prior)?.mean_all()?;
    let loss = (&reconstruction + (&kl * kl_weight)?)?;
    Ok(Elbo { loss, reconstruction, kl })
}

/// How latents are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Means and logarithms of variances are cut to `±clip` first.
    pub clip: Option<f64>,
    /// Draws are scaled to norm √D; a zero vector stays zero.
    pub scale_norm: bool,
}

/// `μ + σ · noise` by user, `[U, D]`, with gradient to both (reparameterised).
///
/// Without noise it is the mean, cut but not scaled: what evaluations use.
pub fn sample(posterior: &Gaussian, noise: Option<&Tensor>, sampling: Sampling) -> candle_core::Result<Tensor> {
    let cut = |x: &Tensor| sampling.clip.map_or_else(|| Ok(x.clone()), |clip| clamp(x, -clip, clip));
    let mean = cut(&posterior.mean)?;
    let Some(noise) = noise else { return Ok(mean) };
    let z = (mean + ((cut(&posterior.log_var)? * 0.5)?.exp()? * noise)?)?;
    if !sampling.scale_norm {
        return Ok(z);
    }
    let squares = z.sqr()?.sum_keepdim(D::Minus1)?;
    // A zero vector is divided by 1; under the root, where 0 would have an infinite gradient.
    let norms = (&squares + squares.eq(0.0)?.to_dtype(squares.dtype())?)?.sqrt()?;
    z.broadcast_div(&norms)? * (z.dim(D::Minus1)? as f64).sqrt()
}

/// Weights of a set's self-attention, `[D', D]` each, without bias; they act as `x · Wᵀ`.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Queries.
    pub q: Tensor,
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

/// Mean over a user's pairs of their scaled dot-product self-attention, `[D']`; zeros without pairs.
///
/// Its order does not matter: nothing says where in the set a pair stands. Scaled by √D, D being the width of the pairs.
///
/// # Shapes
/// - `pairs`: `[N, D]`. Gradient flows to pairs and weights.
pub fn attention_pool(pairs: &Tensor, weights: &Attention) -> candle_core::Result<Tensor> {
    let (count, width) = pairs.dims2()?;
    if count == 0 {
        return Tensor::zeros(weights.v.dim(0)?, pairs.dtype(), pairs.device());
    }
    let [q, k, v] = [&weights.q, &weights.k, &weights.v].map(|w| pairs.matmul(&w.t()?));
    let scores = (q?.matmul(&k?.t()?)? / (width as f64).sqrt())?;
    softmax(&scores)?.matmul(&v?)?.mean(0)
}

/// `Σ_t w_t h_t / Σ_t w_t` with `w_t = t + 1` on unmasked tokens: later states say more. `[B, D]`; zeros where all are masked.
///
/// # Shapes
/// - `hidden`: `[B, T, D]`; gradient flows to it. `mask`: `[B, T]` of the same dtype.
pub fn position_weighted_pool(hidden: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
    let positions = Tensor::arange(1u32, mask.dim(1)? as u32 + 1, mask.device())?.to_dtype(mask.dtype())?;
    let weights = mask.broadcast_mul(&positions)?;
    // The least total of a row with a token is 1.
    let weights = weights.broadcast_div(&weights.sum_keepdim(1)?.maximum(1.0)?)?;
    hidden.broadcast_mul(&weights.unsqueeze(2)?)?.sum(1)
}

/// What a question says about a user's latent; see [`information_gain`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gain {
    /// `H(mixture) - mean H(q_n)`, the mixture replaced by the Gaussian of its mean and variance.
    #[default]
    MomentMatched,
    /// `ln(2π · mean_n Σ_d σ²) - mean_n Σ_d ln(2π σ²)` as released: it ignores the means and is no difference of entropies. For
    /// comparison.
    PublicCode,
}

/// Information gain of a question in nats, from the diagonal posteriors that its hypothetical answers would leave, `[answer][D]`.
///
/// 0 without answers.
pub fn information_gain(means: &[Vec<f64>], log_vars: &[Vec<f64>], gain: Gain) -> f64 {
    if means.is_empty() {
        return 0.0;
    }
    let column = |rows: &[Vec<f64>], d: usize, f: fn(f64) -> f64| rows.iter().map(|row| f(row[d])).collect::<Vec<f64>>();
    let identity = |x: f64| x;
    let dimensions = 0..means[0].len();
    match gain {
        Gain::MomentMatched => {
            // ½ ln(2πe) is in both entropies.
            let of = |d: usize| {
                let mixture = mean(&column(log_vars, d, f64::exp)) + variance(&column(means, d, identity), 0);
                0.5 * (mixture.ln() - mean(&column(log_vars, d, identity)))
            };
            dimensions.map(of).sum()
        }
        Gain::PublicCode => {
            let total: f64 = dimensions.clone().map(|d| mean(&column(log_vars, d, f64::exp))).sum();
            let ln_tau = std::f64::consts::TAU.ln();
            total.ln() + ln_tau - dimensions.map(|d| ln_tau + mean(&column(log_vars, d, identity))).sum::<f64>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, assert_float32_agrees, check_gradients, matrix, numbers, vector};

    fn posterior(l: &[Tensor]) -> Gaussian {
        Gaussian { mean: l[0].clone(), log_var: l[1].clone() }
    }

    fn leaves() -> [Tensor; 2] {
        [matrix([[0.5, -1.0], [2.0, 0.1]]), matrix([[0.4, -0.3], [1.2, 0.0]])]
    }

    #[test]
    fn divergence_of_a_distribution_from_itself_is_zero() {
        let own = posterior(&leaves());
        assert_close(&numbers(&gaussian_kl(&own, Some(&own)).unwrap()), &[0.0, 0.0]);
        let normal = Gaussian { mean: vector(&[0.0, 0.0]), log_var: vector(&[0.0, 0.0]) };
        let (with, without) = (gaussian_kl(&own, Some(&normal)).unwrap(), gaussian_kl(&own, None).unwrap());
        assert_close(&numbers(&with), &numbers(&without));
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let prior = Gaussian { mean: vector(&[0.3, -0.2]), log_var: vector(&[-0.5, 0.7]) };
        let margins = vector(&[0.5, -1.5, 0.0]);
        for prior in [None, Some(&prior)] {
            let all = [leaves()[0].clone(), leaves()[1].clone(), margins.clone()];
            check_gradients(&all, 1e-7, |l| Ok(elbo(&l[2], &posterior(l), prior, 0.3)?.loss));
        }
        let noise = matrix([[1.0, -0.4], [0.2, 0.6]]);
        for scale_norm in [false, true] {
            let sampling = Sampling { clip: Some(1.1), scale_norm };
            check_gradients(&leaves(), 1e-7, |l| {
                (sample(&posterior(l), Some(&noise), sampling)? * matrix([[1.0, 2.0], [-0.5, 0.3]]))?.sum_all()
            });
        }
        let mask = matrix([[1.0, 0.0], [1.0, 1.0]]);
        let hidden = leaves()[0].unsqueeze(2).unwrap();
        check_gradients(&[hidden], 1e-8, |l| position_weighted_pool(&l[0], &mask)?.sqr()?.sum_all());
        let square = [leaves()[0].clone(), leaves()[1].clone(), matrix([[0.1, 0.4], [-0.7, 0.2]])];
        check_gradients(&square, 1e-7, |l| {
            let weights = Attention { q: l[0].clone(), k: l[1].clone(), v: l[2].clone() };
            attention_pool(&l[0], &weights)?.sqr()?.sum_all()
        });
    }

    #[test]
    fn float32_agrees() {
        let [mean, log_var] = leaves();
        let all = [mean.clone(), log_var.clone(), matrix([[1.0, 0.0], [1.0, 1.0]]), vector(&[0.5, -3.0])];
        let sampling = Sampling { clip: Some(1.0), scale_norm: true };
        assert_float32_agrees(&all, |l| Ok(elbo(&l[3], &posterior(l), None, 0.3)?.loss));
        assert_float32_agrees(&all, |l| sample(&posterior(l), Some(&l[2]), sampling)?.sum_all());
        assert_float32_agrees(&all, |l| position_weighted_pool(&l[0].unsqueeze(2)?, &l[2])?.sum_all());
    }

    #[test]
    fn draws_have_their_norm_and_zero_stays_zero() {
        let sampling = Sampling { clip: None, scale_norm: true };
        let zero = Gaussian { mean: matrix([[0.0, 0.0]]), log_var: matrix([[0.0, 0.0]]) };
        let noise = matrix([[0.0, 0.0]]);
        assert_finite(&[zero.mean.clone(), zero.log_var.clone()], |l| sample(&posterior(l), Some(&noise), sampling)?.sum_all());
        assert_eq!(numbers(&sample(&zero, Some(&noise), sampling).unwrap()), [0.0, 0.0]);
        let z = numbers(&sample(&posterior(&leaves()), Some(&leaves()[1]), sampling).unwrap());
        assert_close(&[z[0].hypot(z[1]), z[2].hypot(z[3])], &[2.0f64.sqrt(); 2]);
        let evaluated = sample(&posterior(&leaves()), None, Sampling { clip: Some(1.0), scale_norm: true }).unwrap();
        assert_eq!(numbers(&evaluated), [0.5, -1.0, 1.0, 0.1]);
    }

    #[test]
    fn pools_of_nothing_are_zero_and_the_order_of_pairs_does_not_matter() {
        let weights = Attention { q: leaves()[0].clone(), k: leaves()[1].clone(), v: leaves()[0].clone() };
        let empty = Tensor::zeros((0, 2), candle_core::DType::F64, &candle_core::Device::Cpu).unwrap();
        assert_eq!(numbers(&attention_pool(&empty, &weights).unwrap()), [0.0, 0.0]);
        let pool = |pairs: Tensor| numbers(&attention_pool(&pairs, &weights).unwrap());
        assert_close(&pool(matrix([[1.0, 2.0], [-3.0, 0.5]])), &pool(matrix([[-3.0, 0.5], [1.0, 2.0]])));
        let masked = position_weighted_pool(&matrix([[5.0, 7.0]]).unsqueeze(2).unwrap(), &matrix([[0.0, 0.0]]));
        assert_eq!(numbers(&masked.unwrap()), [0.0]);
    }

    #[test]
    fn a_question_whose_answers_agree_gains_nothing() {
        let (means, log_vars) = (vec![vec![0.3, -1.0]; 3], vec![vec![0.2, -4.0]; 3]);
        assert_close(&[information_gain(&means, &log_vars, Gain::MomentMatched)], &[0.0]);
        assert_eq!(information_gain(&[], &[], Gain::PublicCode), 0.0);
        let apart = [vec![-1.0], vec![1.0]];
        let gain = information_gain(&apart, &[vec![0.0], vec![0.0]], Gain::MomentMatched);
        assert_close(&[gain], &[0.5 * 2.0f64.ln()]);
    }
}
