//! Whether confidences are what they say.

use crate::advantage::mean;

/// How far confidences are from the truth; zeros without items.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CalibrationError {
    /// Expected calibration error: |mean confidence - accuracy| of each bin, weighted by its share of the items.
    pub ece: f64,
    /// Mean of (confidence - correct)², the Brier score.
    pub mse: f64,
    /// Mean over all items of the confidence in those that are wrong.
    pub wrong_confidence: f64,
}

/// Which bin an edge belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edges {
    /// The one below it: bins are `(lo, hi]`, and 0 is in the first.
    #[default]
    Below,
    /// The one above it: bins are `[lo, hi)`, and 1 is in the last.
    Above,
}

/// Errors of confidences in 0..=1, in `bins` bins of equal width.
pub fn calibration_error(confidence: &[f64], correct: &[bool], bins: usize, edges: Edges) -> CalibrationError {
    let bins = bins.max(1);
    let truth = |correct: &bool| f64::from(u8::from(*correct));
    let bin = |confidence: f64| match edges {
        // Compared with each edge and not multiplied: 0.7 · 10 is above 7 in binary.
        Edges::Below => (1..bins).find(|hi| confidence <= *hi as f64 / bins as f64).unwrap_or(bins) - 1,
        Edges::Above => ((confidence * bins as f64).floor().max(0.0) as usize).min(bins - 1),
    };
    // Of each bin: Σ (confidence - correct), which is its count times the difference of its means.
    let mut excess = vec![0.0; bins];
    let errors: Vec<f64> = confidence.iter().zip(correct).map(|(confidence, correct)| confidence - truth(correct)).collect();
    errors.iter().zip(confidence).for_each(|(error, confidence)| excess[bin(*confidence)] += error);
    let squares: Vec<f64> = errors.iter().map(|error| error * error).collect();
    let ece = excess.iter().map(|excess| excess.abs()).sum::<f64>() / errors.len().max(1) as f64;
    let wrong: Vec<f64> =
        confidence.iter().zip(correct).map(|(confidence, correct)| confidence * (1.0 - truth(correct))).collect();
    CalibrationError { ece, mse: mean(&squares), wrong_confidence: mean(&wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn bins_are_closed_above_and_the_first_holds_zero() {
        // 0 and 0.5 share the first of two bins, 0.75 and 1 the second: |0.5 - 1| and |1.75 - 2| over four items.
        let got = calibration_error(&[0.0, 0.5, 0.75, 1.0], &[false, true, true, true], 2, Edges::Below);
        assert_close(&[got.ece, got.mse], &[0.75 / 4.0, (0.25 + 0.0625) / 4.0]);
    }

    #[test]
    fn a_confidence_on_an_edge_is_in_the_bin_below_it() {
        // 0.7 with 0.65 in the bin that ends at 0.7: |1.35 - 1| over two items.
        assert_close(&[calibration_error(&[0.7, 0.65], &[true, false], 10, Edges::Below).ece], &[0.35 / 2.0]);
    }

    #[test]
    fn a_confidence_on_an_edge_may_be_in_the_bin_above_it() {
        // 0.5 with 0.75 in the upper of two bins, and 1 with them.
        let got = calibration_error(&[0.25, 0.5, 0.75, 1.0], &[false, true, false, true], 2, Edges::Above);
        assert_close(&[got.ece, got.wrong_confidence], &[(0.25 + 0.25) / 4.0, 0.25]);
    }

    #[test]
    fn nothing_is_calibrated() {
        assert_eq!(calibration_error(&[], &[], 10, Edges::Below), CalibrationError::default());
    }
}
