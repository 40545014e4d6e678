//! Statistics that evaluations, heads and selections share. Plain f64 throughout; what is undefined is None and never NaN.

use crate::advantage::mean;

/// Least norm that a cosine divides by, so that a zero vector has cosine 0 with everything.
pub const NORM_FLOOR: f64 = 1e-8;

/// `1 / (1 + e^-x)`, without overflow.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// ln σ(x), without overflow.
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// `ln Σ e^x`, without overflow; minus infinity of nothing.
pub fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max.is_infinite() { max } else { max + values.iter().map(|x| (x - max).exp()).sum::<f64>().ln() }
}

/// `e^x_i / Σ_j e^x_j`. Entries of minus infinity have no share; where all are, the shares are equal.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let total = log_sum_exp(logits);
    if total == f64::NEG_INFINITY {
        return vec![1.0 / logits.len() as f64; logits.len()];
    }
    logits.iter().map(|x| (x - total).exp()).collect()
}

/// Order of numbers in which 0 and -0 are equal, as ties need it.
pub fn order(a: f64, b: f64) -> std::cmp::Ordering {
    (a + 0.0).total_cmp(&(b + 0.0))
}

/// Index of the greatest value, the first one on ties; None of nothing.
pub fn first_max(values: &[f64]) -> Option<usize> {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best })
}

/// Index of the least value, the first one on ties; None of nothing.
pub fn first_min(values: &[f64]) -> Option<usize> {
    (0..values.len()).reduce(|best, i| if values[i] < values[best] { i } else { best })
}

/// Arithmetic mean; None of nothing.
pub fn mean_opt(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| mean(values))
}

/// `Σ a_i b_i`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `a·b / (|a| |b|)`, the norms at least [`NORM_FLOOR`].
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let norm = |x: &[f64]| dot(x, x).sqrt().max(NORM_FLOOR);
    dot(a, b) / (norm(a) * norm(b))
}

/// Ranks from 1 in ascending order; equal values have the mean of their ranks.
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| self::order(values[a], values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|&i| ranks[i] = rank);
        before += tied.len();
    }
    ranks
}

/// A straight line through points by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Change of y with x.
    pub slope: f64,
    /// y at x = 0.
    pub intercept: f64,
    /// Pearson's correlation; None where y has no variance.
    pub correlation: Option<f64>,
    /// Share of the variance of y that the line explains, 0..=1; 1 where y has none.
    pub r_squared: f64,
}

/// Least-squares line of y on x; None where x has no variance.
///
/// # Panics
/// When there are not as many y as x.
pub fn fit_line(x: &[f64], y: &[f64]) -> Option<Line> {
    assert_eq!(x.len(), y.len(), "points need both coordinates");
    let constant = |values: &[f64]| values.windows(2).all(|pair| pair[0] == pair[1]);
    // Rounding can leave equal values a variance of an ulp, and a correlation of noise.
    if constant(x) {
        return None;
    }
    let (mean_x, mean_y) = (mean(x), mean(y));
    let moment = |f: &dyn Fn(f64, f64) -> f64| x.iter().zip(y).map(|(x, y)| f(x - mean_x, y - mean_y)).sum::<f64>();
    let (xx, xy, yy) = (moment(&|x, _| x * x), moment(&|x, y| x * y), moment(&|_, y| y * y));
    if constant(y) {
        return Some(Line { slope: 0.0, intercept: mean_y, correlation: None, r_squared: 1.0 });
    }
    let correlation = (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0);
    let slope = xy / xx;
    Some(Line { slope, intercept: mean_y - slope * mean_x, correlation: Some(correlation), r_squared: correlation * correlation })
}

/// Pearson's correlation; None where a side has no variance.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    fit_line(x, y)?.correlation
}

/// `1 - Σ (y - ŷ)² / Σ (y - mean y)²` of the least-squares line; None where a side has no variance.
pub fn r_squared(x: &[f64], y: &[f64]) -> Option<f64> {
    weighted_r_squared(x, y, &vec![1.0; x.len()])
}

