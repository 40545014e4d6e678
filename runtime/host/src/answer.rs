//! Checks of what guests answer. Nothing from a guest is used before it passed.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_core::feedback::{MAX_PARTS, Pairs, Relabel, Span};
use plumb_core::services::ServiceFault;
use plumb_core::{Batch, Column, Decision, Outcome, PluginFault, Ragged, Rewards, RowFault, Shaped};

use crate::bindings::{filtering, rewarding, shaping, tooling, types};
use crate::limits;
use crate::services::ToolAnswers;
use crate::view::BatchView;

mod judging;

pub use judging::turn;

type Checked<T> = Result<T, PluginFault>;

/// Code of a row fault that means "not my case".
const ABSTAIN: &str = "abstain";

/// Checks a reward plugin's answer for the rows of `view`.
pub fn rewards(answer: rewarding::Rewards, view: &BatchView) -> Checked<Rewards> {
    let rows = view.rows();
    let faults = row_faults(answer.faults, rows)?;
    let faulty = |row: usize| faults.contains_key(&row);
    count("values", rows, answer.values.len())?;
    usable("the value", &answer.values, faulty)?;
    let parts = parts(answer.parts, rows, faulty)?;
    let spans = spans(answer.spans, rows, faulty)?;
    let mut outcomes: Vec<Outcome> = answer.values.into_iter().map(Outcome::Scored).collect();
    for (row, fault) in faults {
        outcomes[row] = if fault.code == ABSTAIN { Outcome::Abstained(fault) } else { Outcome::Failed(fault) };
    }
    Ok(Rewards { outcomes, parts, spans })
}

/// Checks a shaper's answer.
pub fn shaped(answer: shaping::Shaped, batch: &Batch) -> Checked<Shaped> {
    let rows = batch.rows();
    let faults = row_faults(answer.faults, rows)?;
    let faulty = |row: usize| faults.contains_key(&row);
    if answer.values.is_none() && answer.token_values.is_none() {
        return bad("neither `values` nor `token-values`".into());
    }
    if let Some(values) = &answer.values {
        count("values", rows, values.len())?;
        // A row that came without a value may leave without one.
        let without = match batch.column("value") {
            Some(Column::F64(before)) => before.as_slice(),
            _ => &[],
        };
        usable("the value", values, |row| faulty(row) || (values[row].is_nan() && without.get(row).is_some_and(|v| v.is_nan())))?;
    }
    let token_values = match answer.token_values {
        Some(tokens) => Some(token_values(tokens, batch, faulty)?),
        None => None,
    };
    let parts = parts(answer.parts, rows, faulty)?;
    Ok(Shaped {
        values: answer.values,
        token_values,
        parts,
        faults: faults.into_iter().map(|(row, fault)| (row as u32, fault)).collect(),
    })
}

/// Checks a filter's answer.
pub fn decision(answer: filtering::Decision, batch: &Batch) -> Checked<Decision> {
    let rows = batch.rows();
    count("entries of `keep`", rows, answer.keep.len())?;
    if let Some(row) = answer.keep.iter().position(|&keep| keep > 1) {
        return bad(format!("{} as `keep` of row {row}, expected 0 or 1", answer.keep[row]));
    }
    if let Some(weights) = &answer.weights {
        count("weights", rows, weights.len())?;
        usable("the weight", weights, |_| false)?;
        if let Some(row) = weights.iter().position(|&weight| weight < 0.0) {
            return bad(format!("{} as the weight of row {row}, weights are not negative", weights[row]));
        }
    }
    let pairs = answer.pairs.map(|pairs| check_pairs(pairs, rows)).transpose()?;
    at_most("relabels", MAX_PARTS, answer.relabels.len())?;
    let relabels = answer.relabels.into_iter().map(|relabel| check_relabel(relabel, batch)).collect::<Checked<_>>()?;
    let groups = batch.group_ends.len();
    at_most("groups to regenerate", groups, answer.regenerate.len())?;
    if let Some(group) = answer.regenerate.iter().find(|&&group| group as usize >= groups) {
        return bad(format!("group {group} to regenerate, the batch has {groups}"));
    }
    let mut reasons = BTreeMap::new();
    for (row, reason) in answer.reasons {
        in_range("a reason", row, rows)?;
        // A row is dropped once: its first reason stands.
        reasons.entry(row).or_insert_with(|| clip(reason));
    }
    Ok(Decision {
        keep: answer.keep.into_iter().map(|keep| keep == 1).collect(),
        weights: answer.weights,
        pairs,
        relabels,
        regenerate: answer.regenerate,
        parts: parts(answer.parts, rows, |_| false)?,
        reasons: reasons.into_iter().collect(),
    })
}

