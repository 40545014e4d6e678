//! Curating preference data with reward models and judges.
//!
//! References: Liu et al. 2025, "Skywork-Reward-V2"; consistency of rubrics with labels: Liu et al. 2025, "OpenRubrics".

use super::ranked;
use crate::stats::{cosine, sigmoid};

/// Probability that a reward model gives a pair's label, and that of the other one, from the margin of its rewards.
pub fn confidence(margin: f64) -> (f64, f64) {
    (sigmoid(margin), sigmoid(-margin))
}

/// Examples to retrieve for a pair: `most` where the model has it wrong or cannot tell, else `ceil(most · (1 - p))` of the doubt that is left.
pub fn retrieval_count(margin: f64, most: usize) -> usize {
    if margin <= 0.0 { most } else { ((most as f64 * sigmoid(-margin)).ceil() as usize).max(1) }
}

/// For each query in order, its `count` most similar entries of the pool by cosine, the most similar first, ties by index. An entry goes to one query only:
/// the first that asks for it.
pub fn retrieve(pool: &[Vec<f64>], queries: &[(Vec<f64>, usize)]) -> Vec<Vec<usize>> {
    let mut taken = vec![false; pool.len()];
    let mut nearest = |(query, count): &(Vec<f64>, usize)| {
        let similarity: Vec<f64> = pool.iter().map(|entry| cosine(entry, query)).collect();
        let free = ranked::best(&similarity, pool.len()).into_iter().filter(|&i| !taken[i]).take(*count).collect::<Vec<_>>();
        free.iter().for_each(|&i| taken[i] = true);
        free
    };
    queries.iter().map(&mut nearest).collect()
}

/// What becomes of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It stays.
    Keep,
    /// Its answers change places.
    Flip,
    /// It goes.
    Drop,
}

/// A pair's fate by the margins of the best reward model and of the one trained on verified labels, and by a judge's word.
///
/// Pairs that the best model has right stay if the verified one agrees; where the best model has it wrong, the judge was asked. Returns the decision,
/// and whether a judge is needed for it.
pub fn second_stage(best_margin: f64, gold_margin: f64, judge: Option<Decision>, recycle: bool) -> (Decision, bool) {
    let (best, gold) = (best_margin > 0.0, gold_margin > 0.0);
    if best {
        return (if gold { Decision::Keep } else { Decision::Drop }, false);
    }
    let decision = match (judge, gold) {
        (Some(Decision::Keep), true) => Decision::Keep,
        (_, false) if recycle => Decision::Flip,
        _ => Decision::Drop,
    };
    (decision, true)
}

/// What is left of pairs after decisions: the index of each, and whether its answers change places.
pub fn apply(decisions: &[Decision]) -> Vec<(usize, bool)> {
    let left = |(i, decision): (usize, &Decision)| (*decision != Decision::Drop).then_some((i, *decision == Decision::Flip));
    decisions.iter().enumerate().filter_map(left).collect()
}

/// How labels compare with verified ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LabelNoise {
    /// Share of the original labels that are the verified ones.
    pub before: f64,
    /// Of the curated ones, among those that were kept.
    pub after: f64,
    /// Share that was kept.
    pub coverage: f64,
}

/// Agreement with verified labels before and after curation; None is no label, or was dropped. Zeros of nothing.
pub fn label_noise(verified: &[Option<u8>], original: &[Option<u8>], curated: &[Option<u8>]) -> LabelNoise {
    let share = |right: usize, of: usize| if of == 0 { 0.0 } else { right as f64 / of as f64 };
    let agreement = |labels: &[Option<u8>]| -> (usize, usize) {
        let both = verified.iter().zip(labels).filter_map(|(verified, label)| Some((*verified)? == (*label)?));
        both.fold((0, 0), |(right, all), agrees| (right + usize::from(agrees), all + 1))
    };
    let (before, after) = (agreement(original), agreement(curated));
    LabelNoise {
        before: share(before.0, before.1),
        after: share(after.0, after.1),
        coverage: share(after.1, verified.iter().flatten().count()),
    }
}

/// Pairs of a prompt that a judge with the prompt's rubric labels as the data does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consistent {
    /// Share of the pairs; 0 without any.
    pub accuracy: f64,
    /// Whether that is at least the threshold, and there are pairs.
    pub passes: bool,
    /// Indices of the right pairs where it passes.
    pub kept: Vec<usize>,
}

/// The consistency filter over one prompt's pairs: whether the judge was right on each.
pub fn consistent(right: &[bool], threshold: f64) -> Consistent {
    if right.is_empty() {
        return Consistent::default();
    }
    let kept: Vec<usize> = (0..right.len()).filter(|&i| right[i]).collect();
    let accuracy = kept.len() as f64 / right.len() as f64;
    let passes = accuracy >= threshold;
    Consistent { accuracy, passes, kept: if passes { kept } else { Vec::new() } }
}

/// Answers in descending order of their scores; of equal scores the first one stands for all.
pub fn distinct_order(scores: &[f64]) -> Vec<usize> {
    let mut order = ranked::best(scores, scores.len());
    order.dedup_by(|later, earlier| scores[*later] == scores[*earlier]);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_asks_for_more_examples_and_certainty_still_for_one() {
        assert_eq!([-50.0, 0.0, 0.1, 30.0].map(|margin| retrieval_count(margin, 8)), [8, 8, 4, 1]);
        assert_eq!(confidence(0.0), (0.5, 0.5));
    }

    #[test]
    fn nearest_comes_first_and_no_entry_goes_out_twice() {
        let pool = [vec![0.0, 1.0], vec![2.0, 0.1], vec![0.0, 3.0]];
        let queries = [(vec![0.0, 1.0], 2), (vec![0.0, 1.0], 9)];
        assert_eq!(retrieve(&pool, &queries), [vec![0, 2], vec![1]]);
    }

    #[test]
    fn judge_is_asked_where_the_best_model_disagrees_with_the_label() {
        assert_eq!(second_stage(1.0, 1.0, None, true), (Decision::Keep, false));
        assert_eq!(second_stage(1.0, -1.0, None, true), (Decision::Drop, false));
        assert_eq!(second_stage(-1.0, 1.0, Some(Decision::Keep), true), (Decision::Keep, true));
        assert_eq!(second_stage(-1.0, -1.0, Some(Decision::Keep), false), (Decision::Drop, true));
    }

    #[test]
    fn decisions_leave_pairs_in_their_order() {
        assert_eq!(apply(&[Decision::Drop, Decision::Flip, Decision::Keep]), [(1, true), (2, false)]);
    }

    #[test]
    fn dropped_labels_lower_the_coverage_alone() {
        let report = label_noise(&[Some(1), Some(2)], &[Some(2), Some(2)], &[None, Some(2)]);
        assert_eq!(report, LabelNoise { before: 0.5, after: 1.0, coverage: 0.5 });
        assert_eq!(label_noise(&[], &[], &[]), LabelNoise::default());
    }

    #[test]
    fn prompts_that_fail_keep_no_pair() {
        assert_eq!(consistent(&[true, false], 0.5), Consistent { accuracy: 0.5, passes: true, kept: vec![0] });
        assert!(consistent(&[true, false], 0.6).kept.is_empty());
        assert_eq!(consistent(&[], 0.0), Consistent::default());
        assert_eq!(distinct_order(&[5.0, 5.0, 2.0, 7.0]), [3, 0, 2]);
    }
}
