//! Recorded and recomputed values, compared bit for bit.

use std::fmt;

use plumb_core::PluginId;
use serde::Serialize;
use serde_json::{Value, json};

use crate::run::{CompletionRecord, OutcomeRecord, StepRecord, Table, TableColumn};

/// Which value of a row, or of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Compared {
    /// What the reward or judge of this name said.
    Outcome {
        /// Name in the run.
        name: String,
    },
    /// What judges said besides: matrices and rationales.
    Judgements,
    /// Rewards of stretches.
    Spans,
    /// Weighted sum of the rewards.
    Raw,
    /// After the shapers.
    Shaped,
    /// What the loss used.
    Advantage,
    /// The advantage of a token.
    TokenAdvantage {
        /// Its index in the completion.
        token: usize,
    },
    /// Weight in the loss.
    Weight,
    /// Whether the loss saw the row.
    Kept,
    /// Why it did not.
    Reason,
    /// Texts that filters replaced.
    Relabelled,
    /// The preference pairs of the step.
    Pairs,
    /// A column of the file of completions that follows from the others.
    Column {
        /// Its name.
        name: String,
    },
    /// The bytes of the file of completions: nothing that plugins answer depends on what was changed in it.
    CompletionsFile,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compared::Outcome { name } => write!(f, "the answer of `{name}`"),
            Compared::Judgements => f.write_str("what judges said besides"),
            Compared::Spans => f.write_str("the rewards of stretches"),
            Compared::Relabelled => f.write_str("what filters replaced"),
            Compared::Pairs => f.write_str("the preference pairs"),
            Compared::Raw => f.write_str("the raw reward"),
            Compared::Shaped => f.write_str("the shaped reward"),
            Compared::Advantage => f.write_str("the advantage"),
            Compared::TokenAdvantage { token } => write!(f, "the advantage of token {token}"),
            Compared::Weight => f.write_str("the weight"),
            Compared::Kept => f.write_str("whether the loss saw it"),
            Compared::Reason => f.write_str("why the loss did not see it"),
            Compared::Column { name } => write!(f, "column `{name}` of the file of completions"),
            Compared::CompletionsFile => f.write_str("the SHA-256 of the file of completions"),
        }
    }
}

/// The first value of a run that is not what its plugins answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Name of the stage.
    pub stage: String,
    /// Step of the run.
    pub step: u64,
    /// Row of the step, from 0; None where it is about the step as a whole.
    pub row: Option<usize>,
    /// Id of the row, as in the file of completions.
    pub row_id: Option<u64>,
    /// Which value.
    pub value: Compared,
    /// As it was recorded.
    pub recorded: Value,
    /// As the plugins answer now.
    pub recomputed: Value,
    /// The plugins that the value comes from, as the ledger has them.
    pub plugins: Vec<PluginId>,
    /// Whether the file of completions has other bytes than the ledger says: the value may follow from a changed text.
    pub completions_changed: bool,
    /// Whether groups of the step were sampled again: what judges decided and rewards counted with those that were discarded is not on record.
    pub refilled: bool,
}

/// A value that differs: which, recorded, recomputed.
pub(super) type Cell = (Compared, Value, Value);