/// Checks a tool's answer for that many rows.
pub fn tool_outputs(answer: tooling::Outputs, rows: usize) -> Checked<ToolAnswers> {
    let mut faults = BTreeMap::new();
    for types::RowFault { row, fault } in answer.faults {
        in_range("a fault", row, rows)?;
        let fault = ServiceFault { code: code(fault.code)?, message: clip(fault.message), retryable: fault.retryable };
        if faults.insert(row as usize, fault).is_some() {
            return bad(format!("two faults for row {row}"));
        }
    }
    let texts = judging::texts("the outputs", answer.output, rows)?;
    let outputs = (0..rows).map(|row| match (faults.remove(&row), texts.get(row).unwrap_or_default()) {
        (Some(fault), _) => Err(fault),
        (None, text) if text.len() > limits::TOOL_OUTPUT_BYTES => {
            let message = format!("an answer of {} bytes, limit {}", text.len(), limits::TOOL_OUTPUT_BYTES);
            Err(ServiceFault::new("too-long", message))
        }
        (None, text) => Ok(text.to_owned()),
    });
    Ok(outputs.collect())
}

fn token_values(tokens: types::RaggedF32, batch: &Batch, faulty: impl Fn(usize) -> bool) -> Checked<Ragged<f32>> {
    ends("token-values", &tokens.ends, batch.rows(), tokens.values.len())?;
    let tokens = Ragged { values: tokens.values, ends: tokens.ends };
    let completions = match batch.column("completion_ids") {
        Some(Column::Tokens(ids)) => Some(ids),
        _ => None,
    };
    for row in (0..tokens.len()).filter(|&row| !faulty(row)) {
        let values = tokens.row(row);
        if let Some(ids) = completions {
            count(&format!("token values of row {row}"), ids.row(row).len(), values.len())?;
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(PluginFault::NonFinite { what: "a token value".into(), row, value: value.to_string() });
        }
        if let Some(value) = values.iter().find(|value| f64::from(value.abs()) > limits::MAGNITUDE) {
            return too_large("a token value", row, f64::from(*value));
        }
    }
    Ok(tokens)
}

fn check_pairs(pairs: filtering::Pairs, rows: usize) -> Checked<Pairs> {
    let n = pairs.chosen.len();
    at_most("pairs", limits::PAIRS_PER_ROW * rows, n)?;
    count("entries of `pairs.rejected`", n, pairs.rejected.len())?;
    count("entries of `pairs.probability`", n, pairs.probability.len())?;
    count("entries of `pairs.margin`", n, pairs.margin.len())?;
    count("entries of `pairs.level`", n, pairs.level.len())?;
    for pair in 0..n {
        in_range("a pair", pairs.chosen[pair], rows)?;
        in_range("a pair", pairs.rejected[pair], rows)?;
        // NaN is in no range.
        if !(0.0..=1.0).contains(&pairs.probability[pair]) {
            return bad(format!("{} as the probability of pair {pair}", pairs.probability[pair]));
        }
        if !(-limits::MAGNITUDE..=limits::MAGNITUDE).contains(&pairs.margin[pair]) {
            return bad(format!("{} as the margin of pair {pair}", pairs.margin[pair]));
        }
    }
    let filtering::Pairs { chosen, rejected, probability, margin, level } = pairs;
    Ok(Pairs { chosen, rejected, probability, margin, level })
}

