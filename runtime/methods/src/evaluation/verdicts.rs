//! Verdicts of judges: votes, both orders, consensus, accuracies.

use std::collections::BTreeMap;

use crate::advantage::mean;
use crate::stats::{mean_opt, sigmoid};

/// Which of two answers is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The first one shown.
    First,
    /// The second one.
    Second,
    /// Neither.
    Tie,
}

impl Verdict {
    /// The verdict about the answers in the other order.
    #[must_use]
    pub fn swapped(self) -> Self {
        match self {
            Verdict::First => Verdict::Second,
            Verdict::Second => Verdict::First,
            Verdict::Tie => Verdict::Tie,
        }
    }

    /// 1, 1/2 or 0 points for the first answer.
    pub fn points(self) -> f64 {
        match self {
            Verdict::First => 1.0,
            Verdict::Tie => 0.5,
            Verdict::Second => 0.0,
        }
    }
}

/// Votes about a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Votes {
    /// For the first answer.
    pub first: usize,
    /// For the second.
    pub second: usize,
    /// For neither.
    pub ties: usize,
    /// Verdicts that could not be read.
    pub invalid: usize,
}

impl Votes {
    /// Counts verdicts; None could not be read.
    pub fn count(verdicts: impl IntoIterator<Item = Option<Verdict>>) -> Self {
        let mut votes = Votes::default();
        for verdict in verdicts {
            *match verdict {
                Some(Verdict::First) => &mut votes.first,
                Some(Verdict::Second) => &mut votes.second,
                Some(Verdict::Tie) => &mut votes.ties,
                None => &mut votes.invalid,
            } += 1;
        }
        votes
    }

    /// The answer with more votes; a tie where there are as many for both, or none.
    pub fn winner(&self) -> Verdict {
        match self.first.cmp(&self.second) {
            std::cmp::Ordering::Greater => Verdict::First,
            std::cmp::Ordering::Less => Verdict::Second,
            std::cmp::Ordering::Equal => Verdict::Tie,
        }
    }

    /// The winner; None where no verdict could be read.
    pub fn readable_winner(&self) -> Option<Verdict> {
        (self.first + self.second + self.ties > 0).then(|| self.winner())
    }

    /// Credit of the vote where `label` is better: 1 for that winner, one half for a tie, else 0; `unreadable` where no verdict could be read.
    pub fn credit(&self, label: Verdict, unreadable: f64) -> f64 {
        self.readable_winner().map_or(unreadable, |winner| match winner {
            Verdict::Tie => 0.5,
            winner => f64::from(u8::from(winner == label)),
        })
    }
}

/// What a judge says of a pair in both orders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Debiased {
    /// Mean of the points for the first answer; a verdict that could not be read is half a point.
    pub score: f64,
    /// The answer with more than half.
    pub winner: Verdict,
    /// Whether both verdicts could be read and agree.
    pub consistent: bool,
}

/// Joins a verdict with the one where the answers were shown in the other order.
pub fn debiased(first: Option<Verdict>, swapped: Option<Verdict>) -> Debiased {
    let swapped = swapped.map(Verdict::swapped);
    let points = [first, swapped].map(|verdict| verdict.map_or(0.5, Verdict::points));
    let score = f64::midpoint(points[0], points[1]);
    let winner = match score.total_cmp(&0.5) {
        std::cmp::Ordering::Greater => Verdict::First,
        std::cmp::Ordering::Less => Verdict::Second,
        std::cmp::Ordering::Equal => Verdict::Tie,
    };
    Debiased { score, winner, consistent: first.is_some() && swapped.is_some() && points[0] == points[1] }
}

/// Probability of the first answer from the log-probabilities of two verdict tokens: `σ(first - second)`.
pub fn verdict_probability(first: f64, second: f64) -> f64 {
    sigmoid(first - second)
}

/// Accuracies of a judge over items with a category.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JudgeAccuracy {
    /// Share of right verdicts of each category.
    pub by_category: BTreeMap<String, f64>,
    /// Mean over categories; 0 without any.
    pub macro_average: f64,
    /// Share over all items; 0 without any.
    pub micro_average: f64,
}

/// Accuracies from `(category, whether right)`.
pub fn judge_accuracy<'a>(items: impl IntoIterator<Item = (&'a str, bool)>) -> JudgeAccuracy {
    let mut categories: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (category, right) in items {
        categories.entry(category.to_owned()).or_default().push(f64::from(u8::from(right)));
    }
    let all: Vec<f64> = categories.values().flatten().copied().collect();
    let by_category: BTreeMap<String, f64> = categories.into_iter().map(|(name, rights)| (name, mean(&rights))).collect();
    let macro_average = mean(&by_category.values().copied().collect::<Vec<_>>());
    JudgeAccuracy { by_category, macro_average, micro_average: mean(&all) }
}

