//! How different texts are from one another: by words, by meaning, by what follows from what.
//!
//! Reference: Kirk et al. 2023, "Understanding the Effects of RLHF on LLM Generalisation and Diversity". Pairs of texts run (1,0), (2,0),
//! (2,1), (3,0), …; without a pair the diversity is 0.

use std::collections::HashSet;

use crate::advantage::{mean, std_dev};
use crate::stats::{cosine, first_max};

/// Lengths of n-grams that a report averages over, and the vocabulary's size for the adjustment of [`distinct_ngrams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ngrams {
    /// Least length, in words.
    pub min: usize,
    /// Greatest length.
    pub max: usize,
    /// None: plain.
    pub vocabulary: Option<u64>,
}

/// Words of a text: full stops and line breaks deleted, split at spaces, case kept.
fn words(text: &str) -> Vec<String> {
    let kept: String = text.chars().filter(|c| !matches!(c, '.' | '\n' | '\r')).collect();
    kept.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Distinct n-grams of all texts over the number to expect; 0 without any.
///
/// Plain, that is all of their C n-grams; with a vocabulary of V it is `V · (1 - ((V - 1) / V)^C)`, what C draws from it would give,
/// so that the value does not fall with C alone (EAD, Liu et al. 2022). n-grams do not run over the end of a text.
pub fn distinct_ngrams<S: AsRef<str>>(texts: &[S], n: usize, vocabulary: Option<u64>) -> f64 {
    let texts: Vec<Vec<String>> = texts.iter().map(|text| words(text.as_ref())).collect();
    let ngrams = || texts.iter().flat_map(|words| words.windows(n.max(1)));
    let total = ngrams().count() as f64;
    if total == 0.0 {
        return 0.0;
    }
    // By ln_1p and exp_m1: 1 - (1 - 1/V)^C loses its digits where C is far below V.
    let draws = |v: f64| -v * (total * (-1.0 / v).ln_1p()).exp_m1();
    ngrams().collect::<HashSet<_>>().len() as f64 / vocabulary.map_or(total, |v| draws(v as f64))
}

/// Mean of [`distinct_ngrams`] over a range of lengths; a length without n-grams counts 0.
pub fn expected_distinct<S: AsRef<str>>(texts: &[S], ngrams: Ngrams) -> f64 {
    mean(&(ngrams.min..=ngrams.max).map(|n| distinct_ngrams(texts, n, ngrams.vocabulary)).collect::<Vec<_>>())
}

/// Diversity of samples, seen three ways.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Of the samples of each prompt.
    pub per_input: Vec<f64>,
    /// Their mean.
    pub mean_per_input: f64,
    /// Their population deviation.
    pub std_per_input: f64,
    /// Of the first sample of every prompt.
    pub across_input: f64,
    /// Of all samples.
    pub overall: f64,
}

/// [`expected_distinct`] of `[prompt][sample]` texts.
pub fn report<S: AsRef<str>>(groups: &[Vec<S>], ngrams: Ngrams) -> Report {
    let per_input: Vec<f64> = groups.iter().map(|texts| expected_distinct(texts, ngrams)).collect();
    let first: Vec<&str> = groups.iter().filter_map(|texts| texts.first()).map(AsRef::as_ref).collect();
    let all: Vec<&str> = groups.iter().flatten().map(AsRef::as_ref).collect();
    Report {
        mean_per_input: mean(&per_input),
        std_per_input: std_dev(&per_input, 0),
        across_input: expected_distinct(&first, ngrams),
        overall: expected_distinct(&all, ngrams),
        per_input,
    }
}

fn by_pair<T>(count: usize, f: impl Fn(usize, usize) -> T) -> Vec<T> {
    (0..count).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| f(i, j)).collect()
}

/// Cosines of all pairs of embeddings, and 1 minus their mean.
pub fn embedding_diversity(embeddings: &[Vec<f64>]) -> (Vec<f64>, f64) {
    let similarities = by_pair(embeddings.len(), |i, j| cosine(&embeddings[i], &embeddings[j]));
    let diversity = if similarities.is_empty() { 0.0 } else { 1.0 - mean(&similarities) };
    (similarities, diversity)
}