fn check_relabel(relabel: filtering::Relabel, batch: &Batch) -> Checked<Relabel> {
    let filtering::Relabel { column, rows, texts } = relabel;
    at_most("rows of a relabel", batch.rows(), rows.len())?;
    if !matches!(batch.column(&column), Some(Column::Text(_))) {
        return bad(format!("a relabel of `{column}`, which is no text column of the batch"));
    }
    ends("the texts of a relabel", &texts.ends, rows.len(), texts.bytes.len())?;
    let texts = plumb_core::Texts { bytes: texts.bytes, ends: texts.ends };
    let relabelled = rows.into_iter().enumerate().map(|(i, row)| {
        in_range("a relabel", row, batch.rows())?;
        match texts.get(i) {
            Some(text) => Ok((row, text.to_owned())),
            None => bad(format!("a relabel of `{column}` in row {row} that is not UTF-8")),
        }
    });
    Ok(Relabel { rows: relabelled.collect::<Checked<_>>()?, column })
}

fn row_faults(faults: Vec<types::RowFault>, rows: usize) -> Checked<BTreeMap<usize, RowFault>> {
    let mut by_row = BTreeMap::new();
    for types::RowFault { row, fault } in faults {
        in_range("a fault", row, rows)?;
        let fault = RowFault { code: code(fault.code)?, message: clip(fault.message) };
        if by_row.insert(row as usize, fault).is_some() {
            return bad(format!("two faults for row {row}"));
        }
    }
    Ok(by_row)
}

/// Named components. NaN says that a row has no such part, and stands in all faulty rows.
fn parts(parts: Vec<types::NamedF64>, rows: usize, faulty: impl Fn(usize) -> bool + Copy) -> Checked<Vec<(String, Vec<f64>)>> {
    at_most("parts", MAX_PARTS, parts.len())?;
    let mut checked: Vec<(String, Vec<f64>)> = Vec::with_capacity(parts.len());
    for types::NamedF64 { name, mut values } in parts {
        at_most("bytes in the name of a part", limits::NAME_BYTES, name.len())?;
        if name.is_empty() || checked.iter().any(|(other, _)| *other == name) {
            return bad(format!("a part named {name:?}; names must be there and differ"));
        }
        count(&format!("values of part `{name}`"), rows, values.len())?;
        finite(&format!("part `{name}`"), &values, |row| values[row].is_nan() || faulty(row))?;
        (0..rows).filter(|&row| faulty(row)).for_each(|row| values[row] = f64::NAN);
        checked.push((name, values));
    }
    Ok(checked)
}

/// Stretches of the completions; those of faulty rows are left out.
fn spans(spans: Vec<types::NamedSpans>, rows: usize, faulty: impl Fn(usize) -> bool) -> Checked<Vec<Span>> {
    at_most("lists of spans", limits::SPAN_LISTS, spans.len())?;
    at_most("spans", limits::SPANS_PER_ROW * rows, spans.iter().map(|span| span.rows.len()).sum())?;
    let mut checked = Vec::new();
    for span in spans {
        at_most("bytes in the name of spans", limits::NAME_BYTES, span.name.len())?;
        let (name, n): (Arc<str>, _) = (span.name.into(), span.rows.len());
        count(&format!("starts of spans `{name}`"), n, span.starts.len())?;
        count(&format!("stops of spans `{name}`"), n, span.stops.len())?;
        count(&format!("values of spans `{name}`"), n, span.values.len())?;
        let in_tokens = match span.unit.as_str() {
            "token" => true,
            "char" => false,
            other => return bad(format!("unit {other:?} of spans `{name}`, expected `char` or `token`")),
        };
        for i in 0..n {
            let (row, start, stop, value) = (span.rows[i], span.starts[i], span.stops[i], span.values[i]);
            in_range("a span", row, rows)?;
            if faulty(row as usize) {
                continue;
            }
            if start > stop {
                return bad(format!("span `{name}` of row {row} from {start} to {stop}"));
            }
            if !value.is_finite() {
                return Err(PluginFault::NonFinite {
                    what: format!("span `{name}`"),
                    row: row as usize,
                    value: value.to_string(),
                });
            }
            if value.abs() > limits::MAGNITUDE {
                return too_large(&format!("span `{name}`"), row as usize, value);
            }
            checked.push(Span { name: Arc::clone(&name), in_tokens, row, start, stop, value });
        }
    }
    Ok(checked)
}

