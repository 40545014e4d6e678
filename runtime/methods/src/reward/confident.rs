//! Rewards that pay for confidence where the answer is better than usual (PPO-C, Leng et al. 2024).

/// How a reward and a confidence become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adjustment {
    /// `r + w (r - average) (confidence - 1/2)`.
    #[default]
    Difference,
    /// `r ± w |r| (confidence - 1/2)`, plus where `r >= average`.
    Threshold,
}

/// A running average of rewards, and what is made of the next ones by it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibrator {
    /// Mean of the rewards so far; at first the one that was stored with the reward model.
    pub average: f64,
    /// Weight of a batch's mean in it.
    pub alpha: f64,
    /// Weight of the confidence.
    pub weight: f64,
    /// How the two are combined.
    pub adjustment: Adjustment,
    /// Rewards are cut to ± this before anything else.
    pub clamp: f64,
}

impl Calibrator {
    /// Rewards of a batch, whose mean is taken into the average first. A batch without rewards leaves it.
    ///
    /// `confidences` are in 0..=1.
    pub fn rewards(&mut self, rewards: &[f64], confidences: &[f64]) -> Vec<f64> {
        let rewards: Vec<f64> = rewards.iter().map(|reward| reward.clamp(-self.clamp, self.clamp)).collect();
        if !rewards.is_empty() {
            self.average = self.alpha * crate::advantage::mean(&rewards) + (1.0 - self.alpha) * self.average;
        }
        let calibrated = |(&reward, confidence): (&f64, &f64)| {
            let sure = confidence - 0.5;
            match self.adjustment {
                Adjustment::Difference => reward + self.weight * (reward - self.average) * sure,
                Adjustment::Threshold if reward >= self.average => reward + self.weight * reward.abs() * sure,
                Adjustment::Threshold => reward - self.weight * reward.abs() * sure,
            }
        };
        rewards.iter().zip(confidences).map(calibrated).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    fn calibrator(adjustment: Adjustment) -> Calibrator {
        Calibrator { average: 0.0, alpha: 0.5, weight: 2.0, adjustment, clamp: 10.0 }
    }

    #[test]
    fn average_is_renewed_before_it_is_used() {
        let mut difference = calibrator(Adjustment::Difference);
        assert_close(&difference.rewards(&[4.0, 0.0], &[1.0, 0.0]), &[7.0, 1.0]);
        assert_eq!(difference.average, 1.0);
        assert!(difference.rewards(&[], &[]).is_empty());
        assert_eq!(difference.average, 1.0);
    }

    #[test]
    fn reward_at_the_average_counts_as_good_by_the_threshold_alone() {
        let at = |adjustment| Calibrator { average: -2.0, ..calibrator(adjustment) }.rewards(&[-2.0], &[1.0])[0];
        assert_eq!((at(Adjustment::Difference), at(Adjustment::Threshold)), (-2.0, 0.0));
    }

    #[test]
    fn outliers_are_cut_before_they_are_averaged() {
        let mut difference = calibrator(Adjustment::Difference);
        difference.rewards(&[1e9], &[0.5]);
        assert_eq!(difference.average, 5.0);
    }
}