/// Compares a step's values in the order in which they come to be, so that the first difference is not the consequence of
/// another; `names` are those of the outcomes. Returns how many are the same before it, and its row.
pub(super) fn completions(
    names: &[String],
    recorded: &[CompletionRecord],
    now: &[CompletionRecord],
) -> (u64, Option<(usize, Cell)>) {
    let mut same = 0;
    let mut first = |cells: &mut dyn FnMut(&CompletionRecord, &CompletionRecord) -> Vec<(bool, Cell)>| {
        for (row, (a, b)) in recorded.iter().zip(now).enumerate() {
            for (equal, cell) in cells(a, b) {
                if !equal {
                    return Some((row, cell));
                }
                same += 1;
            }
        }
        None
    };
    let number = |value: Compared, of: fn(&CompletionRecord) -> Option<f64>| {
        move |a: &CompletionRecord, b: &CompletionRecord| {
            let (a, b) = (of(a), of(b));
            vec![(a.map(f64::to_bits) == b.map(f64::to_bits), (value.clone(), json!(a), json!(b)))]
        }
    };
    let outcome = |i: usize, name: &str, a: &CompletionRecord, b: &CompletionRecord| {
        let (a, b) = (a.outcomes.get(i), b.outcomes.get(i));
        let equal = match (a, b) {
            (Some(OutcomeRecord::Scored { value: a }), Some(OutcomeRecord::Scored { value: b })) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        };
        vec![(equal, (Compared::Outcome { name: name.to_owned() }, json!(a), json!(b)))]
    };
    let difference = names
        .iter()
        .enumerate()
        .find_map(|(i, name)| first(&mut |a, b| outcome(i, name, a, b)))
        .or_else(|| first(&mut |a, b| listed(Compared::Judgements, &a.judgements, &b.judgements)))
        .or_else(|| first(&mut |a, b| listed(Compared::Spans, &a.spans, &b.spans)))
        .or_else(|| first(&mut number(Compared::Raw, |completion| completion.raw)))
        .or_else(|| first(&mut number(Compared::Shaped, |completion| completion.shaped)))
        .or_else(|| first(&mut number(Compared::Advantage, |completion| completion.advantage)))
        .or_else(|| first(&mut token_advantages))
        .or_else(|| first(&mut number(Compared::Weight, |completion| Some(completion.weight))))
        .or_else(|| first(&mut |a, b| listed(Compared::Relabelled, a.relabelled.as_slice(), b.relabelled.as_slice())))
        .or_else(|| first(&mut |a, b| vec![(a.kept == b.kept, (Compared::Kept, json!(a.kept), json!(b.kept)))]))
        .or_else(|| first(&mut |a, b| vec![(a.reason == b.reason, (Compared::Reason, json!(a.reason), json!(b.reason)))]));
    (same, difference)
}

/// Compares what a step left: the values of its completions, and its pairs. Those have no row.
pub(super) fn step(names: &[String], recorded: &StepRecord, now: &StepRecord) -> (u64, Option<(Option<usize>, Cell)>) {
    let (same, difference) = completions(names, &recorded.completions, &now.completions);
    if let Some((row, cell)) = difference {
        return (same, Some((Some(row), cell)));
    }
    let pairs = listed(Compared::Pairs, &recorded.pairs, &now.pairs);
    let equal = pairs.iter().filter(|(equal, _)| *equal).count() as u64;
    (same + equal, pairs.into_iter().find(|(equal, _)| !equal).map(|(_, cell)| (None, cell)))
}

/// Items compared one by one, by their JSON: it tells zeros of both signs apart. Nothing where neither list has any.
fn listed<T: Serialize>(value: Compared, a: &[T], b: &[T]) -> Vec<(bool, Cell)> {
    let cell = |i: usize| {
        let (a, b) = (json!(a.get(i)), json!(b.get(i)));
        (a == b, (value.clone(), a, b))
    };
    (0..a.len().max(b.len())).map(cell).collect()
}

fn token_advantages(a: &CompletionRecord, b: &CompletionRecord) -> Vec<(bool, Cell)> {
    let of = |record: &CompletionRecord| record.token_advantages.clone().unwrap_or_default();
    let (a, b) = (of(a), of(b));
    let cell = |token: usize| {
        let (a, b) = (a.get(token).copied(), b.get(token).copied());
        (a.map(f32::to_bits) == b.map(f32::to_bits), (Compared::TokenAdvantage { token }, json!(a), json!(b)))
    };
    (0..a.len().max(b.len())).map(cell).collect()
}

/// Beginnings of the names of columns that plugins decide about: one that only one table has differs where it has a value.
const OF_PLUGINS: [&str; 2] = ["rewards/", "judge/"];

/// The first cell, row by row, of the columns that both tables have and of those that plugins decide about: row, column, recorded,
/// recomputed.
pub(super) fn table(recorded: &Table, now: &Table) -> Option<(usize, Cell)> {
    let mut first: Option<(usize, Cell)> = None;
    let new = now.columns().map(|(name, _)| name).filter(|name| recorded.column(name).is_none());
    for name in recorded.columns().map(|(name, _)| name).chain(new) {
        let (a, b) = (recorded.column(name), now.column(name));
        let of_plugins = OF_PLUGINS.iter().any(|prefix| name.starts_with(prefix));
        let cell = |column: Option<&TableColumn>, row| column.map_or(Value::Null, |column| json_cell(column, row));
        let same = |row: &usize| match (a, b) {
            (Some(a), Some(b)) => same_cell(a, b, *row),
            _ => !of_plugins || cell(a, *row) == cell(b, *row),
        };
        let rows = first.as_ref().map_or(recorded.rows(), |(row, _)| *row);
        if let Some(row) = (0..rows).find(|row| !same(row)) {
            first = Some((row, (Compared::Column { name: name.into() }, cell(a, row), cell(b, row))));
        }
    }
    first
}

