//! Probabilities of levels from a regression of attributes, such as how helpful an answer is from 0 to 4.
//!
//! Reference: Wang et al. 2024, "HelpSteer2", section 4.3, which takes a prediction for the mean of a beta distribution over the range of the levels and
//! cuts the range into a bin for each level. It does not say where it cuts; the edges here are the user's.

use statrs::function::beta::beta_reg;

/// How a prediction becomes probabilities of levels.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    /// Sum of both parameters of the distribution, above 0: the greater, the surer.
    pub concentration: f64,
    /// Greatest level; the least is 0.
    pub max_level: f64,
    /// Least distance of the mean from 0 and from 1, in 0..0.5 and not 0: at the ends there is no distribution.
    pub clamp: f64,
    /// Ends of the bins in ascending order, from 0 to 1: one more than there are levels.
    pub edges: Vec<f64>,
    /// Least probability that a logarithm is taken of.
    pub floor: f64,
}

impl Levels {
    /// The paper's concentration for five levels, and bins that end halfway between them.
    pub fn five() -> Self {
        Levels {
            concentration: 24.0,
            max_level: 4.0,
            clamp: 1e-3,
            edges: vec![0.0, 0.125, 0.375, 0.625, 0.875, 1.0],
            floor: 1e-12,
        }
    }

    /// Probability of each level.
    pub fn probabilities(&self, prediction: f64) -> Vec<f64> {
        let mean = (prediction / self.max_level).clamp(self.clamp, 1.0 - self.clamp);
        let alpha = self.concentration * mean;
        let below = |edge: f64| beta_reg(alpha, self.concentration - alpha, edge.clamp(0.0, 1.0));
        self.edges.windows(2).map(|bin| below(bin[1]) - below(bin[0])).collect()
    }

    /// `Σ ln P(level)` over the attributes of an answer, nats; they count as independent.
    ///
    /// # Panics
    /// When there are not as many levels as predictions, and when a level has no bin.
    pub fn log_probability(&self, predictions: &[f64], levels: &[usize]) -> f64 {
        assert_eq!(predictions.len(), levels.len(), "each predicted attribute needs a level");
        let of = |(&prediction, &level): (&f64, &usize)| self.probabilities(prediction)[level].max(self.floor).ln();
        predictions.iter().zip(levels).map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    fn levels(concentration: f64) -> Levels {
        Levels { concentration, ..Levels::five() }
    }

    #[test]
    fn bins_are_integrals_of_the_density() {
        // At the mean of one half: Beta(1, 1) is uniform, and Beta(2, 2) has the distribution 3 x² - 2 x³.
        assert_close(&levels(2.0).probabilities(2.0), &[0.125, 0.25, 0.25, 0.25, 0.125]);
        let cdf = |x: f64| 3.0 * x * x - 2.0 * x * x * x;
        let want: Vec<f64> = levels(4.0).edges.windows(2).map(|bin| cdf(bin[1]) - cdf(bin[0])).collect();
        assert_close(&levels(4.0).probabilities(2.0), &want);
        // Beta(6, 18): the chance of at least 6 successes in 23 trials, by the binomial sum.
        let binomial = |x: f64| {
            let mut term = (1.0 - x).powi(23);
            let mut below = 0.0;
            for k in 0..6 {
                below += term;
                term *= (23 - k) as f64 / (k + 1) as f64 * x / (1.0 - x);
            }
            1.0 - below
        };
        let got = levels(24.0).probabilities(1.0);
        assert_close(&got[..2], &[binomial(0.125), binomial(0.375) - binomial(0.125)]);
    }

    #[test]
    fn probabilities_add_up_and_extremes_are_finite() {
        for prediction in [-1e9, 0.0, 0.7, 3.99, 4.0, 1e9] {
            let got = Levels::five().probabilities(prediction);
            assert!((got.iter().sum::<f64>() - 1.0).abs() < 1e-12 && got.iter().all(|p| (-1e-15..=1.0).contains(p)), "{got:?}");
        }
        assert_eq!(Levels::five().probabilities(-5.0), Levels::five().probabilities(0.0));
    }

    #[test]
    fn logarithms_add_up_over_attributes_and_have_a_floor() {
        let uniform = levels(2.0);
        assert_close(&[uniform.log_probability(&[2.0, 2.0], &[0, 1])], &[0.125f64.ln() + 0.25f64.ln()]);
        assert_close(&[Levels::five().log_probability(&[0.0], &[4])], &[1e-12f64.ln()]);
        assert_eq!(Levels::five().log_probability(&[], &[]), 0.0);
    }
}
