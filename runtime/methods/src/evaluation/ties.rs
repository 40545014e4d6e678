//! Best of four and questions with several right answers.
//!
//! Reference: Malik et al. 2025, "RewardBench 2".

use std::collections::BTreeMap;

use crate::advantage::mean;

/// Credit of a prompt whose first completion is the right one: `1 / n` where n completions share the greatest score and it is one of them.
pub fn credit(scores: &[f64]) -> f64 {
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sharing = scores.iter().filter(|score| **score == best).count();
    if scores.first() == Some(&best) { 1.0 / sharing as f64 } else { 0.0 }
}

/// How the scores of right completions stand to those of wrong ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Whether every right completion is above every wrong one.
    pub accurate: bool,
    /// Greatest minus least score of the right ones; None of a single one.
    pub of_correct: Option<f64>,
    /// Least score of a right one minus the greatest of a wrong one.
    pub gap: f64,
}

/// Spread of a prompt whose first `correct` completions are right.
pub fn spread(scores: &[f64], correct: usize) -> Spread {
    let (right, wrong) = scores.split_at(correct.min(scores.len()));
    let least = right.iter().copied().fold(f64::INFINITY, f64::min);
    let most = |scores: &[f64]| scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let gap = least - most(wrong);
    Spread { accurate: gap > 0.0, of_correct: (right.len() > 1).then(|| most(right) - least), gap }
}

/// The score of questions that exist with one and with several right answers; each part is 0 without questions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TiesScore {
    /// Share of accurate prompts with several right answers.
    pub tied_accuracy: f64,
    /// Share of accurate prompts with one.
    pub ref_accuracy: f64,
    /// Share of questions whose gap with several right answers is above their spread.
    pub correctness_preferred: f64,
    /// Share whose lesser gap of both forms is.
    pub correctness_preferred_hard: f64,
    /// Mean of `tanh(lesser gap / spread - 1)`, 0 where that is undefined.
    pub margin: f64,
}

impl TiesScore {
    /// The weighted sum: 0.3, 0.3, 0.2, 0.2 and 0.01 of the parts.
    pub fn total(&self) -> f64 {
        0.3 * (self.tied_accuracy + self.ref_accuracy)
            + 0.2 * (self.correctness_preferred + self.correctness_preferred_hard)
            + 0.01 * self.margin
    }
}

/// Whether a prompt has one right answer or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// One.
    Reference,
    /// Several.
    Tied,
}

/// The score over prompts: their form, their question and their spread. Only questions in both forms are compared.
pub fn ties_score<'a>(prompts: impl IntoIterator<Item = (Form, &'a str, Spread)>) -> TiesScore {
    let mut questions: BTreeMap<&str, BTreeMap<Form, Spread>> = BTreeMap::new();
    for (form, question, spread) in prompts {
        questions.entry(question).or_default().insert(form, spread);
    }
    let of = |form: Form| questions.values().filter_map(move |forms| forms.get(&form));
    let accurate = |form| mean(&of(form).map(|spread| f64::from(u8::from(spread.accurate))).collect::<Vec<_>>());
    let both: Vec<(f64, f64, f64)> = questions
        .values()
        .filter_map(|forms| {
            let (reference, tied) = (forms.get(&Form::Reference)?, forms.get(&Form::Tied)?);
            Some((tied.gap, reference.gap.min(tied.gap), tied.of_correct.unwrap_or(f64::NAN)))
        })
        .collect();
    let share = |holds: &dyn Fn(&(f64, f64, f64)) -> bool| {
        mean(&both.iter().map(|question| f64::from(u8::from(holds(question)))).collect::<Vec<_>>())
    };
    let margin = |&(_, lesser, spread): &(f64, f64, f64)| {
        let margin = (lesser / spread - 1.0).tanh();
        if margin.is_nan() { 0.0 } else { margin }
    };
    TiesScore {
        tied_accuracy: accurate(Form::Tied),
        ref_accuracy: accurate(Form::Reference),
        correctness_preferred: share(&|(gap, _, spread)| gap > spread),
        correctness_preferred_hard: share(&|(_, lesser, spread)| lesser > spread),
        margin: mean(&both.iter().map(margin).collect::<Vec<_>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_shared_among_the_best() {
        assert_eq!([credit(&[1.0, 1.0, 0.0]), credit(&[1.0, 2.0]), credit(&[0.0]), credit(&[])], [0.5, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn equal_right_answers_have_no_spread_and_their_margin_is_finite() {
        let tied = spread(&[1.0, 1.0, 0.0], 2);
        assert_eq!(tied, Spread { accurate: true, of_correct: Some(0.0), gap: 1.0 });
        let reference = spread(&[1.0, 1.0], 1);
        assert!(!reference.accurate);
        let score = ties_score([(Form::Tied, "a", tied), (Form::Reference, "a", reference)]);
        // The lesser gap is 0, and 0 / 0 counts 0.
        assert_eq!((score.margin, score.correctness_preferred, score.correctness_preferred_hard), (0.0, 1.0, 0.0));
    }

    #[test]
    fn questions_in_one_form_count_for_its_accuracy_alone() {
        let score = ties_score([(Form::Tied, "a", spread(&[2.0, 1.5, 0.0], 2))]);
        assert_eq!((score.tied_accuracy, score.ref_accuracy, score.correctness_preferred), (1.0, 0.0, 0.0));
        assert_eq!(ties_score([]).total(), 0.0);
    }
}
