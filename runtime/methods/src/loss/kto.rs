//! Losses over single answers that are labelled desirable or undesirable, without pairs: KTO (Ethayarajh et al. 2024), its variant
//! of APO (D'Oosterlinck et al. 2024) and BCO (Jung et al. 2024). KTO's definitions are those of TRL 1.16.

use candle_core::{Tensor, bail};

use super::log_sigmoid;

/// What is done with the rewards of unpaired answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UnpairedLoss {
    /// 1 - σ(±(reward - beta · kl)): prospect theory's value of a gain or a loss against the divergence from the reference.
    Kto {
        /// [`kl_baseline`] of the step, nats.
        kl: f64,
    },
    /// 1 - σ(±reward): the baseline is 0.
    ApoZero,
    /// -ln σ(±(reward - shift)): a binary classifier of desirable answers.
    Bco {
        /// Mean reward of past steps ([`RewardShift`]).
        shift: f64,
    },
}

/// Constants of an unpaired loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unpaired {
    /// Which loss.
    pub loss: UnpairedLoss,
    /// Reward of an answer per nat of its log-ratio to the reference.
    pub beta: f64,
    /// Factor of desirable answers' losses.
    pub desirable_weight: f64,
    /// Factor of undesirable answers' losses.
    pub undesirable_weight: f64,
}

/// Weighted loss of each answer, `[N]`; a step's loss is the mean over its answers.
///
/// # Shapes
/// - `log_ratios`: `[N]`, log-probability of each answer under the policy minus that under the reference, sums over tokens, nats.
///   Gradient flows to them.
/// - `desirable`: `[N]`; undesirable answers have the opposite sign in the loss.
///
/// # Errors
/// Those of candle, and lengths that differ.
pub fn unpaired(log_ratios: &Tensor, desirable: &[bool], settings: Unpaired) -> candle_core::Result<Tensor> {
    let answers = log_ratios.dim(0)?;
    if desirable.len() != answers {
        bail!("{answers} answers have {} labels", desirable.len());
    }
    let by_label = |yes: f64, no: f64| {
        let numbers: Vec<f64> = desirable.iter().map(|&desirable| if desirable { yes } else { no }).collect();
        Tensor::from_vec(numbers, answers, log_ratios.device())?.to_dtype(log_ratios.dtype())
    };
    let baseline = match settings.loss {
        UnpairedLoss::Kto { kl } => settings.beta * kl,
        UnpairedLoss::ApoZero => 0.0,
        UnpairedLoss::Bco { shift } => shift,
    };
    let logits = (((log_ratios * settings.beta)? - baseline)? * by_label(1.0, -1.0)?)?;
    let losses = match settings.loss {
        // 1 - σ(x) = σ(-x), which keeps its precision where it is small.
        UnpairedLoss::Kto { .. } | UnpairedLoss::ApoZero => log_sigmoid(&logits.neg()?)?.exp()?,
        UnpairedLoss::Bco { .. } => log_sigmoid(&logits)?.neg()?,
    };
    losses * by_label(settings.desirable_weight, settings.undesirable_weight)?
}

/// Estimate of KL(policy ‖ reference), nats, at least 0: the mean log-ratio of answers to prompts that they do not belong to.
/// A step's answers move on by one prompt ([`mismatched`]) to get such. Without answers 0.
///
/// # Panics
/// When there are not as many reference log-probabilities as policy ones.
pub fn kl_baseline(policy: &[f64], reference: &[f64]) -> f64 {
    assert_eq!(policy.len(), reference.len(), "each answer needs both log-probabilities");
    let sum: f64 = policy.iter().zip(reference).map(|(policy, reference)| policy - reference).sum();
    (sum / policy.len().max(1) as f64).max(0.0)
}

/// Index of the answer that each of `answers` prompts gets for [`kl_baseline`]: the one of the prompt before, the last for the first.
pub fn mismatched(answers: usize) -> impl Iterator<Item = usize> {
    (0..answers).map(move |prompt| (prompt + answers - 1) % answers)
}

