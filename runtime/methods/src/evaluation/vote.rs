//! Votes over sampled answers.
//!
//! Reference: Nath et al. 2024, "Learning Goal-Conditioned Representations for Language Reward Models", majority votes over the
//! completions that a filter keeps.

use std::collections::BTreeMap;

/// Votes for the answers that are kept, each counting one; over all answers where none is kept.
pub fn count_votes<'a>(answers: &[&'a str], keep: &[bool]) -> BTreeMap<&'a str, usize> {
    let all = !keep.contains(&true);
    let mut votes = BTreeMap::new();
    for (answer, keep) in answers.iter().zip(keep) {
        if all || *keep {
            *votes.entry(*answer).or_insert(0) += 1;
        }
    }
    votes
}

/// Whether an answer has at least as many votes as any other, and whether it has more; both false without a vote for it.
pub fn wins(votes: &BTreeMap<&str, usize>, answer: &str) -> (bool, bool) {
    let own = votes.get(answer).copied().unwrap_or(0);
    let best_other = votes.iter().filter(|(other, _)| **other != answer).map(|(_, count)| *count).max().unwrap_or(0);
    (own > 0 && own >= best_other, own > best_other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_is_a_win_that_is_not_strict() {
        let votes = count_votes(&["7", "8", "8", "7"], &[true; 4]);
        assert_eq!((wins(&votes, "7"), wins(&votes, "9")), ((true, false), (false, false)));
        assert_eq!(wins(&count_votes(&["7", "8"], &[true, false]), "7"), (true, true));
    }

    #[test]
    fn all_answers_vote_where_none_is_kept() {
        assert_eq!(count_votes(&["a", "b", "a"], &[false; 3]), BTreeMap::from([("a", 2), ("b", 1)]));
        assert_eq!(wins(&count_votes(&[], &[]), "a"), (false, false));
    }
}
