//! Rewards from named features of an answer: their scale, and what each of them counts.
//!
//! Reference: Nath et al. 2024, "Leveraging Domain Knowledge for Efficient Reward Modelling in RLHF".

use candle_core::Tensor;

use super::mlp::{self, Activation, Layer};
use crate::advantage::{mean, std_dev};

/// Mean and deviation of each feature over the training set: part of the reward model as much as its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// By feature.
    pub mean: Vec<f64>,
    /// By feature, 0 where it is constant.
    pub std: Vec<f64>,
}

impl Scale {
    /// Of rows of features, deviations dividing by `n - ddof`. Rows have one length.
    pub fn of(rows: &[Vec<f64>], ddof: usize) -> Self {
        let features = rows.first().map_or(0, Vec::len);
        let column = |k: usize| {
            let values: Vec<f64> = rows.iter().map(|row| row[k]).collect();
            // Equal values differ from their rounded mean by an ulp, and would be divided by that.
            let equal = values.windows(2).all(|pair| pair[0] == pair[1]);
            (mean(&values), if equal { 0.0 } else { std_dev(&values, ddof) })
        };
        let (mean, std) = (0..features).map(column).unzip();
        Scale { mean, std }
    }

    /// `(x - mean) / std`; 0 where the deviation is 0.
    pub fn standardise(&self, row: &[f64]) -> Vec<f64> {
        let scaled = |((x, mean), std): ((&f64, &f64), &f64)| if *std == 0.0 { 0.0 } else { (x - mean) / std };
        row.iter().zip(&self.mean).zip(&self.std).map(scaled).collect()
    }
}

/// Influence of each feature: the mean absolute change of the reward when the feature is set to its mean over the rows.
///
/// # Shapes
/// - `features`: `[N, K]`, as the network reads them.
/// - returns `[K]`.
pub fn influence(features: &Tensor, layers: &[Layer], activation: Activation) -> candle_core::Result<Tensor> {
    let (rows, columns) = features.dims2()?;
    let full = mlp::rewards(features, layers, activation)?;
    let changes = (0..columns).map(|k| {
        let column = features.narrow(1, k, 1)?;
        let level = column.mean_keepdim(0)?.broadcast_as((rows, 1))?;
        let without =
            Tensor::cat(&[features.narrow(1, 0, k)?, level.contiguous()?, features.narrow(1, k + 1, columns - k - 1)?], 1)?;
        (&full - mlp::rewards(&without, layers, activation)?)?.abs()?.mean_all()
    });
    Tensor::stack(&changes.collect::<candle_core::Result<Vec<_>>>()?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, matrix, numbers, vector};

    #[test]
    fn constant_feature_is_standardised_to_zero() {
        // The mean of three times 0.1 is not 0.1 in binary.
        let rows = [vec![0.1, 1.0], vec![0.1, 3.0], vec![0.1, 5.0]];
        let scale = Scale::of(&rows, 0);
        let third = (8.0f64 / 3.0).sqrt();
        assert_close(&scale.std, &[0.0, third]);
        assert_close(&scale.standardise(&[7.0, 5.0]), &[0.0, 2.0 / third]);
        assert_close(&Scale::of(&rows[..1], 1).std, &[0.0, 0.0]);
        assert!(Scale::of(&[], 0).mean.is_empty());
    }

    #[test]
    fn influence_of_a_linear_reward_is_weight_times_mean_deviation() {
        let layers = [Layer { weight: matrix([[2.0, -3.0, 0.0]]), bias: vector(&[1.0]) }];
        let features = matrix([[1.0, 4.0, 9.0], [3.0, 4.0, -9.0]]);
        let got = influence(&features, &layers, Activation::Relu).unwrap();
        assert_close(&numbers(&got), &[2.0, 0.0, 0.0]);
    }
}