/// [`r_squared`] of points with weights of at least 0; None where a side has no variance among the points that have weight.
///
/// # Panics
/// When the lists differ in length.
pub fn weighted_r_squared(x: &[f64], y: &[f64], weights: &[f64]) -> Option<f64> {
    assert!(x.len() == y.len() && x.len() == weights.len(), "points need both coordinates and a weight");
    let points: Vec<(f64, f64, f64)> =
        x.iter().zip(y).zip(weights).map(|((&x, &y), &weight)| (x, y, weight)).filter(|point| point.2 > 0.0).collect();
    // Rounding can leave equal values a variance of an ulp.
    let constant = |value: fn(&(f64, f64, f64)) -> f64| points.windows(2).all(|pair| value(&pair[0]) == value(&pair[1]));
    if constant(|point| point.0) || constant(|point| point.1) {
        return None;
    }
    let total: f64 = points.iter().map(|point| point.2).sum();
    let moment = |f: &dyn Fn(f64, f64) -> f64| points.iter().map(|&(x, y, weight)| weight * f(x, y)).sum::<f64>() / total;
    let (mean_x, mean_y) = (moment(&|x, _| x), moment(&|_, y| y));
    let xy = moment(&|x, y| (x - mean_x) * (y - mean_y));
    let (xx, yy) = (moment(&|x, _| (x - mean_x).powi(2)), moment(&|_, y| (y - mean_y).powi(2)));
    Some((xy / xx * xy / yy).clamp(0.0, 1.0))
}

/// Spearman's correlation: Pearson's of the [`average_ranks`]; None where a side has no variance.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&average_ranks(x), &average_ranks(y))
}

/// A law `y = coefficient · x^exponent`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerLaw {
    /// y at x = 1.
    pub coefficient: f64,
    /// Change of ln y with ln x.
    pub exponent: f64,
    /// Share of the variance of ln y that the law explains.
    pub r_squared: f64,
}

/// Power law by least squares in logarithms of both sides; None where a coordinate is not positive or x has no variance.
pub fn fit_power_law(x: &[f64], y: &[f64]) -> Option<PowerLaw> {
    if x.iter().chain(y).any(|&value| value <= 0.0) {
        return None;
    }
    let logs = |values: &[f64]| values.iter().map(|value| value.ln()).collect::<Vec<_>>();
    let line = fit_line(&logs(x), &logs(y))?;
    Some(PowerLaw { coefficient: line.intercept.exp(), exponent: line.slope, r_squared: line.r_squared })
}

