//! Whether a proxy is being hacked: what is truly wanted gets worse while the proxy still improves (Tiapkin et al. 2025, "On Teacher
//! Hacking in Language Model Distillation"). Distances fall as they improve.

use crate::stats::{first_min, fit_line};

/// How far each may move by noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Of the golden distance.
    pub golden: f64,
    /// Of the proxy distance.
    pub proxy: f64,
}

/// What became of both distances after the golden one was least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Index of the least golden distance, the first one on ties.
    pub golden_argmin: usize,
    /// Rise of the golden distance from there to the end.
    pub golden_rise: f64,
    /// Fall of the proxy distance from there to the end.
    pub proxy_fall_after: f64,
    /// Whether both are strictly beyond their tolerances.
    pub hacking: bool,
}

/// Report of two curves over the same checkpoints; None without any.
///
/// # Panics
/// When the curves have different lengths.
pub fn report(proxy: &[f64], golden: &[f64], tolerances: Tolerances) -> Option<Report> {
    assert_eq!(proxy.len(), golden.len(), "each checkpoint needs both distances");
    let golden_argmin = first_min(golden)?;
    let golden_rise = golden.last()? - golden[golden_argmin];
    let proxy_fall_after = proxy[golden_argmin] - proxy.last()?;
    let hacking = golden_rise > tolerances.golden && proxy_fall_after > tolerances.proxy;
    Some(Report { golden_argmin, golden_rise, proxy_fall_after, hacking })
}

/// A power law through a curve's early points, and how the curve leaves it: a warning that needs no golden distance.
#[derive(Clone, Debug, PartialEq)]
pub struct Departure {
    /// ln of the value at step 1.
    pub log_prefactor: f64,
    /// Slope in logarithms; below 0 as distances fall.
    pub exponent: f64,
    /// ln value minus the law's, at every point.
    pub log_residuals: Vec<f64>,
    /// Greatest magnitude of a residual after the points of the fit; 0 without any.
    pub max_after_fit: f64,
}

/// Fits the first `fit_points` of a curve by least squares in logarithms; None where they do not determine a line or a number is not
/// above 0.
///
/// # Panics
/// When there are not as many values as steps.
pub fn departure(steps: &[f64], values: &[f64], fit_points: usize) -> Option<Departure> {
    assert_eq!(steps.len(), values.len(), "each step needs a value");
    if steps.iter().chain(values).any(|x| *x <= 0.0) {
        return None;
    }
    let logs = |values: &[f64]| values.iter().map(|value| value.ln()).collect::<Vec<f64>>();
    let (x, y, early) = (logs(steps), logs(values), fit_points.min(steps.len()));
    let line = fit_line(&x[..early], &y[..early])?;
    let log_residuals: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y - line.intercept - line.slope * x).collect();
    let max_after_fit = log_residuals[early..].iter().map(|residual| residual.abs()).fold(0.0, f64::max);
    Some(Departure { log_prefactor: line.intercept, exponent: line.slope, log_residuals, max_after_fit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    const TOLERANCES: Tolerances = Tolerances { golden: 0.1, proxy: 0.1 };

    #[test]
    fn hacking_needs_both_changes_beyond_their_tolerances() {
        let of = |proxy: [f64; 3], golden: [f64; 3]| report(&proxy, &golden, TOLERANCES).unwrap();
        assert!(of([1.0, 0.75, 0.5], [1.0, 0.5, 1.0]).hacking);
        assert!(!of([1.0, 0.75, 0.75], [1.0, 0.5, 1.0]).hacking, "the proxy has stopped");
        assert!(!of([1.0, 0.75, 0.5], [1.0, 0.5, 0.55]).hacking, "within the noise");
        let falling = of([1.0, 0.75, 0.5], [1.0, 0.5, 0.25]);
        assert_eq!((falling.golden_argmin, falling.golden_rise, falling.hacking), (2, 0.0, false));
        assert_eq!(report(&[], &[], TOLERANCES), None);
    }

    #[test]
    fn departure_is_measured_after_the_points_of_the_fit() {
        let steps = [1.0, 2.0, 4.0, 8.0];
        let mut values = steps.map(|step: f64| 3.0 * step.powf(-0.5));
        values[3] *= 2.0;
        let got = departure(&steps, &values, 3).unwrap();
        assert_close(&[got.log_prefactor, got.exponent, got.max_after_fit], &[3.0f64.ln(), -0.5, std::f64::consts::LN_2]);
        assert_eq!(departure(&steps, &values, 9).unwrap().max_after_fit, 0.0);
        assert_eq!(departure(&steps, &values, 1), None);
        assert_eq!(departure(&[1.0, 0.0], &[1.0, 1.0], 2), None);
    }
}
