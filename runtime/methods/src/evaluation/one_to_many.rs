//! One right answer among many: accuracy and mean reciprocal rank.
//!
//! Reference: Kim et al. 2024, "Evaluating Robustness of Reward Models for Mathematical Reasoning" (RewardMATH).

use crate::advantage::mean;

/// A reward model over problems with one right and several wrong solutions; zeros without problems.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OneToMany {
    /// Share of problems whose right solution is above all others.
    pub accuracy: f64,
    /// Share whose right solution has none above it.
    pub accuracy_with_ties: f64,
    /// Mean of 1 / rank of the right solution; ties count against it.
    pub mean_reciprocal_rank: f64,
    /// 1 / rank of each problem.
    pub reciprocal_ranks: Vec<f64>,
    /// Mean over problems of the share of wrong solutions below the right one.
    pub pairwise_accuracy: f64,
}

fn share(right: usize, of: usize) -> f64 {
    if of == 0 { 1.0 } else { right as f64 / of as f64 }
}

/// Metrics of problems `(reward of the right solution, rewards of the others)`. A problem without others is right.
pub fn one_to_many<'a>(problems: impl IntoIterator<Item = (f64, &'a [f64])>) -> OneToMany {
    let (mut strict, mut tied, mut ranks, mut pairs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (chosen, rejected) in problems {
        let below = rejected.iter().filter(|reward| **reward < chosen).count();
        let above = rejected.iter().filter(|reward| **reward > chosen).count();
        strict.push(f64::from(u8::from(below == rejected.len())));
        tied.push(f64::from(u8::from(above == 0)));
        ranks.push(1.0 / (1 + rejected.len() - below) as f64);
        pairs.push(share(below, rejected.len()));
    }
    OneToMany {
        accuracy: mean(&strict),
        accuracy_with_ties: mean(&tied),
        mean_reciprocal_rank: mean(&ranks),
        reciprocal_ranks: ranks,
        pairwise_accuracy: mean(&pairs),
    }
}

/// Accuracy (all comparisons won) and mean reciprocal rank (1 + losses) of a judge that compares the right solution with each other one.
pub fn of_verdicts(won: &[Vec<bool>]) -> (f64, f64) {
    let losses: Vec<usize> = won.iter().map(|won| won.iter().filter(|won| !**won).count()).collect();
    let over = |f: &dyn Fn(usize) -> f64| mean(&losses.iter().map(|&losses| f(losses)).collect::<Vec<_>>());
    (over(&|losses| f64::from(u8::from(losses == 0))), over(&|losses| 1.0 / (1 + losses) as f64))
}

/// Share of the items whose best answer wins every comparison with the others; items without comparisons are left out. None without any.
pub fn best_of_n_accuracy(won: &[Vec<bool>]) -> Option<f64> {
    let compared: Vec<Vec<bool>> = won.iter().filter(|won| !won.is_empty()).cloned().collect();
    (!compared.is_empty()).then(|| of_verdicts(&compared).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn ties_count_against_the_right_solution_but_where_they_are_forgiven() {
        let got = one_to_many([(1.0, [1.0, 0.0].as_slice()), (2.0, [1.0, 0.0].as_slice()), (0.0, [1.0, 0.0].as_slice())]);
        assert_close(&[got.accuracy, got.accuracy_with_ties, got.pairwise_accuracy], &[1.0 / 3.0, 2.0 / 3.0, 0.5]);
        assert_close(&got.reciprocal_ranks, &[0.5, 1.0, 1.0 / 3.0]);
    }

    #[test]
    fn problem_without_wrong_solutions_is_right_and_no_problems_are_zero() {
        let alone = one_to_many([(0.0, [].as_slice())]);
        assert_eq!((alone.accuracy, alone.mean_reciprocal_rank, alone.pairwise_accuracy), (1.0, 1.0, 1.0));
        assert_eq!(one_to_many([]), OneToMany::default());
    }

    #[test]
    fn judge_must_win_every_comparison() {
        assert_eq!(of_verdicts(&[vec![true, true], vec![true, false]]), (0.5, 0.75));
    }

    #[test]
    fn items_without_comparisons_are_left_out() {
        assert_eq!(best_of_n_accuracy(&[vec![], vec![true, true], vec![false, true]]), Some(0.5));
        assert_eq!((best_of_n_accuracy(&[]), best_of_n_accuracy(&[vec![]])), (None, None));
    }
}