/// Area under the receiver's curve: the chance that a positive scores above a negative, ties counting half. None with one class.
///
/// # Panics
/// When there are not as many labels as scores.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), positive.len(), "each score needs a label");
    let positives = positive.iter().filter(|&&positive| positive).count();
    let negatives = positive.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let rank_sum: f64 = average_ranks(scores).iter().zip(positive).filter(|(_, positive)| **positive).map(|(r, _)| r).sum();
    // Mann-Whitney: what is left of the ranks after those that positives have among themselves.
    let above = rank_sum - (positives * (positives + 1)) as f64 / 2.0;
    Some(above / (positives as f64 * negatives as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn sigmoids_are_finite_and_agree_where_both_are_exact() {
        for x in [-1e4, -30.0, -0.5, 0.0, 2.0, 1e4] {
            assert!(log_sigmoid(x).is_finite() && (0.0..=1.0).contains(&sigmoid(x)), "{x}");
        }
        assert_close(&[sigmoid(0.0), log_sigmoid(0.0), log_sigmoid(-800.0)], &[0.5, -std::f64::consts::LN_2, -800.0]);
        assert_close(&[sigmoid(-2.0).ln()], &[log_sigmoid(-2.0)]);
    }

    #[test]
    fn softmax_of_extreme_logits_is_finite() {
        assert_close(&softmax(&[1e4, -1e4, 1e4]), &[0.5, 0.0, 0.5]);
        assert_close(&softmax(&[f64::NEG_INFINITY, 3.0]), &[0.0, 1.0]);
        assert_close(&softmax(&[f64::NEG_INFINITY; 2]), &[0.5, 0.5]);
        assert!(softmax(&[]).is_empty());
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
    }

    #[test]
    fn first_of_equal_extremes_wins() {
        assert_eq!((first_max(&[1.0, 3.0, 3.0]), first_min(&[1.0, 0.0, 0.0])), (Some(1), Some(1)));
        assert_eq!((first_max(&[]), first_min(&[])), (None, None));
    }

    #[test]
    fn equal_values_share_their_ranks() {
        assert_eq!(average_ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
    }

    #[test]
    fn correlations_without_variance_are_none() {
        assert_eq!(pearson(&[0.1; 3], &[1.0, 2.0, 3.0]), None);
        assert_eq!(pearson(&[1.0, 2.0, 3.0], &[0.1; 3]), None);
        assert_eq!(pearson(&[], &[]), None);
        assert_eq!(spearman(&[1.0], &[2.0]), None);
    }

    #[test]
    fn weights_repeat_points() {
        let (x, y) = ([0.0, 1.0, 3.0, 4.0], [1.0, 0.0, 2.0, 5.0]);
        let repeated = r_squared(&[0.0, 1.0, 1.0, 4.0], &[1.0, 0.0, 0.0, 5.0]).unwrap();
        assert_close(&[weighted_r_squared(&x, &y, &[0.5, 1.0, 0.0, 0.5]).unwrap()], &[repeated]);
        assert_close(&[r_squared(&x, &y).unwrap()], &[pearson(&x, &y).unwrap().powi(2)]);
        assert_eq!(weighted_r_squared(&x, &y, &[1.0, 0.0, 0.0, 0.0]), None);
        assert_eq!((r_squared(&[0.1; 3], &[1.0, 2.0, 3.0]), r_squared(&[1.0, 2.0, 3.0], &[0.1; 3])), (None, None));
        assert_eq!(r_squared(&[], &[]), None);
    }

    #[test]
    fn spearman_sees_order_alone() {
        assert_close(&[spearman(&[1.0, 2.0, 9.0], &[-5.0, 0.0, 1.0]).unwrap()], &[1.0]);
        assert_close(&[spearman(&[1.0, 2.0, 9.0], &[1.0, 0.0, -1e9]).unwrap()], &[-1.0]);
    }

    #[test]
    fn line_and_power_law_are_recovered() {
        let line = fit_line(&[0.0, 1.0, 3.0], &[2.0, 1.0, -1.0]).unwrap();
        assert_close(&[line.slope, line.intercept, line.r_squared, line.correlation.unwrap()], &[-1.0, 2.0, 1.0, -1.0]);
        let x = [0.5, 1.0, 8.0];
        let law = fit_power_law(&x, &x.map(|x: f64| 3.0 * x.powf(-0.2))).unwrap();
        assert_close(&[law.coefficient, law.exponent, law.r_squared], &[3.0, -0.2, 1.0]);
        assert_eq!(fit_power_law(&[1.0, 0.0], &[1.0, 1.0]), None);
        assert_eq!(fit_line(&[1.0, 1.0], &[0.0, 1.0]), None);
        assert_eq!(fit_line(&[1.0, 2.0], &[5.0, 5.0]).unwrap().correlation, None);
    }

    #[test]
    fn auroc_counts_ties_half_and_has_no_value_for_one_class() {
        assert_eq!(auroc(&[0.9, 0.2, 0.6, 0.6, 0.1], &[true, false, true, false, false]), Some(5.5 / 6.0));
        assert_eq!(auroc(&[1.0; 4], &[true, false, false, true]), Some(0.5));
        assert_eq!(auroc(&[1.0, 2.0], &[true, true]), None);
    }

    #[test]
    fn zero_vector_has_cosine_zero() {
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 2.0]), 0.0);
        assert_close(&[cosine(&[1.0, 0.0], &[1.0, 1.0])], &[0.5f64.sqrt()]);
    }
}
