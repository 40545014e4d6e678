//! How a judge's verdicts fit those that the input has.

use plumb_train::compare::{Comparison, compare};
use plumb_train::pipeline::judging::Judged;
use serde::Serialize;
use serde_json::Value;

use super::items::{Form, Item};
use super::verdict;
use crate::rows::Row;

/// Verdicts of both sides, as far as there are any.
#[derive(Debug, Default)]
pub struct Agreement {
    column: String,
    pairs: PairCounts,
    /// Verdicts of the input about single completions, then the judge's.
    given: Vec<Option<f64>>,
    found: Vec<Option<f64>>,
    group_ends: Vec<u32>,
}

/// Pairs about which the input has a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PairCounts {
    /// All of them.
    pub pairs: usize,
    /// Those about which the judge has one too.
    pub judged: usize,
    /// Of these, the same verdict.
    pub correct: usize,
    /// A tie on one side only.
    pub ties: usize,
    /// `(correct + ties / 2) / judged`; None without a verdict.
    pub accuracy: Option<f64>,
}

impl Agreement {
    /// With the verdicts of that column.
    pub fn new(column: &str) -> Self {
        Agreement { column: column.to_owned(), ..Agreement::default() }
    }

    /// Adds an item.
    pub fn add(&mut self, item: &Item, judged: &Judged, rows: &[Row]) {
        let given = |line: usize| rows[line].columns.get(&self.column).filter(|value| !value.is_null());
        if let Form::Pair(names) = item.form {
            // A line that calls one of them chosen has said so.
            let stated = given(item.lines[0]).map_or((names[0] == "chosen").then_some(1.0), |value| preference(value, names));
            let Some(stated) = stated else { return };
            self.pairs.pairs += 1;
            let Some(probability) = verdict::pair(judged).probability else { return };
            self.pairs.judged += 1;
            let off = (call(stated) - call(probability)).abs();
            self.pairs.correct += usize::from(off == 0.0);
            self.pairs.ties += usize::from(off == 0.5);
            return;
        }
        let number = |value: &Value| value.as_f64().or(value.as_bool().map(|yes| f64::from(u8::from(yes))));
        self.given.extend(item.lines.iter().map(|&line| given(line).and_then(number)));
        self.found.extend(judged.scores.outcomes.iter().map(plumb_core::Outcome::value));
        self.group_ends.push(self.given.len() as u32);
    }

    /// About pairs; None when the input has no verdict about any.
    pub fn of_pairs(&self) -> Option<PairCounts> {
        let PairCounts { pairs, judged, correct, ties, .. } = self.pairs;
        let accuracy = (judged > 0).then(|| (correct as f64 + 0.5 * ties as f64) / judged as f64);
        (pairs > 0).then_some(PairCounts { accuracy, ..self.pairs })
    }

    /// About single completions and groups; None when the input has no verdict about any.
    pub fn of_values(&self) -> Option<Comparison> {
        self.given.iter().any(Option::is_some).then(|| compare(&self.given, &self.found, &self.group_ends))
    }

    /// For people.
    pub fn text(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        if let Some(PairCounts { pairs, judged, correct, ties, accuracy }) = self.of_pairs() {
            let accuracy = number(accuracy);
            lines.push(format!(
                "accuracy {accuracy} on pairs: {correct} of {judged} as given, {ties} ties count half; {pairs} have a verdict"
            ));
        }
        if let Some(Comparison { both, spearman, agreement, drift, .. }) = self.of_values() {
            let (spearman, drift) = (number(spearman), number(drift));
            let alike = agreement
                .map_or_else(String::new, |share| format!(", {:.1} % of pairs within groups in the same order", 100.0 * share));
            lines.push(format!("`{}` on {both} lines: rank correlation {spearman}, mean difference {drift}{alike}", self.column));
        }
        lines
    }
}

/// 1 for the first, 0 for the second, 0.5 for a tie.
fn call(probability: f64) -> f64 {
    match probability.partial_cmp(&0.5) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Less) => 0.0,
        _ => 0.5,
    }
}

/// A verdict about a pair: the name of the better column or its last word (`a` of `completion_a`), `tie`, or the probability that the
/// first is better. None for anything else.
fn preference(value: &Value, names: [&str; 2]) -> Option<f64> {
    let Some(text) = value.as_str().map(str::to_lowercase) else {
        return value.as_f64().filter(|p| (0.0..=1.0).contains(p));
    };
    let means = |name: &str| text == name || name.rsplit('_').next() == Some(&text);
    match names.map(means) {
        [true, _] => Some(1.0),
        [_, true] => Some(0.0),
        _ => (text == "tie").then_some(0.5),
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::Outcome;
    use plumb_train::pipeline::judging::Spent;
    use plumb_train::pipeline::rows::{Judgement, Scores};
    use serde_json::json;

    use super::*;
    use crate::rows;

    fn judged(values: &[f64]) -> Judged {
        let outcomes: Vec<Outcome> = values.iter().map(|&value| Outcome::Scored(value)).collect();
        let matrix = Some(vec![vec![0.0; 2]; 2]);
        let judgement = Some(Judgement { readable: matrix.clone(), matrix, rationales: None });
        Judged { scores: Scores { outcomes, judgement, ..Scores::default() }, spent: Spent::default() }
    }

    #[test]
    fn pairs_count_ties_of_one_side_by_half() {
        let lines = [
            r#"{"chosen": "x", "rejected": "y"}"#,
            r#"{"completion_a": "x", "completion_b": "y", "verdict": "B"}"#,
            r#"{"completion_a": "x", "completion_b": "y", "verdict": "tie"}"#,
            r#"{"completion_a": "x", "completion_b": "y"}"#,
        ];
        let row = |(i, text): (usize, &&str)| Row { line: i + 1, columns: rows::json_object(text).unwrap() };
        let rows: Vec<Row> = lines.iter().enumerate().map(row).collect();
        let items = super::super::items::read(&rows, "group", "verdict", std::path::Path::new("x")).unwrap();
        let mut agreement = Agreement::new("verdict");
        for (item, p) in items.iter().zip([0.9, 0.8, 0.7, 0.6]) {
            agreement.add(item, &judged(&[p, 1.0 - p]), &rows);
        }
        // Right, wrong, half, and one without a verdict.
        let found = agreement.of_pairs().unwrap();
        assert_eq!(found, PairCounts { pairs: 3, judged: 3, correct: 1, ties: 1, accuracy: Some(0.5) });
        assert_eq!(agreement.of_values(), None);
    }

    #[test]
    fn verdicts_about_pairs_are_names_ties_or_probabilities() {
        let names = ["completion_a", "completion_b"];
        let read = |value: Value| preference(&value, names);
        assert_eq!([read(json!("a")), read(json!("completion_b")), read(json!("Tie"))], [Some(1.0), Some(0.0), Some(0.5)]);
        assert_eq!([read(json!(0.3)), read(json!(1.5)), read(json!("c"))], [Some(0.3), None, None]);
        assert_eq!(preference(&json!("rejected"), ["chosen", "rejected"]), Some(0.0));
    }
}