/// Where a classifier of inference has which label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InferenceLabels {
    /// Index of "entailment".
    pub entailment: usize,
    /// Index of "contradiction".
    pub contradiction: usize,
}

/// Scores of all pairs of texts, and their mean: a contradiction adds its probability, an entailment takes its own away.
///
/// A pair's score adds both directions, of each the most probable label, the first one on ties. `probabilities` is
/// `[premise][hypothesis][label]`.
pub fn inference_diversity(probabilities: &[Vec<Vec<f64>>], labels: InferenceLabels) -> (Vec<f64>, f64) {
    let score = |p: &[f64]| match first_max(p) {
        Some(label) if label == labels.contradiction => p[label],
        Some(label) if label == labels.entailment => -p[label],
        _ => 0.0,
    };
    let scores = by_pair(probabilities.len(), |i, j| score(&probabilities[i][j]) + score(&probabilities[j][i]));
    let diversity = mean(&scores);
    (scores, diversity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn words_keep_their_case_and_lose_full_stops_and_line_breaks() {
        assert_eq!(words(" A.b  c\nd e. "), ["Ab", "cd", "e"]);
        assert_eq!(distinct_ngrams(&["a A", "a"], 1, None), 2.0 / 3.0);
    }

    #[test]
    fn ngrams_end_with_their_text_and_none_give_zero() {
        assert_eq!(distinct_ngrams(&["a b", "b a"], 2, None), 1.0);
        assert_eq!(distinct_ngrams(&["a", "..."], 2, None), 0.0);
        assert_eq!(distinct_ngrams::<&str>(&[], 1, Some(10)), 0.0);
    }

    #[test]
    fn adjustment_keeps_its_digits_with_a_large_vocabulary() {
        // Of two draws V·(1 - (1 - 1/V)²) = 2 - 1/V are expected to differ.
        let vocabulary = 1 << 40;
        let got = distinct_ngrams(&["a b"], 1, Some(vocabulary));
        assert!((got - 2.0 / (2.0 - 1.0 / vocabulary as f64)).abs() < 1e-15, "{got}");
        assert_eq!(distinct_ngrams(&["a b"], 1, Some(1)), 2.0);
    }

    #[test]
    fn prompts_without_samples_have_no_diversity_and_no_first_sample() {
        let ngrams = Ngrams { min: 1, max: 2, vocabulary: None };
        let got = report(&[vec!["a b"], vec![]], ngrams);
        assert_eq!(got.per_input, [1.0, 0.0]);
        assert_eq!((got.mean_per_input, got.std_per_input, got.across_input, got.overall), (0.5, 0.5, 1.0, 1.0));
        assert_eq!(report::<&str>(&[], ngrams).overall, 0.0);
    }

    #[test]
    fn a_single_embedding_has_no_diversity_and_a_zero_vector_no_likeness() {
        assert_eq!(embedding_diversity(&[vec![1.0]]), (vec![], 0.0));
        assert_eq!(embedding_diversity(&[vec![0.0, 0.0], vec![1.0, 0.0]]), (vec![0.0], 1.0));
    }

    #[test]
    fn contradiction_raises_diversity_and_entailment_lowers_it() {
        let labels = InferenceLabels { entailment: 0, contradiction: 2 };
        let of = |a: [f64; 3], b: [f64; 3]| {
            inference_diversity(&[vec![vec![1.0, 0.0, 0.0], a.to_vec()], vec![b.to_vec(), vec![1.0, 0.0, 0.0]]], labels).1
        };
        assert_close(&[of([0.1, 0.1, 0.8], [0.6, 0.2, 0.2])], &[0.2]);
        assert_eq!(of([0.5, 0.0, 0.5], [0.0, 0.5, 0.5]), -0.5, "the first of equal labels wins");
        assert_eq!(inference_diversity(&[], labels), (vec![], 0.0));
    }
}