/// Share of choices that are the preferred ones; one that could not be read is wrong. None without items.
///
/// # Panics
/// When there are not as many preferences as choices.
pub fn choice_accuracy(choices: &[Option<f64>], preferred: &[u8]) -> Option<f64> {
    assert_eq!(choices.len(), preferred.len(), "each choice needs a preference");
    let right = |(choice, preferred): (&Option<f64>, &u8)| f64::from(u8::from(*choice == Some(f64::from(*preferred))));
    mean_opt(&choices.iter().zip(preferred).map(right).collect::<Vec<_>>())
}

/// Share of games that are won, ties apart; 1/2 without a game.
pub fn win_rate(wins: f64, losses: f64) -> f64 {
    if wins + losses > 0.0 { wins / (wins + losses) } else { 0.5 }
}

/// Interval around a share of `successes` of `n` that holds the true one with the confidence of `z` deviations (1.96: 95 %); None without trials.
///
/// Reference: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
pub fn wilson_interval(successes: f64, n: f64, z: f64) -> Option<(f64, f64)> {
    if n <= 0.0 {
        return None;
    }
    let (p, z2) = (successes / n, z * z);
    let center = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    Some(((center - half).max(0.0), (center + half).min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_of_the_other_order_are_turned_round() {
        let both = debiased(Some(Verdict::First), Some(Verdict::Second));
        assert_eq!(both, Debiased { score: 1.0, winner: Verdict::First, consistent: true });
        let one = debiased(None, Some(Verdict::First));
        assert_eq!(one, Debiased { score: 0.25, winner: Verdict::Second, consistent: false });
        assert!(debiased(Some(Verdict::Tie), Some(Verdict::Tie)).consistent);
    }

    #[test]
    fn votes_that_are_even_or_missing_are_ties() {
        let votes = Votes::count([Some(Verdict::First), None, Some(Verdict::Second), Some(Verdict::Tie)]);
        assert_eq!(votes, Votes { first: 1, second: 1, ties: 1, invalid: 1 });
        assert_eq!((votes.winner(), Votes::default().winner()), (Verdict::Tie, Verdict::Tie));
    }

    #[test]
    fn vote_that_is_even_has_half_the_credit_and_one_that_is_unreadable_what_the_rule_gives() {
        let count = |votes: [usize; 2], invalid| Votes { first: votes[0], second: votes[1], invalid, ..Votes::default() };
        let credits = |votes: Votes| [Verdict::First, Verdict::Second].map(|label| votes.credit(label, 0.25));
        assert_eq!(credits(count([2, 1], 1)), [1.0, 0.0]);
        assert_eq!(credits(count([1, 1], 0)), [0.5, 0.5]);
        assert_eq!(credits(count([0, 0], 3)), [0.25, 0.25]);
        assert_eq!((count([0, 0], 3).readable_winner(), count([0, 2], 3).readable_winner()), (None, Some(Verdict::Second)));
    }

    #[test]
    fn macro_average_weighs_categories_alike() {
        let got = judge_accuracy([("a", true), ("a", true), ("a", true), ("b", false)]);
        assert_eq!((got.macro_average, got.micro_average), (0.5, 0.75));
        assert_eq!(judge_accuracy([]), JudgeAccuracy::default());
    }

    #[test]
    fn unreadable_choice_is_wrong_and_nothing_has_no_accuracy() {
        assert_eq!(choice_accuracy(&[Some(1.0), None, Some(1.0), Some(7.0)], &[1, 1, 2, 2]), Some(0.25));
        assert_eq!(choice_accuracy(&[], &[]), None);
    }

    #[test]
    fn interval_of_a_share_stays_within_its_bounds() {
        let (low, high) = wilson_interval(8.0, 10.0, 1.96).unwrap();
        assert!((low - 0.4902).abs() < 1e-4 && (high - 0.9433).abs() < 1e-4, "{low} {high}");
        assert!(wilson_interval(0.0, 5.0, 1.96).unwrap().0 >= 0.0);
        assert_eq!((wilson_interval(0.0, 0.0, 1.96), win_rate(0.0, 0.0)), (None, 0.5));
    }
}