/// The code of a fault, which stands in the run's records once per row.
pub fn code(code: String) -> Checked<String> {
    at_most("bytes in a fault's code", limits::CODE_BYTES, code.len()).map(|()| code)
}

/// Cuts a text that the host will keep.
pub fn clip(text: String) -> String {
    clip_to(limits::MESSAGE_BYTES, text)
}

fn clip_to(bytes: usize, mut text: String) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

fn bad<T>(message: String) -> Checked<T> {
    Err(PluginFault::BadOutput { message: clip(message) })
}

/// Refuses a list that is longer than any use, before it is walked.
fn at_most(what: &str, limit: usize, got: usize) -> Checked<()> {
    if got <= limit { Ok(()) } else { bad(format!("{got} {what}, limit {limit}")) }
}

fn count(what: &str, expected: usize, got: usize) -> Checked<()> {
    if got == expected { Ok(()) } else { Err(PluginFault::WrongCount { what: what.to_owned(), expected, got }) }
}

fn finite(what: &str, values: &[f64], faulty: impl Fn(usize) -> bool) -> Checked<()> {
    match values.iter().enumerate().find(|(row, value)| !value.is_finite() && !faulty(*row)) {
        Some((row, value)) => Err(PluginFault::NonFinite { what: what.to_owned(), row, value: value.to_string() }),
        None => Ok(()),
    }
}

/// Finite, and of a size that a loss can work with.
fn usable(what: &str, values: &[f64], faulty: impl Fn(usize) -> bool + Copy) -> Checked<()> {
    // NaN fails this too. One pass for all answers that are right.
    if values.iter().all(|value| value.abs() <= limits::MAGNITUDE) {
        return Ok(());
    }
    finite(what, values, faulty)?;
    match values.iter().enumerate().find(|(row, value)| value.abs() > limits::MAGNITUDE && !faulty(*row)) {
        Some((row, value)) => too_large(what, row, *value),
        None => Ok(()),
    }
}

fn too_large<T>(what: &str, row: usize, value: f64) -> Checked<T> {
    bad(format!("{value:e} as {what} of row {row}, limit ±{:e}", limits::MAGNITUDE))
}

fn in_range(what: &str, row: u32, rows: usize) -> Checked<()> {
    if (row as usize) < rows { Ok(()) } else { bad(format!("{what} for row {row}, the batch has {rows}")) }
}

