//! The law of overoptimization: quality against the distance `d = sqrt(KL)` from the reference (Gao et al. 2022; for direct alignment
//! Rafailov et al. 2024), and what rewards owe to length.

use crate::stats::{dot, fit_line};

/// `score = offset + d (alpha - beta ln d)` by least squares, beside a parabola in KL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Slope at d = 1.
    pub alpha: f64,
    /// How fast it falls.
    pub beta: f64,
    /// Root of the mean squared residual.
    pub rmse: f64,
    /// `[p, q]` of the comparator `offset + p KL + q KL²`.
    pub quadratic: [f64; 2],
    /// Its residual.
    pub quadratic_rmse: f64,
    /// Distance and score of the law's greatest value, e^(alpha / beta - 1) and offset + beta d; None where it has none, beta ≤ 0.
    pub peak: Option<(f64, f64)>,
}

/// Fits the law to scores at divergences `kl` (nats; what is below 0 by the estimate's noise counts as 0). None where points do not
/// determine both constants of either curve.
///
/// # Panics
/// When there are not as many scores as divergences.
pub fn fit(kl: &[f64], scores: &[f64], offset: f64) -> Option<Fit> {
    assert_eq!(kl.len(), scores.len(), "each point needs both coordinates");
    let gains: Vec<f64> = scores.iter().map(|score| score - offset).collect();
    let distances: Vec<f64> = kl.iter().map(|kl| kl.max(0.0).sqrt()).collect();
    // d ln d tends to 0 with d.
    let bent: Vec<f64> = distances.iter().map(|d| if *d > 0.0 { -d * d.ln() } else { 0.0 }).collect();
    let ([alpha, beta], rmse) = least_squares(&distances, &bent, &gains)?;
    let squares: Vec<f64> = kl.iter().map(|kl| kl * kl).collect();
    let (quadratic, quadratic_rmse) = least_squares(kl, &squares, &gains)?;
    let peak = (beta > 0.0).then(|| (alpha / beta - 1.0).exp()).map(|d| (d, offset + beta * d));
    Some(Fit { alpha, beta, rmse, quadratic, quadratic_rmse, peak })
}

/// Factors of two columns that come nearest to `y`, and the root of the mean squared residual; None where the columns are parallel.
fn least_squares(a: &[f64], b: &[f64], y: &[f64]) -> Option<([f64; 2], f64)> {
    // Gram and Schmidt: what of b is not along a. Twice, since one pass leaves its rounding along a.
    let squared = dot(a, a);
    if squared == 0.0 {
        return None;
    }
    let project = |b: &[f64]| {
        let along = dot(a, b) / squared;
        (along, b.iter().zip(a).map(|(b, a)| b - along * a).collect::<Vec<f64>>())
    };
    let (first, rest) = project(b);
    let (second, rest) = project(&rest);
    let left = dot(&rest, &rest);
    if left <= f64::EPSILON * f64::EPSILON * dot(b, b) {
        return None;
    }
    let of_b = dot(&rest, y) / left;
    let of_a = dot(a, y) / squared - (first + second) * of_b;
    let residuals: f64 = (0..y.len()).map(|i| (y[i] - of_a * a[i] - of_b * b[i]).powi(2)).sum();
    Some(([of_a, of_b], (residuals / y.len() as f64).sqrt()))
}

/// Rewards as a line in length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthTrend {
    /// Reward per unit of length.
    pub slope: f64,
    /// Reward at length 0.
    pub intercept: f64,
    /// Share of the rewards' variance that length explains, 0..=1.
    pub r_squared: f64,
}

/// Least-squares line of rewards on lengths; level at the mean where lengths do not differ, and nothing is explained where rewards do not.
///
/// # Panics
/// When there are not as many rewards as lengths.
pub fn length_trend(lengths: &[f64], rewards: &[f64]) -> LengthTrend {
    let level = LengthTrend { slope: 0.0, intercept: crate::advantage::mean(rewards), r_squared: 0.0 };
    fit_line(lengths, rewards).map_or(level, |line| LengthTrend {
        slope: line.slope,
        intercept: line.intercept,
        r_squared: line.correlation.map_or(0.0, |correlation| correlation * correlation),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn law_is_recovered_with_its_peak() {
        let kl = [0.0, 0.5, 2.0, 8.0, 40.0];
        let law = |d: f64| if d > 0.0 { 0.3 + d * (0.5 - 0.2 * d.ln()) } else { 0.3 };
        let fit = fit(&kl, &kl.map(|kl: f64| law(kl.sqrt())), 0.3).unwrap();
        assert_close(&[fit.alpha, fit.beta, fit.rmse], &[0.5, 0.2, 0.0]);
        let (d, height) = fit.peak.unwrap();
        assert_close(&[height], &[law(d)]);
        assert!(law(d) > law(d * 1.01) && law(d) > law(d * 0.99));
        assert!(fit.quadratic_rmse > 0.1);
    }

    #[test]
    fn rising_curves_have_no_peak_and_too_few_points_no_fit() {
        let kl = [1.0, 4.0, 9.0];
        assert_eq!(fit(&kl, &kl.map(|kl: f64| kl.sqrt() * (1.0 + kl.sqrt().ln())), 0.0).unwrap().peak, None);
        assert_eq!(fit(&[1.0], &[1.0], 0.0), None);
        assert_eq!(fit(&[], &[], 0.0), None);
        assert_eq!(fit(&[0.0, -0.1], &[1.0, 1.0], 0.0), None);
    }

    #[test]
    fn trend_is_level_without_variance() {
        let level = LengthTrend { slope: 0.0, intercept: 2.0, r_squared: 0.0 };
        assert_eq!(length_trend(&[3.0, 3.0], &[1.0, 3.0]), level);
        assert_eq!(length_trend(&[3.0, 4.0], &[2.0, 2.0]), level);
        assert_eq!(length_trend(&[], &[]), LengthTrend { intercept: 0.0, ..level });
        let line = length_trend(&[1.0, 2.0, 4.0], &[5.0, 4.0, 2.0]);
        assert_close(&[line.slope, line.intercept, line.r_squared], &[-1.0, 6.0, 1.0]);
    }
}
