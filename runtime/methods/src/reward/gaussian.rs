//! Reward heads that say how sure they are: each has a mean and a standard deviation.

use candle_core::Tensor;

/// Mean squared error of Gaussian heads against reward labels, over heads and samples, a `[]` scalar.
///
/// With noise the drawn reward `mean + std · noise` is held against the label (reparameterised); without, the expectation over
/// standard normal noise, `(mean - label)² + std²`.
///
/// # Shapes
/// - `means`, `stds`: `[H, N]`; gradient flows to both. `noise`: `[H, N]`.
/// - `targets`: `[N]`.
///
/// Reference: Yan et al. 2024 ("Reward-Robust RLHF in LLMs"), second stage.
pub fn gaussian_mse(means: &Tensor, stds: &Tensor, targets: &Tensor, noise: Option<&Tensor>) -> candle_core::Result<Tensor> {
    let squares = match noise {
        Some(noise) => (means + (stds * noise)?)?.broadcast_sub(targets)?.sqr()?,
        None => (means.broadcast_sub(targets)?.sqr()? + stds.sqr()?)?,
    };
    squares.mean_all()
}

/// `softplus(x) + floor`, the deviation of a head's raw output: positive whatever the output.
pub fn positive_std(raw: &Tensor, floor: f64) -> candle_core::Result<Tensor> {
    // softplus(x) = -ln σ(-x).
    crate::loss::log_sigmoid(&raw.neg()?)?.neg()? + floor
}

/// Loss of a pair whose rewards are Gaussians, and the standardized difference of their means; both `[P]`.
///
/// `z = (μ_w - μ_l) / √(σ_w² + σ_l²)`, `loss = softplus(-√(2π) · z)`, which approximates `-ln Φ(z)`.
///
/// # Shapes
/// - all `[P]`; the deviations come as logarithms of variances. Gradient flows to all.
///
/// Reference: Siththaranjan et al. 2023, "Distributional Preference Learning", the mean-variance head.
pub fn mean_variance(chosen: (&Tensor, &Tensor), rejected: (&Tensor, &Tensor)) -> candle_core::Result<(Tensor, Tensor)> {
    let variance = (chosen.1.exp()? + rejected.1.exp()?)?;
    let z = ((chosen.0 - rejected.0)? / variance.sqrt()?)?;
    let loss = crate::loss::log_sigmoid(&(&z * std::f64::consts::TAU.sqrt())?)?.neg()?;
    Ok((loss, z))
}

/// Log-probability that the chosen answer's atom is above the rejected one's, equal atoms counting half, `[P]`.
///
/// Each reward is a categorical distribution over atoms whose values rise with their index, so that their values do not matter.
///
/// # Shapes
/// - `chosen`, `rejected`: `[P, A]` logits. Gradient flows to both.
///
/// Reference: Siththaranjan et al. 2023, "Distributional Preference Learning", the categorical head.
pub fn categorical_log_win(chosen: &Tensor, rejected: &Tensor) -> candle_core::Result<Tensor> {
    let (pairs, atoms) = chosen.dims2()?;
    let log_credit = |i: usize, j: usize| match i.cmp(&j) {
        std::cmp::Ordering::Greater => 0.0,
        std::cmp::Ordering::Equal => -std::f64::consts::LN_2,
        std::cmp::Ordering::Less => f64::NEG_INFINITY,
    };
    let credit: Vec<f64> = (0..atoms * atoms).map(|ij| log_credit(ij / atoms, ij % atoms)).collect();
    let credit = Tensor::from_vec(credit, (atoms, atoms), chosen.device())?.to_dtype(chosen.dtype())?;
    let chosen = crate::softmax::log_softmax(chosen)?.unsqueeze(2)?;
    let rejected = crate::softmax::log_softmax(rejected)?.unsqueeze(1)?;
    // In logarithms: of distributions that hardly overlap the probability itself is 0 in floating point.
    let joint = chosen.broadcast_add(&rejected)?.broadcast_add(&credit)?.reshape((pairs, atoms * atoms))?;
    crate::softmax::log_sum_exp(&joint)?.squeeze(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_finite, assert_float32_agrees, check_gradients, matrix, numbers, vector};

    fn heads() -> [Tensor; 2] {
        [matrix([[0.5, -1.0, 2.0], [0.1, 0.3, -0.2]]), matrix([[0.4, 1.0, 0.2], [0.6, 0.1, 2.0]])]
    }

    #[test]
    fn expectation_is_the_mean_over_opposite_noise() {
        let (targets, [means, stds]) = (vector(&[0.3, -0.7, 1.0]), heads());
        let with = |noise: f64| {
            let noise = means.ones_like().unwrap() * noise;
            gaussian_mse(&means, &stds, &targets, Some(&noise.unwrap())).unwrap().to_scalar::<f64>().unwrap()
        };
        // Noise of +1 and -1 has the moments of a standard normal that a square sees.
        let want = gaussian_mse(&means, &stds, &targets, None).unwrap().to_scalar().unwrap();
        assert_close(&[f64::midpoint(with(1.0), with(-1.0))], &[want]);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (targets, noise) = (vector(&[0.3, -0.7, 1.0]), matrix([[0.4, -2.0, 0.1], [1.0, 0.0, -0.5]]));
        check_gradients(&heads(), 1e-8, |l| gaussian_mse(&l[0], &l[1], &targets, Some(&noise)));
        check_gradients(&heads(), 1e-8, |l| gaussian_mse(&l[0], &l[1], &targets, None));
        check_gradients(&heads(), 1e-8, |l| mean_variance((&l[0], &l[1]), (&l[1], &l[0]))?.0.sum_all());
        check_gradients(&heads(), 1e-8, |l| categorical_log_win(&l[0], &l[1])?.sum_all());
        check_gradients(&heads(), 1e-8, |l| positive_std(&l[0], 0.1)?.sum_all());
    }

    #[test]
    fn equal_distributions_win_half_of_the_time() {
        let logits = matrix([[0.3, -2.0, 1.0, 5.0], [0.0, 0.0, 0.0, 0.0]]);
        assert_close(&numbers(&categorical_log_win(&logits, &logits).unwrap()), &[0.5f64.ln(); 2]);
        let (loss, z) = mean_variance((&logits, &logits), (&logits, &logits)).unwrap();
        assert_close(&numbers(&z), &[0.0; 8]);
        assert_close(&numbers(&loss), &[std::f64::consts::LN_2; 8]);
    }

    #[test]
    fn float32_agrees() {
        assert_float32_agrees(&heads(), |l| categorical_log_win(&l[0], &l[1])?.sum_all());
        assert_float32_agrees(&heads(), |l| mean_variance((&l[0], &l[1]), (&l[1], &l[0]))?.0.sum_all());
    }

    #[test]
    fn distributions_far_apart_have_finite_losses_and_gradients() {
        let far = [matrix([[1e4, -1e4]]), matrix([[-1e4, 1e4]])];
        let value = assert_finite(&far, |l| categorical_log_win(&l[0], &l[1])?.sum_all());
        assert!(value < -1e3);
        let tight = [vector(&[-50.0, 50.0]), vector(&[-20.0, -20.0])];
        assert_finite(&tight, |l| mean_variance((&l[0], &l[1]), (&l[0].neg()?, &l[1]))?.0.sum_all());
        assert!(numbers(&positive_std(&vector(&[-1e4, 0.0, 1e4]), 1e-3).unwrap()).iter().all(|std| *std >= 1e-3));
    }
}
