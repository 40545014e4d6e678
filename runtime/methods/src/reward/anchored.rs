//! Rewards from the chances of winning against anchors, answers that others are compared with.
//!
//! Reference: Xu et al. 2025, "A Unified Pairwise Framework for RLHF".

use crate::stats::mean_opt;

/// How a probability becomes a reward.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Form {
    /// The probability itself, in 0..=1.
    #[default]
    Probability,
    /// The probability minus one half.
    Centred,
    /// `ln(p / (1 - p))` of the probability cut to `clip ..= 1 - clip`: without the cut a certain win is infinite.
    Logit {
        /// In 0..½, not 0 where certain wins occur.
        clip: f64,
    },
}

/// Reward of an answer from its probability of winning against each anchor, which are averaged first; None without anchors.
pub fn reward(win_probabilities: &[f64], form: Form) -> Option<f64> {
    let p = mean_opt(win_probabilities)?;
    Some(match form {
        Form::Probability => p,
        Form::Centred => p - 0.5,
        Form::Logit { clip } => {
            let p = p.max(clip).min(1.0 - clip);
            (p / (1.0 - p)).ln()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn anchors_are_averaged_before_the_form() {
        let of = |form| reward(&[0.5, 1.0], form).unwrap();
        let forms = [Form::Probability, Form::Centred, Form::Logit { clip: 0.01 }];
        assert_close(&forms.map(of), &[0.75, 0.25, 3.0f64.ln()]);
        assert!(forms.iter().all(|&form| reward(&[], form).is_none()));
    }

    #[test]
    fn clip_bounds_log_odds_alone() {
        let of = |p| [Form::Logit { clip: 0.1 }, Form::Probability].map(|form| reward(&[p], form).unwrap());
        assert_close(&of(1.0), &[9.0f64.ln(), 1.0]);
        assert_close(&of(0.0), &[-(9.0f64.ln()), 0.0]);
    }
}
