//! Accuracies of reward models over samples, categories, sections and groups of people.

use std::collections::BTreeMap;

use crate::advantage::mean;
use crate::stats::mean_opt;

/// One pair of a benchmark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair<'a> {
    /// Reward of the better answer.
    pub chosen: f64,
    /// Reward of the other.
    pub rejected: f64,
    /// What the pair belongs to: a question of which several pairs are made.
    pub sample: &'a str,
    /// Its category.
    pub category: &'a str,
}

/// Accuracies of pairs, each in 0..=1; None without pairs. A tie is an error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Share of pairs that are right.
    pub pairs: Option<f64>,
    /// Share of samples all of whose pairs are right.
    pub samples: Option<f64>,
    /// Mean over categories of the share of their pairs that are right.
    pub categories: Option<f64>,
}

/// Accuracies of a benchmark's pairs.
///
/// Reference: the accuracy, accuracy+ and macro average of multimodal reward benchmarks, as in Zhang et al. 2025.
pub fn accuracy(pairs: &[Pair<'_>]) -> Accuracy {
    let right = |pair: &Pair<'_>| f64::from(u8::from(pair.chosen > pair.rejected));
    let (mut samples, mut categories) = (BTreeMap::<&str, Vec<f64>>::new(), BTreeMap::<&str, Vec<f64>>::new());
    for pair in pairs {
        samples.entry(pair.sample).or_default().push(right(pair));
        categories.entry(pair.category).or_default().push(right(pair));
    }
    let whole: Vec<f64> = samples.values().map(|rights| rights.iter().product()).collect();
    let by_category: Vec<f64> = categories.values().map(|rights| mean(rights)).collect();
    Accuracy {
        pairs: mean_opt(&pairs.iter().map(right).collect::<Vec<_>>()),
        samples: mean_opt(&whole),
        categories: mean_opt(&by_category),
    }
}

/// Score of a benchmark's section in percent: the mean accuracy of its subsets `(accuracy, count)`, weighted by their counts.
///
/// None without a subset that has a result.
pub fn section_score(subsets: &[(f64, f64)]) -> Option<f64> {
    let total: f64 = subsets.iter().map(|(_, count)| count).sum();
    (total > 0.0).then(|| 100.0 * subsets.iter().map(|(accuracy, count)| accuracy * count).sum::<f64>() / total)
}

/// Plain mean of the values that are there; None without any. A benchmark's score of its sections.
pub fn mean_of_known(values: &[Option<f64>]) -> Option<f64> {
    mean_opt(&values.iter().copied().flatten().collect::<Vec<_>>())
}

/// How groups of people fare with one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Egalitarian {
    /// Mean of each group's outcomes (1 win, 1/2 tie, 0 loss); None for a group without any, which is in nothing below.
    pub rates: Vec<Option<f64>>,
    /// Rate of the worst-off group.
    pub min: Option<f64>,
    /// Mean over groups.
    pub mean: Option<f64>,
    /// Greatest rate minus the least.
    pub gap: Option<f64>,
}

/// Win rates by group.
///
/// Reference: Chakraborty et al. 2024, "MaxMin-RLHF".
pub fn egalitarian(outcomes: &[Vec<f64>]) -> Egalitarian {
    let rates: Vec<Option<f64>> = outcomes.iter().map(|group| mean_opt(group)).collect();
    let known = || rates.iter().copied().flatten();
    let (min, max) = (known().reduce(f64::min), known().reduce(f64::max));
    Egalitarian { min, mean: mean_of_known(&rates), gap: max.zip(min).map(|(max, min)| max - min), rates }
}

/// What is lost from a test set like the training set to one that is not: the difference, and its share of the former.
///
/// The share is 0 where the former is 0.
///
/// Reference: Kirk et al. 2023, "Understanding the Effects of RLHF on LLM Generalisation and Diversity".
pub fn generalisation_gap(in_distribution: f64, out_of_distribution: f64) -> (f64, f64) {
    let gap = in_distribution - out_of_distribution;
    (gap, if in_distribution == 0.0 { 0.0 } else { gap / in_distribution })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_errors_and_one_error_spoils_a_sample() {
        let pair = |chosen, sample, category| Pair { chosen, rejected: 0.0, sample, category };
        let got = accuracy(&[pair(1.0, "a", "x"), pair(0.0, "a", "x"), pair(2.0, "b", "y"), pair(2.0, "b", "x")]);
        let want = Accuracy { pairs: Some(0.75), samples: Some(0.5), categories: Some(f64::midpoint(2.0 / 3.0, 1.0)) };
        assert_eq!(got, want);
        assert_eq!(accuracy(&[]), Accuracy { pairs: None, samples: None, categories: None });
    }

    #[test]
    fn sections_without_results_are_left_out_of_the_score() {
        assert_eq!(section_score(&[(0.5, 10.0), (1.0, 30.0)]), Some(87.5));
        assert_eq!(section_score(&[]), None);
        assert_eq!(section_score(&[(0.5, 0.0)]), None);
        assert_eq!(mean_of_known(&[Some(80.0), None, Some(60.0)]), Some(70.0));
        assert_eq!(mean_of_known(&[None]), None);
    }

    #[test]
    fn groups_without_samples_are_in_no_summary() {
        let report = egalitarian(&[vec![1.0, 0.0], vec![], vec![1.0]]);
        assert_eq!(report.rates, [Some(0.5), None, Some(1.0)]);
        assert_eq!((report.min, report.mean, report.gap), (Some(0.5), Some(0.75), Some(0.5)));
        assert_eq!(egalitarian(&[vec![]]).gap, None);
    }

    #[test]
    fn relative_drop_from_zero_is_zero() {
        assert_eq!(generalisation_gap(0.5, 0.25), (0.25, 0.5));
        assert_eq!(generalisation_gap(0.0, 0.25), (-0.25, 0.0));
    }
}