/// One end per row, never decreasing, the last at the end of the values.
fn ends(what: &str, ends: &[u32], rows: usize, values: usize) -> Checked<()> {
    count(&format!("ends of {what}"), rows, ends.len())?;
    if !ends.is_sorted() {
        return bad(format!("ends of {what} that decrease"));
    }
    if ends.last().map_or(0, |&end| end as usize) != values {
        return bad(format!("ends of {what} that do not end at its {values} values"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn batch() -> Batch {
        let mut batch = Batch::new(0, vec![0, 1, 2], vec![3]);
        batch.insert("completion", Column::Text(["a", "b", "c"].iter().collect()));
        let mut ids = Ragged::default();
        ids.push(&[5, 6]);
        ids.push(&[]);
        ids.push(&[7]);
        batch.insert("completion_ids", Column::Tokens(ids));
        batch
    }

    fn fault(row: u32, code: &str) -> types::RowFault {
        types::RowFault { row, fault: types::Fault { code: code.into(), message: "why".into(), retryable: false } }
    }

    fn reward(values: Vec<f64>, faults: Vec<types::RowFault>) -> Checked<Rewards> {
        let parts = vec![types::NamedF64 { name: "part".into(), values: values.clone() }];
        let answer = rewarding::Rewards { values, parts, spans: Vec::new(), faults };
        rewards(answer, &BatchView::new(Arc::new(batch())))
    }

    #[test]
    fn rewards_of_faulty_rows_are_ignored_whatever_they_are() {
        let answer = reward(vec![1.0, f64::NAN, 3.0], vec![fault(1, "abstain"), fault(2, "unparseable")]).unwrap();
        assert_eq!(answer.outcomes[0], Outcome::Scored(1.0));
        assert!(matches!(&answer.outcomes[1], Outcome::Abstained(f) if f.message == "why"));
        assert!(matches!(&answer.outcomes[2], Outcome::Failed(f) if f.code == "unparseable"));
        assert!(answer.parts[0].1[0] == 1.0 && answer.parts[0].1[1].is_nan() && answer.parts[0].1[2].is_nan());
    }

    #[test]
    fn rewards_that_break_a_rule_are_typed_faults() {
        assert_eq!(reward(vec![1.0], vec![]).unwrap_err().code(), "wrong_count");
        assert!(matches!(reward(vec![0.0, f64::INFINITY, 0.0], vec![]), Err(PluginFault::NonFinite { row: 1, .. })));
        assert_eq!(reward(vec![0.0; 3], vec![fault(3, "x")]).unwrap_err().code(), "bad_output");
        assert_eq!(reward(vec![0.0; 3], vec![fault(1, "x"), fault(1, "y")]).unwrap_err().code(), "bad_output");
    }

    #[test]
    fn numbers_that_a_loss_cannot_work_with_are_refused() {
        assert!(reward(vec![limits::MAGNITUDE, -limits::MAGNITUDE, 0.0], vec![]).is_ok());
        let error = reward(vec![0.0, f64::MAX, 0.0], vec![]).unwrap_err();
        assert!(error.code() == "bad_output" && error.to_string().contains("of row 1, limit ±1e12"), "{error}");
        assert!(reward(vec![0.0, f64::MAX, 0.0], vec![fault(1, "abstain")]).is_ok(), "values of faulty rows are ignored");
        let weigh = |weight: f64| {
            let answer = filtering::Decision {
                keep: vec![1; 3],
                weights: Some(vec![1.0, weight, 1.0]),
                pairs: None,
                relabels: Vec::new(),
                regenerate: Vec::new(),
                parts: Vec::new(),
                reasons: Vec::new(),
            };
            decision(answer, &batch())
        };
        assert!(weigh(0.0).is_ok() && weigh(-1e-9).is_err() && weigh(1e13).is_err() && weigh(f64::NAN).is_err());
    }

    #[test]
    fn answers_that_would_grow_in_the_host_are_refused_or_cut() {
        let long = "é".repeat(limits::MESSAGE_BYTES);
        let mut wordy = fault(1, "x");
        wordy.fault.message.clone_from(&long);
        let Outcome::Failed(kept) = &reward(vec![0.0; 3], vec![wordy]).unwrap().outcomes[1] else { panic!("a failed row") };
        assert_eq!(kept.message, format!("{}…", &long[..limits::MESSAGE_BYTES]));
        assert_eq!(reward(vec![0.0; 3], vec![fault(1, &"c".repeat(limits::CODE_BYTES + 1))]).unwrap_err().code(), "bad_output");
        let many = |n: usize, bytes: usize| {
            let name = |i| format!("{i:0>bytes$}");
            parts((0..n).map(|i| types::NamedF64 { name: name(i), values: vec![0.0] }).collect(), 1, |_| false)
        };
        assert!(many(MAX_PARTS, limits::NAME_BYTES).is_ok());
        assert!(many(MAX_PARTS + 1, 4).is_err() && many(1, limits::NAME_BYTES + 1).is_err());
        let list = |name: &str| types::NamedSpans {
            name: name.into(),
            unit: "char".into(),
            rows: vec![],
            starts: vec![],
            stops: vec![],
            values: vec![],
        };
        assert!(spans(vec![list("s"); limits::SPAN_LISTS + 1], 1, |_| false).is_err());
        assert!(spans(vec![list(&long)], 1, |_| false).is_err());
    }

    #[test]
    fn spans_that_run_backwards_or_have_an_unknown_unit_are_refused() {
        let one = |unit: &str, start, stop| types::NamedSpans {
            name: "step".into(),
            unit: unit.into(),
            rows: vec![2],
            starts: vec![start],
            stops: vec![stop],
            values: vec![0.5],
        };
        assert_eq!(spans(vec![one("token", 0, 1)], 3, |_| false).unwrap()[0].row, 2);
        assert!(spans(vec![one("token", 2, 1)], 3, |_| false).is_err());
        assert!(spans(vec![one("byte", 0, 1)], 3, |_| false).is_err());
        assert_eq!(spans(vec![one("char", 0, 1)], 3, |row| row == 2).unwrap(), []);
    }

    #[test]
    fn shaped_values_may_be_missing_only_where_they_were_missing_before() {
        let mut batch = batch();
        batch.insert("value", Column::F64(vec![1.0, f64::NAN, 3.0]));
        let shape =
            |values| shaped(shaping::Shaped { values: Some(values), token_values: None, parts: vec![], faults: vec![] }, &batch);
        assert!(shape(vec![1.0, f64::NAN, 3.0]).is_ok());
        assert!(matches!(shape(vec![1.0, f64::INFINITY, 3.0]), Err(PluginFault::NonFinite { row: 1, .. })));
        assert!(matches!(shape(vec![f64::NAN, 2.0, 3.0]), Err(PluginFault::NonFinite { row: 0, .. })));
    }

    #[test]
    fn token_values_must_fit_the_completions() {
        let shape = |values: Vec<f32>, ends: Vec<u32>| {
            let tokens = types::RaggedF32 { values, ends };
            shaped(shaping::Shaped { values: None, token_values: Some(tokens), parts: vec![], faults: vec![] }, &batch())
        };
        assert!(shape(vec![1.0, 2.0, 3.0], vec![2, 2, 3]).is_ok());
        assert_eq!(shape(vec![1.0, 2.0, 3.0], vec![1, 2, 3]).unwrap_err().code(), "wrong_count");
        assert_eq!(shape(vec![1.0, 2.0, 3.0], vec![2, 1, 3]).unwrap_err().code(), "bad_output");
        assert_eq!(shape(vec![1.0, 2.0, 3.0], vec![2, 2, 9]).unwrap_err().code(), "bad_output");
        assert_eq!(shape(vec![1.0, f32::NAN, 3.0], vec![2, 2, 3]).unwrap_err().code(), "non_finite");
        let neither = shaping::Shaped { values: None, token_values: None, parts: vec![], faults: vec![] };
        assert_eq!(shaped(neither, &batch()).unwrap_err().code(), "bad_output");
    }

    #[test]
    fn decisions_are_checked_field_by_field() {
        let plain = || filtering::Decision {
            keep: vec![1, 0, 1],
            weights: None,
            pairs: None,
            relabels: vec![],
            regenerate: vec![],
            parts: vec![],
            reasons: vec![],
        };
        assert_eq!(decision(plain(), &batch()).unwrap().keep, [true, false, true]);
        let refused = |change: fn(&mut filtering::Decision)| {
            let mut answer = plain();
            change(&mut answer);
            decision(answer, &batch()).is_err()
        };
        assert!(refused(|d| d.keep[0] = 2));
        assert!(refused(|d| d.weights = Some(vec![1.0; 2])));
        assert!(refused(|d| d.regenerate = vec![1]));
        assert!(refused(|d| d.reasons = vec![(3, "beyond".into())]));
        let twice = filtering::Decision { reasons: vec![(1, "first".into()), (1, "second".into())], ..plain() };
        assert_eq!(decision(twice, &batch()).unwrap().reasons, [(1, "first".to_owned())]);
        let relabel = |column: &str, bytes: &[u8]| filtering::Relabel {
            column: column.into(),
            rows: vec![1],
            texts: types::Texts { bytes: bytes.to_vec(), ends: vec![bytes.len() as u32] },
        };
        let with = |relabel| decision(filtering::Decision { relabels: vec![relabel], ..plain() }, &batch());
        assert_eq!(with(relabel("completion", b"new")).unwrap().relabels[0].rows, [(1, "new".to_owned())]);
        assert!(with(relabel("completion_ids", b"new")).is_err());
        assert!(with(relabel("completion", b"\xff")).is_err());
        let pairs = |probability| {
            let (chosen, rejected) = (vec![0], vec![2]);
            let pairs = filtering::Pairs { chosen, rejected, probability: vec![probability], margin: vec![0.0], level: vec![0] };
            decision(filtering::Decision { pairs: Some(pairs), ..plain() }, &batch())
        };
        assert!(pairs(0.75).is_ok());
        assert!(pairs(f64::NAN).is_err());
    }
}
