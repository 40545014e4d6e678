//! What becomes of preference pairs by their strength, the mean margin that several reward models give them.
//!
//! Pairs of the least strength are mostly mislabelled, the next ones ambiguous, and the strongest easy to overfit.
//!
//! Reference: Wang et al. 2024, "Secrets of RLHF in Large Language Models Part II: Reward Modeling", section 2.

use super::ranked::share_count;
use crate::stats::order;

/// What is done about pairs that look mislabelled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Correction {
    /// Their sides are swapped.
    Flip {
        /// Share of all pairs, in 0..=1, the weakest, that are flipped.
        fraction: f64,
        /// Pairs of a strength below it are flipped too.
        below: Option<f64>,
    },
    /// Pairs of a strength below 0 keep their sides, with labels smoothed by so much.
    SoftLabel(f64),
}

/// Rules of a curation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curation {
    /// What is done about pairs that look mislabelled.
    pub correction: Correction,
    /// Pairs whose strength is below it in absolute value are dropped.
    pub drop_abs_below: Option<f64>,
    /// Whether strengths become margins of the loss.
    pub margin: bool,
}

/// What becomes of one pair; it may be flipped and dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curated {
    /// Whether its sides are swapped.
    pub flip: bool,
    /// Whether it is left out.
    pub drop: bool,
    /// Label smoothing of its loss.
    pub smoothing: f64,
    /// Margin of its loss: its strength, in absolute value where it is flipped, as it would work against the new label.
    pub margin: f64,
    /// `floor(10 · rank / n)` with rank 0 for the weakest: the tenth of the data it is in.
    pub decile: usize,
}

/// Curates pairs by their strengths, in the unit of rewards; of equal ones the first counts as weaker.
pub fn curate(strengths: &[f64], rules: Curation) -> Vec<Curated> {
    let n = strengths.len();
    let mut ascending: Vec<usize> = (0..n).collect();
    ascending.sort_by(|&a, &b| order(strengths[a], strengths[b]));
    let mut ranks = vec![0; n];
    ascending.iter().enumerate().for_each(|(rank, &i)| ranks[i] = rank);
    let below = |strength: f64, bound: Option<f64>| bound.is_some_and(|bound| strength < bound);
    let of_pair = |(&strength, &rank): (&f64, &usize)| {
        let (flip, smoothing) = match rules.correction {
            Correction::Flip { fraction, below: bound } => (rank < share_count(n, fraction) || below(strength, bound), 0.0),
            Correction::SoftLabel(smoothing) => (false, if strength < 0.0 { smoothing } else { 0.0 }),
        };
        let margin = if flip { strength.abs() } else { strength };
        Curated {
            flip,
            drop: below(strength.abs(), rules.drop_abs_below),
            smoothing,
            margin: if rules.margin { margin } else { 0.0 },
            decile: 10 * rank / n,
        }
    };
    strengths.iter().zip(&ranks).map(of_pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLIP: Correction = Correction::Flip { fraction: 0.5, below: None };

    fn curated<T>(strengths: &[f64], correction: Correction, drop_abs_below: Option<f64>, field: fn(&Curated) -> T) -> Vec<T> {
        curate(strengths, Curation { correction, drop_abs_below, margin: true }).iter().map(field).collect()
    }

    #[test]
    fn weakest_are_flipped_with_margins_for_their_new_label() {
        let strengths = [0.5, -0.0, 0.0, -2.0, 1.0];
        assert_eq!(curated(&strengths, FLIP, None, |pair| pair.flip), [false, true, false, true, false], "ties go by index");
        assert_eq!(curated(&strengths, FLIP, None, |pair| pair.margin), [0.5, 0.0, 0.0, 2.0, 1.0]);
        assert_eq!(curated(&strengths, FLIP, None, |pair| pair.decile), [6, 2, 4, 0, 8]);
    }

    #[test]
    fn bounds_are_strict_and_a_pair_may_be_flipped_and_dropped() {
        let (strengths, both) = ([-0.25, 0.25, -0.125, -1.0], Correction::Flip { fraction: 0.25, below: Some(-0.125) });
        assert_eq!(curated(&strengths, both, Some(0.25), |pair| pair.flip), [true, false, false, true]);
        assert_eq!(curated(&strengths, both, Some(0.25), |pair| pair.drop), [false, false, true, false]);
        let wide = Correction::Flip { fraction: 0.0, below: Some(0.0) };
        assert!(curated(&strengths, wide, Some(0.5), |pair| pair.flip && pair.drop)[0]);
    }

    #[test]
    fn soft_labels_flip_nothing_and_smooth_below_zero_alone() {
        let soft = Correction::SoftLabel(0.1);
        assert_eq!(
            curated(&[-0.0, -0.5, 2.0], soft, None, |pair| (pair.flip, pair.smoothing, pair.margin)),
            [(false, 0.0, 0.0), (false, 0.1, -0.5), (false, 0.0, 2.0)]
        );
        let plain = Curation { correction: soft, drop_abs_below: None, margin: false };
        assert_eq!(curate(&[-0.5], plain)[0].margin, 0.0);
        assert!(curate(&[], plain).is_empty());
    }
}
