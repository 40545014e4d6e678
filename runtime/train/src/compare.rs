//! Two opinions about the same completions: how alike are they? For `plumb run rescore`, and for shadows of plugins in use.
//!
//! A group-relative advantage depends on a reward's order and spread inside a group, so agreement is counted there; rank correlation
//! and drift are over all rows. Rows that lack either value, or where it is not finite, take no part. Zero has no sign here.

use serde::{Deserialize, Serialize};

use plumb_methods::advantage::{TRL_DDOF, mean, std_dev};

/// How alike two lists of values are. What cannot be said, for want of rows or of spread, is None.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Rows.
    pub rows: usize,
    /// Rows that both have a value for; all that follows is about these.
    pub both: usize,
    /// Mean of the old values.
    pub mean_old: Option<f64>,
    /// Mean of the new values.
    pub mean_new: Option<f64>,
    /// Sample deviation of the old values (`ddof` 1; 0 for a single row).
    pub std_old: Option<f64>,
    /// Sample deviation of the new values.
    pub std_new: Option<f64>,
    /// See [`equal`].
    #[serde(default)]
    pub equal: Option<f64>,
    /// See [`agreement`].
    pub agreement: Option<f64>,
    /// See [`spearman`].
    pub spearman: Option<f64>,
    /// See [`drift`].
    pub drift: Option<f64>,
    /// Largest absolute difference of a row.
    pub max_abs_difference: Option<f64>,
    /// See [`changed_winners`].
    pub changed_winners: Option<f64>,
}

/// Compares values of the same rows, in groups with the end rows `group_ends`.
///
/// # Panics
/// When the lists are not equally long, or the groups do not cover them.
pub fn compare(old: &[Option<f64>], new: &[Option<f64>], group_ends: &[u32]) -> Comparison {
    let (olds, news): (Vec<f64>, Vec<f64>) = pairs(old, new).into_iter().flatten().unzip();
    let some = |value: f64| (!olds.is_empty()).then_some(value);
    Comparison {
        rows: old.len(),
        both: olds.len(),
        mean_old: some(mean(&olds)),
        mean_new: some(mean(&news)),
        std_old: some(std_dev(&olds, TRL_DDOF)),
        std_new: some(std_dev(&news, TRL_DDOF)),
        equal: equal(old, new),
        agreement: agreement(old, new, group_ends),
        spearman: spearman(old, new),
        drift: drift(old, new),
        max_abs_difference: some(olds.iter().zip(&news).map(|(a, b)| (b - a).abs()).fold(0.0, f64::max)),
        changed_winners: changed_winners(old, new, group_ends),
    }
}

/// Share of rows with the same value in both lists: for a filter, whose values are 1 (kept) and 0, that of equal decisions. None
/// without a row.
///
/// # Panics
/// When the lists are not equally long.
pub fn equal(old: &[Option<f64>], new: &[Option<f64>]) -> Option<f64> {
    let both: Vec<(f64, f64)> = pairs(old, new).into_iter().flatten().collect();
    let same = both.iter().filter(|(old, new)| old == new).count();
    (!both.is_empty()).then(|| same as f64 / both.len() as f64)
}

/// Agreement in order: share of pairs of rows of one group that both lists order alike, whatever the values; a tie is alike to a tie only. None without a pair.
///
/// # Panics
/// As [`compare`].
pub fn agreement(old: &[Option<f64>], new: &[Option<f64>], group_ends: &[u32]) -> Option<f64> {
    let (mut alike, mut all) = (0_u64, 0_u64);
    for group in groups(&pairs(old, new), group_ends) {
        for (i, (a, b)) in group.iter().enumerate() {
            for (c, d) in &group[i + 1..] {
                all += 1;
                alike += u64::from(a.partial_cmp(c) == b.partial_cmp(d));
            }
        }
    }
    (all > 0).then(|| alike as f64 / all as f64)
}

/// Spearman's rank correlation: Pearson's correlation of the ranks, tied values with the mean of their ranks. None for fewer than
/// two rows, or when one of the lists has equal values only.
///
/// # Panics
/// When the lists are not equally long.
pub fn spearman(old: &[Option<f64>], new: &[Option<f64>]) -> Option<f64> {
    let (old, new): (Vec<f64>, Vec<f64>) = pairs(old, new).into_iter().flatten().unzip();
    let (a, b) = (ranks(&old), ranks(&new));
    // Ranks have one mean whatever the ties.
    let center = f64::midpoint(a.len() as f64, 1.0);
    let sum = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - center) * (y - center)).sum::<f64>();
    let (aa, bb) = (sum(&a, &a), sum(&b, &b));
    (aa > 0.0 && bb > 0.0).then(|| sum(&a, &b) / (aa * bb).sqrt())
}

/// Mean of new minus old, in the unit of the values. None without a row.
///
/// # Panics
/// When the lists are not equally long.
pub fn drift(old: &[Option<f64>], new: &[Option<f64>]) -> Option<f64> {
    let differences: Vec<f64> = pairs(old, new).into_iter().flatten().map(|(old, new)| new - old).collect();
    (!differences.is_empty()).then(|| mean(&differences))
}

/// Share of groups whose winner changed: no row that is best by the old values is best by the new ones. Groups with fewer than two
/// rows are not counted; None without another.
///
/// # Panics
/// As [`compare`].
pub fn changed_winners(old: &[Option<f64>], new: &[Option<f64>], group_ends: &[u32]) -> Option<f64> {
    let (mut changed, mut all) = (0_u64, 0_u64);
    for group in groups(&pairs(old, new), group_ends).filter(|group| group.len() > 1) {
        let best = |of: fn(&(f64, f64)) -> f64| group.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
        let (old_best, new_best) = (best(|row| row.0), best(|row| row.1));
        all += 1;
        changed += u64::from(!group.iter().any(|(old, new)| *old == old_best && *new == new_best));
    }
    (all > 0).then(|| changed as f64 / all as f64)
}