fn same_cell(a: &TableColumn, b: &TableColumn, row: usize) -> bool {
    match (a, b) {
        (TableColumn::Text(a), TableColumn::Text(b)) => a[row] == b[row],
        (TableColumn::Int(a), TableColumn::Int(b)) => a[row] == b[row],
        (TableColumn::Float(a), TableColumn::Float(b)) => a[row].map(f64::to_bits) == b[row].map(f64::to_bits),
        (TableColumn::Bool(a), TableColumn::Bool(b)) => a[row] == b[row],
        _ => false,
    }
}

fn json_cell(column: &TableColumn, row: usize) -> Value {
    match column {
        TableColumn::Text(values) => json!(values[row]),
        TableColumn::Int(values) => json!(values[row]),
        TableColumn::Float(values) => json!(values[row]),
        TableColumn::Bool(values) => json!(values[row]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> CompletionRecord {
        CompletionRecord {
            outcomes: vec![OutcomeRecord::Scored { value: 0.0 }, OutcomeRecord::Failed { code: "trap".into() }],
            raw: Some(1.5),
            token_advantages: Some(vec![1.0, 2.0]),
            weight: 1.0,
            kept: true,
            ..CompletionRecord::default()
        }
    }

    #[test]
    fn every_value_of_a_completion_counts_and_its_first_difference_is_named() {
        let names = ["a".to_owned(), "b".to_owned()];
        // Two outcomes, four numbers, two tokens, kept and reason.
        assert_eq!(completions(&names, &[record(), record()], &[record(), record()]), (20, None));
        let differs = |change: fn(&mut CompletionRecord)| {
            let mut now = record();
            change(&mut now);
            completions(&names, &[record()], &[now]).1.unwrap().1
        };
        let (value, a, b) = differs(|now| now.outcomes[0] = OutcomeRecord::Scored { value: -0.0 });
        assert_eq!((value, b["value"].to_string()), (Compared::Outcome { name: "a".into() }, "-0.0".into()));
        assert_eq!(a["status"], "scored");
        assert_eq!(differs(|now| now.outcomes[1] = OutcomeRecord::Failed { code: "fuel".into() }).1["code"], "trap");
        assert_eq!(differs(|now| now.raw = Some(1.5 + f64::EPSILON)).0, Compared::Raw);
        assert_eq!(differs(|now| now.shaped = Some(0.0)), (Compared::Shaped, Value::Null, 0.0.into()));
        assert_eq!(differs(|now| now.token_advantages = Some(vec![1.0])).0, Compared::TokenAdvantage { token: 1 });
        assert_eq!(differs(|now| now.kept = false).0, Compared::Kept);
        assert_eq!(differs(|now| now.reason = Some("x".into())).0, Compared::Reason);
    }

    #[test]
    fn cause_is_named_before_its_consequences_in_earlier_rows() {
        let mut now = [record(), record()];
        now[0].advantage = Some(-1.0);
        now[1].outcomes[0] = OutcomeRecord::Scored { value: 1.0 };
        let (same, difference) = completions(&["a".into(), "b".into()], &[record(), record()], &now);
        assert_eq!((same, difference.unwrap().0), (1, 1));
    }

    #[test]
    fn first_cell_is_that_of_the_first_row_whatever_the_column() {
        let make = |texts: [&str; 3], numbers: [f64; 3]| {
            let mut table = Table::new(3);
            table.text("a", texts);
            table.float("b", numbers.map(Some));
            table
        };
        let recorded = make(["x", "y", "z"], [1.0, 2.0, 3.0]);
        assert_eq!(table(&recorded, &recorded), None);
        let (row, (value, a, b)) = table(&recorded, &make(["x", "y", "Z"], [1.0, 2.5, 4.0])).unwrap();
        assert_eq!((row, value, a, b), (1, Compared::Column { name: "b".into() }, 2.0.into(), 2.5.into()));
    }

    #[test]
    fn part_that_appears_or_disappears_is_a_difference() {
        let make = |parts: &[&str]| {
            let mut table = Table::new(2);
            parts.iter().for_each(|part| table.float(*part, [None, Some(1.0)]));
            table
        };
        let (without, with) = (make(&["raw"]), make(&["raw", "rewards/a/part", "other"]));
        let column = || Compared::Column { name: "rewards/a/part".into() };
        assert_eq!(table(&without, &with), Some((1, (column(), Value::Null, 1.0.into()))));
        assert_eq!(table(&with, &without), Some((1, (column(), 1.0.into(), Value::Null))));
    }
}