/// Running mean of the steps' mean rewards, the shift of [`UnpairedLoss::Bco`]. Every step has one weight, whatever it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RewardShift {
    steps: f64,
    sum: f64,
}

impl RewardShift {
    /// Counts a step's rewards, beta times the log-ratios, of all labels; a step without any is not one.
    pub fn add(&mut self, rewards: &[f64]) {
        if !rewards.is_empty() {
            self.steps += 1.0;
            self.sum += crate::advantage::mean(rewards);
        }
    }

    /// The mean, 0 before the first step.
    pub fn value(&self) -> f64 {
        self.sum / self.steps.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{log_sigmoid, sigmoid};
    use crate::testing::{assert_close, assert_finite, check_gradients, numbers, vector};

    const LOSSES: [UnpairedLoss; 3] = [UnpairedLoss::Kto { kl: 0.7 }, UnpairedLoss::ApoZero, UnpairedLoss::Bco { shift: -0.2 }];

    fn settings(loss: UnpairedLoss) -> Unpaired {
        Unpaired { loss, beta: 0.3, desirable_weight: 1.5, undesirable_weight: 0.5 }
    }

    #[test]
    fn each_loss_matches_its_formula_by_hand() {
        let (good, bad) = (2.0, -1.0);
        let value = |loss| numbers(&unpaired(&vector(&[good, bad]), &[true, false], settings(loss)).unwrap());
        let gain = |x: f64| 1.0 - sigmoid(x);
        assert_close(&value(LOSSES[0]), &[1.5 * gain(0.3 * (good - 0.7)), 0.5 * gain(0.3 * (0.7 - bad))]);
        assert_close(&value(LOSSES[1]), &[1.5 * gain(0.3 * good), 0.5 * sigmoid(0.3 * bad)]);
        assert_close(&value(LOSSES[2]), &[-1.5 * log_sigmoid(0.3 * good + 0.2), -0.5 * log_sigmoid(-(0.3 * bad + 0.2))]);
    }

    #[test]
    fn gradients_agree_with_finite_differences_and_have_the_labels_signs() {
        for loss in LOSSES {
            let labels = [true, false, true];
            let gradients = check_gradients(&[vector(&[0.5, -2.0, 3.0])], 1e-9, |leaves| {
                unpaired(&leaves[0], &labels, settings(loss))?.mean_all()
            });
            assert!(gradients[0].iter().zip(labels).all(|(&gradient, desirable)| (gradient < 0.0) == desirable), "{loss:?}");
        }
    }

    #[test]
    fn answers_far_from_the_reference_have_finite_losses() {
        for (loss, far) in LOSSES.into_iter().flat_map(|loss| [(loss, 1e5), (loss, -1e5)]) {
            assert_finite(&[vector(&[far, far])], |leaves| unpaired(&leaves[0], &[true, false], settings(loss))?.sum_all());
        }
    }

    #[test]
    fn step_of_one_label_alone_and_labels_that_are_missing() {
        let losses = unpaired(&vector(&[0.0, 0.0]), &[false, false], settings(UnpairedLoss::ApoZero)).unwrap();
        assert_close(&numbers(&losses), &[0.25, 0.25]);
        assert!(unpaired(&vector(&[0.0, 0.0]), &[true], settings(UnpairedLoss::ApoZero)).is_err());
    }

    #[test]
    fn baseline_is_a_mean_that_is_never_negative() {
        assert_close(&[kl_baseline(&[-1.0, -3.0], &[-2.0, -3.5])], &[0.75]);
        assert_eq!(kl_baseline(&[-5.0], &[-2.0]), 0.0);
        assert_eq!(kl_baseline(&[], &[]), 0.0);
        assert_eq!(mismatched(3).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(mismatched(0).count(), 0);
    }

    #[test]
    fn shift_is_the_mean_over_steps() {
        let mut shift = RewardShift::default();
        assert_eq!(shift.value(), 0.0);
        [&[1.0, 3.0][..], &[], &[5.0]].into_iter().for_each(|rewards| shift.add(rewards));
        assert_eq!(shift.value(), 3.5);
    }
}