/// Ranks from 1, ties with the mean of theirs.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    // Adding 0.0 takes the sign off negative zero, which `total_cmp` would put below zero.
    order.sort_by(|&i, &j| (values[i] + 0.0).total_cmp(&(values[j] + 0.0)));
    let (mut ranks, mut before) = (vec![0.0; values.len()], 0);
    for tied in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let rank = before as f64 + f64::midpoint(tied.len() as f64, 1.0);
        tied.iter().for_each(|&i| ranks[i] = rank);
        before += tied.len();
    }
    ranks
}

/// Rows that both lists have a finite value for.
fn pairs(old: &[Option<f64>], new: &[Option<f64>]) -> Vec<Option<(f64, f64)>> {
    assert_eq!(old.len(), new.len(), "both lists are about the same rows");
    let finite = |value: &Option<f64>| value.filter(|value| value.is_finite());
    old.iter().zip(new).map(|(old, new)| finite(old).zip(finite(new))).collect()
}

/// The rows of each group that take part.
fn groups<'a>(pairs: &'a [Option<(f64, f64)>], group_ends: &'a [u32]) -> impl Iterator<Item = Vec<(f64, f64)>> + 'a {
    assert_eq!(group_ends.last().copied().unwrap_or(0) as usize, pairs.len(), "groups must cover the rows");
    let starts = std::iter::once(0).chain(group_ends.iter().copied());
    starts.zip(group_ends).map(|(start, &end)| pairs[start as usize..end as usize].iter().copied().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some<const N: usize>(values: [f64; N]) -> [Option<f64>; N] {
        values.map(Some)
    }

    #[test]
    fn comparison_matches_numbers_by_hand() {
        // Pairs: (1,2) alike, (1,3) alike, (2,3) turned round; (4,5) tied by the old alone. Two of four.
        let (old, new) = (some([1.0, 2.0, 3.0, 5.0, 5.0]), some([1.0, 4.0, 3.0, 0.0, 1.0]));
        let found = compare(&old, &new, &[3, 5]);
        assert_eq!((found.rows, found.both, found.agreement, found.equal), (5, 5, Some(0.5), Some(0.4)));
        // The best of the first group was row 3 and is row 2; of the second, row 5 is best both times.
        assert_eq!(found.changed_winners, Some(0.5));
        assert_eq!((found.mean_old, found.mean_new), (Some(3.2), Some(1.8)));
        assert!((found.drift.unwrap() + 1.4).abs() < 1e-15);
        assert_eq!(found.max_abs_difference, Some(5.0));
        // Squares about the means: 4.84 + 1.44 + 0.04 + 2 * 3.24 = 12.8, and 0.64 + 4.84 + 1.44 + 3.24 + 0.64 = 10.8.
        assert!((found.std_old.unwrap() - 3.2_f64.sqrt()).abs() < 1e-15);
        assert!((found.std_new.unwrap() - 2.7_f64.sqrt()).abs() < 1e-15);
        // Ranks 1 2 3 4.5 4.5 and 2.5 5 4 1 2.5, less 3: the products add up to 1 - 2 + 0 - 3 - 0.75, both squares to 9.5.
        assert!((found.spearman.unwrap() + 4.75 / 9.5).abs() < 1e-15, "{found:?}");
    }

    #[test]
    fn tied_values_share_the_mean_of_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 3.0, 2.0]), [4.0, 1.0, 4.0, 4.0, 2.0]);
        assert_eq!(ranks(&[0.0, -0.0, 1.0]), [1.5, 1.5, 3.0]);
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn the_same_values_agree_in_everything() {
        let values = some([0.1, 0.3, -0.2, 0.1, 7.0]);
        let found = compare(&values, &values, &[2, 5]);
        assert_eq!((found.agreement, found.spearman, found.drift), (Some(1.0), Some(1.0), Some(0.0)));
        assert_eq!((found.changed_winners, found.max_abs_difference), (Some(0.0), Some(0.0)));
        let reversed = values.map(|value| value.map(|value| -value));
        assert_eq!(spearman(&values, &reversed), Some(-1.0));
        assert_eq!(agreement(&some([0.0, 0.0]), &some([0.0, -0.0]), &[2]), Some(1.0));
    }

    #[test]
    fn rows_without_both_values_take_no_part() {
        let old = [Some(1.0), None, Some(2.0), Some(f64::NAN), Some(3.0)];
        let new = [Some(10.0), Some(9.0), Some(20.0), Some(1.0), None];
        let found = compare(&old, &new, &[5]);
        assert_eq!((found.rows, found.both, found.agreement, found.drift), (5, 2, Some(1.0), Some(13.5)));
    }

    #[test]
    fn without_rows_pairs_or_spread_nothing_is_said() {
        assert_eq!(compare(&[], &[], &[]), Comparison::default());
        let single = compare(&some([1.0, 2.0]), &some([2.0, 1.0]), &[1, 2]);
        assert_eq!((single.agreement, single.changed_winners, single.spearman), (None, None, Some(-1.0)));
        let flat = compare(&some([1.0, 1.0]), &some([1.0, 2.0]), &[2]);
        assert_eq!((flat.agreement, flat.spearman, flat.changed_winners), (Some(0.0), None, Some(0.0)));
        assert_eq!(compare(&[None], &some([1.0]), &[1]), Comparison { rows: 1, ..Comparison::default() });
    }
}
