//! Weights that change over a run.

/// How the weight of a KL term rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rise {
    /// `½ (cos(π (s/S - 1)) + 1)`.
    #[default]
    Cosine,
    /// `s / S`.
    Linear,
    /// `1 / (1 + exp(S/2 - s))`.
    Logistic,
    /// 1 at every step.
    None,
}

/// Annealing of a KL weight, against a latent that is ignored from the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Annealing {
    /// S: steps of a rise; 0 counts as 1.
    pub total_steps: u64,
    /// Its form.
    pub rise: Rise,
    /// b: least weight.
    pub baseline: f64,
    /// True: the rise begins anew every S steps. False: the weight stays at its end.
    pub cyclical: bool,
}

impl Annealing {
    /// `rise · (1 - b) + b` at a step, counted from 0.
    ///
    /// Reference: Fu et al. 2019, "Cyclical Annealing Schedule"; the forms are those of Poddar et al. 2024.
    pub fn weight(self, step: u64) -> f64 {
        let total = self.total_steps.max(1);
        let (s, total) = (if self.cyclical { step % total } else { step.min(total) } as f64, total as f64);
        let rise = match self.rise {
            Rise::Cosine => 0.5 * ((std::f64::consts::PI * (s / total - 1.0)).cos() + 1.0),
            Rise::Linear => s / total,
            Rise::Logistic => crate::stats::sigmoid(s - total / 2.0),
            Rise::None => 1.0,
        };
        rise * (1.0 - self.baseline) + self.baseline
    }
}

/// A KL coefficient that is steered towards a target KL.
///
/// Reference: Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", section 2.2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveKl {
    /// The coefficient now.
    pub coefficient: f64,
    /// KL to reach, nats of a sequence; positive. None: the coefficient stays.
    pub target: Option<f64>,
    /// Greatest relative error that counts.
    pub error_clip: f64,
}

impl AdaptiveKl {
    /// The usual `error_clip`.
    pub const ERROR_CLIP: f64 = 0.2;

    /// `k ← k · (1 + gain · clip(KL / target - 1, ±error_clip))` after sequences of that mean KL; returns the new k.
    ///
    /// `gain` is sequences over a horizon in the reference, and one number for every step in Moskovitz et al. 2023.
    pub fn update(&mut self, kl: f64, gain: f64) -> f64 {
        let Some(target) = self.target else { return self.coefficient };
        let error = (kl / target - 1.0).clamp(-self.error_clip, self.error_clip);
        self.coefficient *= 1.0 + gain * error;
        self.coefficient
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn every_rise_goes_from_its_baseline_to_one() {
        for rise in [Rise::Cosine, Rise::Linear, Rise::Logistic] {
            let annealing = Annealing { total_steps: 100, rise, baseline: 0.25, cyclical: false };
            assert_close(&[annealing.weight(0), annealing.weight(50)], &[0.25, 0.625]);
            assert_close(&[annealing.weight(100), annealing.weight(1000)], &[1.0, 1.0]);
        }
        assert_eq!(Annealing { total_steps: 100, rise: Rise::None, baseline: 0.25, cyclical: true }.weight(0), 1.0);
    }

    #[test]
    fn cycles_begin_anew() {
        let annealing = Annealing { total_steps: 4, rise: Rise::Linear, baseline: 0.0, cyclical: true };
        assert_close(&[3, 4, 5].map(|step| annealing.weight(step)), &[0.75, 0.0, 0.25]);
        assert_eq!(Annealing { total_steps: 0, ..annealing }.weight(7), 0.0);
    }

    #[test]
    fn adaptive_coefficient_rises_above_its_target_and_falls_below_within_bounds() {
        let mut kl = AdaptiveKl { coefficient: 1.0, target: Some(2.0), error_clip: AdaptiveKl::ERROR_CLIP };
        assert_close(&[kl.update(2.0, 0.5), kl.update(100.0, 0.5), kl.update(0.0, 0.5)], &[1.0, 1.1, 0.99]);
        assert_close(&[kl.update(2.2, 1.0)], &[0.99 * 1.1]);
        assert_eq!(AdaptiveKl { coefficient: 0.3, target: None, ..kl }.update(9.0, 1.0), 0.3);
    }
}
