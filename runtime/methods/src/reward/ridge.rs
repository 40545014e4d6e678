//! Linear heads by ridge regression where labels are missing here and there.

use crate::advantage::mean;
use crate::stats::{dot, first_min};

/// One objective's head.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// `[D]`; zeros without training labels.
    pub weights: Vec<f64>,
    /// The penalty that was taken: that of the least validation error, the first on ties and without validation labels.
    pub alpha: f64,
    /// Mean squared error on the validation rows by penalty; None without validation labels.
    pub validation_mse: Vec<Option<f64>>,
}

/// Rows of features and their labels, one by objective, None where missing.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// `[N][D]`.
    pub features: &'a [Vec<f64>],
    /// `[N][K]`.
    pub labels: &'a [Vec<Option<f64>>],
}

impl<'a> Labelled<'a> {
    /// The rows that have a label for an objective.
    fn of(self, objective: usize) -> impl Iterator<Item = (&'a [f64], f64)> + Clone {
        let rows = self.features.iter().zip(self.labels);
        rows.filter_map(move |(x, labels)| labels[objective].map(|y| (x.as_slice(), y)))
    }
}

/// `w_k = (X'X + αI)⁻¹ X'y_k` over the rows that carry label k, without an intercept, α by validation error.
///
/// Runs in float64: with thousands of features the equations are too ill-conditioned for less. None where the equations are
/// singular, which only α = 0 allows.
///
/// Reference: Wang et al. 2024 ("ArmoRM"), section 3.1.
pub fn masked_heads(training: Labelled<'_>, validation: Labelled<'_>, alphas: &[f64]) -> Option<Vec<Head>> {
    let objectives = training.labels.first().map_or(0, Vec::len);
    (0..objectives).map(|objective| masked_head(training, validation, alphas, objective)).collect()
}

fn masked_head(training: Labelled<'_>, validation: Labelled<'_>, alphas: &[f64], objective: usize) -> Option<Head> {
    let width = training.features.first().map_or(0, Vec::len);
    let (mut gram, mut moments) = (vec![vec![0.0; width]; width], vec![0.0; width]);
    for (x, y) in training.of(objective) {
        for i in 0..width {
            moments[i] += x[i] * y;
            (0..=i).for_each(|j| gram[i][j] += x[i] * x[j]);
        }
    }
    let unlabelled = training.of(objective).next().is_none();
    let solve = |alpha: &f64| {
        if unlabelled {
            return Some(vec![0.0; width]);
        }
        let mut penalised = gram.clone();
        (0..width).for_each(|i| penalised[i][i] += alpha);
        solve_symmetric(penalised, &moments)
    };
    let candidates = alphas.iter().map(solve).collect::<Option<Vec<_>>>()?;
    let error = |weights: &Vec<f64>| {
        let squares: Vec<f64> = validation.of(objective).map(|(x, y)| (dot(x, weights) - y).powi(2)).collect();
        (!squares.is_empty()).then(|| mean(&squares))
    };
    let validation_mse: Vec<Option<f64>> = candidates.iter().map(error).collect();
    let known: Vec<f64> = validation_mse.iter().copied().flatten().collect();
    let best = first_min(&known).unwrap_or(0);
    Some(Head { weights: candidates.get(best)?.clone(), alpha: alphas[best], validation_mse })
}

/// Solution of a symmetric positive definite system by Cholesky's decomposition; reads the lower triangle. None where it is not
/// positive definite.
fn solve_symmetric(mut lower: Vec<Vec<f64>>, right: &[f64]) -> Option<Vec<f64>> {
    let n = right.len();
    for i in 0..n {
        for j in 0..=i {
            let rest = lower[i][j] - dot(&lower[i][..j], &lower[j][..j]);
            if i > j {
                lower[i][j] = rest / lower[j][j];
            } else if rest > 0.0 {
                lower[i][i] = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    let mut x = right.to_vec();
    for i in 0..n {
        x[i] = (x[i] - dot(&lower[i][..i], &x[..i])) / lower[i][i];
    }
    for i in (0..n).rev() {
        let below: f64 = (i + 1..n).map(|k| lower[k][i] * x[k]).sum();
        x[i] = (x[i] - below) / lower[i][i];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    const NONE: Labelled<'static> = Labelled { features: &[], labels: &[] };

    fn features() -> Vec<Vec<f64>> {
        vec![vec![1.0, 0.5], vec![-0.5, 2.0], vec![0.25, -1.0], vec![3.0, 1.0]]
    }

    /// First objective 2a - b on all rows; the second has one label; the third none.
    fn labels() -> Vec<Vec<Option<f64>>> {
        let label = |(i, x): (usize, &Vec<f64>)| vec![Some(2.0 * x[0] - x[1]), (i == 1).then_some(4.0), None];
        features().iter().enumerate().map(label).collect()
    }

    #[test]
    fn exact_weights_are_recovered_and_the_least_penalty_taken() {
        let (features, labels) = (features(), labels());
        let rows = Labelled { features: &features, labels: &labels };
        let heads = masked_heads(rows, rows, &[10.0, 1e-12]).unwrap();
        assert!((heads[0].weights[0] - 2.0).abs() < 1e-9 && (heads[0].weights[1] + 1.0).abs() < 1e-9);
        assert_eq!(heads[0].alpha, 1e-12);
        // One row of features x and label 4: w = 4x / (|x|² + α).
        let one = masked_heads(rows, rows, &[0.75]).unwrap().remove(1);
        assert_close(&one.weights, &[4.0 * -0.5 / 5.0, 4.0 * 2.0 / 5.0]);
    }

    #[test]
    fn objectives_without_labels_have_zero_weights_and_the_first_penalty() {
        let (features, labels) = (features(), labels());
        let rows = Labelled { features: &features, labels: &labels };
        let head = masked_heads(rows, rows, &[10.0, 1.0]).unwrap().remove(2);
        assert_eq!(head, Head { weights: vec![0.0; 2], alpha: 10.0, validation_mse: vec![None; 2] });
        let head = masked_heads(rows, NONE, &[10.0, 1.0]).unwrap().remove(0);
        assert_eq!((head.alpha, head.validation_mse), (10.0, vec![None; 2]));
    }

    #[test]
    fn singular_equations_are_refused() {
        let (features, labels) = (vec![vec![1.0, 1.0]], vec![vec![Some(1.0)]]);
        let rows = Labelled { features: &features, labels: &labels };
        assert_eq!(masked_heads(rows, rows, &[0.0]), None);
        assert!(masked_heads(rows, rows, &[1e-6]).is_some());
    }
}
