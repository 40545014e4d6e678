//! The transformations of one reward, given the rewards of reference completions of the same prompt.
//!
//! Reference: Fu et al. 2025, "Reward Shaping to Mitigate Reward Hacking in RLHF", with the conventions of its public code where the
//! paper leaves them open.

/// 85th percentile of the standard normal distribution.
const NORMAL_Q85: f64 = 1.036_433_389_493_789_8;

/// The logistic function `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f64) -> f64 {
    // The argument of `exp` is never positive, so it cannot overflow.
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// `log(sigmoid(x))`, finite where the sigmoid itself rounds to 0.
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// Mean of `f(reward - reference)` over the references; `f(reward)` without any, so that the centre is 0.
pub fn centred(reward: f64, references: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    if references.is_empty() {
        return f(reward);
    }
    references.iter().map(|reference| f(reward - reference)).sum::<f64>() / references.len() as f64
}

/// Preference As Reward: the probability, under the reward model's own Bradley-Terry reading, that the completion beats the
/// references: the mean of `sigmoid(k (r - r_ref))`, not the sigmoid of the mean.
///
/// Without references the reward stays as it is: there is nothing to prefer it to.
pub fn par(reward: f64, references: &[f64], k: f64) -> f64 {
    if references.is_empty() { reward } else { centred(reward, references, |x| sigmoid(k * x)) }
}

/// What a fitted polynomial gives outside its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outside {
    /// The logistic function.
    Sigmoid,
    /// 0 below, 1 above.
    Step,
}

/// A polynomial fitted to the logistic function, coefficients from the highest power down, inside `|x| <= bound`.
pub fn fitted_poly(x: f64, coefficients: &[f64], bound: f64, outside: Outside) -> f64 {
    if x.abs() <= bound {
        return coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient);
    }
    match outside {
        Outside::Sigmoid => sigmoid(x),
        Outside::Step => f64::from(x > 0.0),
    }
}

/// Log-sigmoid centred: `log sigmoid(r - q85)`, with q85 the 85th percentile of a normal distribution fitted to the references;
/// 0 without references. `ddof` is 0 or 1; a single reference has standard deviation 0 either way.
pub fn log_sigmoid_centred(reward: f64, references: &[f64], ddof: usize, std_eps: f64) -> f64 {
    if references.is_empty() {
        return log_sigmoid(reward);
    }
    let count = references.len() as f64;
    let mean = references.iter().sum::<f64>() / count;
    let squares: f64 = references.iter().map(|reference| (reference - mean).powi(2)).sum();
    let std = if references.len() > 1 { (squares / (references.len() - ddof) as f64).sqrt() } else { 0.0 };
    log_sigmoid(reward - (mean + NORMAL_Q85 * (std + std_eps)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoid_and_its_logarithm_hold_at_both_ends() {
        assert_eq!((sigmoid(800.0), sigmoid(-800.0), sigmoid(0.0)), (1.0, 0.0, 0.5));
        assert_eq!(log_sigmoid(-800.0), -800.0);
        assert_eq!(log_sigmoid(800.0), 0.0);
        assert!((log_sigmoid(0.0) + std::f64::consts::LN_2).abs() < 1e-15);
    }

    #[test]
    fn par_is_the_mean_of_sigmoids_and_not_the_sigmoid_of_the_mean() {
        let value = par(0.0, &[-4.0, 2.0], 1.0);
        assert!((value - f64::midpoint(sigmoid(4.0), sigmoid(-2.0))).abs() < 1e-15);
        assert!((value - sigmoid(1.0)).abs() > 0.1);
    }

    #[test]
    fn without_references_par_keeps_the_reward_and_the_others_centre_at_zero() {
        assert_eq!(par(3.5, &[], 1.0), 3.5);
        assert_eq!(centred(3.5, &[], f64::tanh), 3.5_f64.tanh());
        assert_eq!(log_sigmoid_centred(3.5, &[], 0, 0.0), log_sigmoid(3.5));
    }

    #[test]
    fn fitted_poly_follows_the_chosen_rule_outside_its_bound() {
        let coefficients = [0.25, 0.5];
        assert_eq!(fitted_poly(1.0, &coefficients, 1.0, Outside::Step), 0.75);
        assert_eq!(fitted_poly(1.5, &coefficients, 1.0, Outside::Step), 1.0);
        assert_eq!(fitted_poly(-1.5, &coefficients, 1.0, Outside::Step), 0.0);
        assert_eq!(fitted_poly(-1.5, &coefficients, 1.0, Outside::Sigmoid), sigmoid(-1.5));
    }

    #[test]
    fn one_reference_has_no_spread_whatever_ddof() {
        assert_eq!(log_sigmoid_centred(1.0, &[1.0], 0, 0.0), log_sigmoid(0.0));
        assert_eq!(log_sigmoid_centred(1.0, &[1.0], 1, 0.0), log_sigmoid(0.0));
    }
}
