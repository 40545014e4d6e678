//! From what a judge decided to the lines that say so.

use plumb_core::{Outcome, RowFault};
use plumb_train::pipeline::judging::{Judged, Spent};
use plumb_train::pipeline::rows::{Judgement, Scores};
use serde_json::{Map, Value, json};

use super::items::{Form, Item};
use crate::rows::Row;

/// How a line may end.
pub const STATUSES: [&str; 4] = ["scored", "abstained", "unparseable", "failed"];

/// The status of a row.
pub fn status(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Scored(_) => "scored",
        Outcome::Abstained(_) => "abstained",
        Outcome::Failed(fault) if fault.code == "unparseable" => "unparseable",
        Outcome::Failed(_) => "failed",
    }
}

fn fault(outcome: &Outcome) -> Option<&RowFault> {
    match outcome {
        Outcome::Scored(_) => None,
        Outcome::Abstained(fault) | Outcome::Failed(fault) => Some(fault),
    }
}

/// What was decided about a pair.
pub struct PairVerdict<'a> {
    /// As of a row: the worse of the two rows' counts.
    pub status: &'static str,
    /// Probability that the first is better, 0.5 for a tie; None without a verdict.
    pub probability: Option<f64>,
    /// Why there is none.
    pub fault: Option<&'a RowFault>,
}

/// The verdict about a pair. A judge that compares gives the probability itself; of one that grades, the better grade wins.
pub fn pair(judged: &Judged) -> PairVerdict<'_> {
    let [first, second] = [&judged.scores.outcomes[0], &judged.scores.outcomes[1]];
    let compared = judged.scores.judgement.as_ref().is_some_and(|judgement| judgement.matrix.is_some());
    let probability = first.value().zip(second.value()).map(|(a, b)| match a.partial_cmp(&b) {
        _ if compared => a,
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Less) => 0.0,
        _ => 0.5,
    });
    let place = |outcome: &Outcome| STATUSES.iter().position(|name| *name == status(outcome));
    let worse = if place(second) > place(first) { second } else { first };
    PairVerdict { status: status(worse), probability, fault: fault(worse) }
}

/// An item about which there is no verdict.
pub fn failed(item: &Item, fault: &RowFault) -> Judged {
    let outcomes = vec![Outcome::Failed(fault.clone()); item.rows.len()];
    let scores = Scores { outcomes, judgement: Some(Judgement::default()), ..Scores::default() };
    Judged { scores, spent: Spent::default() }
}

/// The lines about an item, one for each of its input lines.
pub fn lines(item: &Item, judged: &Judged, rows: &[Row]) -> Vec<String> {
    let tokens = Value::from(judged.spent.tokens);
    let with_id = |row: usize, fields: Map<String, Value>| {
        let mut line = Map::from_iter([("id".to_owned(), rows[item.lines[row]].id())]);
        line.extend(fields);
        line.insert("tokens".into(), tokens.clone());
        Value::Object(line).to_string()
    };
    match item.form {
        Form::Pair(names) => {
            let PairVerdict { status, probability, fault } = pair(judged);
            let prefers = probability.map(|p| match p.partial_cmp(&0.5) {
                Some(std::cmp::Ordering::Greater) => names[0],
                Some(std::cmp::Ordering::Less) => names[1],
                _ => "tie",
            });
            let (code, message) = fault.map(|fault| (&fault.code, &fault.message)).unzip();
            let both = [0, 1].map(|row| {
                let mut fields = of_row(&judged.scores, row);
                // The pair's own say it.
                fields.retain(|name, _| !["status", "code", "message"].contains(&name.as_str()));
                fields
            });
            let line = json!({
                "status": status, "value": probability, "prefers": prefers, "code": code, "message": message, "rows": both,
            });
            let Value::Object(line) = line else { unreachable!("an object was written") };
            vec![with_id(0, line)]
        }
        Form::Single => vec![with_id(0, of_row(&judged.scores, 0))],
        Form::Group => {
            let line = |row: usize| {
                let mut fields = of_row(&judged.scores, row);
                if let Some(Judgement { matrix: Some(matrix), readable: Some(readable), .. }) = &judged.scores.judgement {
                    // An entry that could not be read is none.
                    let entries = matrix[row].iter().zip(&readable[row]).enumerate();
                    let entry = |(other, (x, read)): (usize, (&f64, &f64))| (*read > 0.0 || other == row).then_some(*x);
                    fields.insert("matrix".into(), entries.map(entry).collect());
                }
                with_id(row, fields)
            };
            (0..item.rows.len()).map(line).collect()
        }
    }
}

/// What was decided about one row.
fn of_row(scores: &Scores, row: usize) -> Map<String, Value> {
    let outcome = &scores.outcomes[row];
    let parts = scores.parts.iter().filter(|(_, values)| values[row].is_finite());
    let parts: Map<String, Value> = parts.map(|(name, values)| (name.clone(), values[row].into())).collect();
    let (code, message) = fault(outcome).map(|fault| (&fault.code, &fault.message)).unzip();
    let fields = json!({ "status": status(outcome), "value": outcome.value(), "parts": parts, "code": code, "message": message });
    let Value::Object(mut fields) = fields else { unreachable!("an object was written") };
    if let Some(texts) = scores.judgement.as_ref().and_then(|judgement| judgement.rationales.as_ref()) {
        fields.insert("rationale".into(), texts[row].as_str().into());
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(outcomes: Vec<Outcome>, compared: bool) -> Judged {
        let matrix = compared.then(|| vec![vec![0.0; outcomes.len()]; outcomes.len()]);
        let judgement = Some(Judgement { readable: matrix.clone(), matrix, rationales: None });
        Judged { scores: Scores { outcomes, judgement, ..Scores::default() }, spent: Spent::default() }
    }

    #[test]
    fn pair_takes_the_comparison_as_it_is_and_grades_by_their_order() {
        let scored = |a, b| vec![Outcome::Scored(a), Outcome::Scored(b)];
        assert_eq!(pair(&judged(scored(0.25, 0.75), true)).probability, Some(0.25));
        let graded = [(3.0, 2.0), (2.0, 3.0), (2.0, 2.0)].map(|(a, b)| pair(&judged(scored(a, b), false)).probability);
        assert_eq!(graded, [Some(1.0), Some(0.0), Some(0.5)]);
    }

    #[test]
    fn pair_of_which_one_row_has_no_grade_has_no_verdict_and_says_why() {
        let fault = RowFault { code: "unparseable".into(), message: "no grade".into() };
        let found = judged(vec![Outcome::Scored(1.0), Outcome::Failed(fault)], false);
        let PairVerdict { status, probability, fault } = pair(&found);
        assert_eq!((status, probability, fault.map(|fault| fault.message.as_str())), ("unparseable", None, Some("no grade")));
    }
}
