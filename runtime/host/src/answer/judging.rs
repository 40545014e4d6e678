//! Checks of a judge's turns.

use plumb_core::feedback::{Ask, MatrixVerdicts, PairVerdicts, Turn, Verdicts};
use plumb_core::services::Question;
use plumb_core::{Batch, PluginFault, Texts};

use super::{Checked, at_most, bad, clip_to, count, ends, in_range, parts, row_faults, usable};
use crate::bindings::{judging, types};
use crate::limits;
use crate::services;

/// Checks a judge's answer of either form.
pub fn turn(turn: judging::Turn, batch: &Batch) -> Checked<Turn> {
    match turn {
        judging::Turn::Ask(ask) => Ok(Turn::Ask(check_ask(ask)?)),
        judging::Turn::Done(answer) => Ok(Turn::Done(verdicts(answer, batch)?)),
    }
}

fn check_ask(ask: judging::Ask) -> Checked<Ask> {
    at_most("bytes of memo", limits::MEMO_BYTES, ask.memo.len())?;
    at_most("questions in a turn", limits::QUESTIONS, ask.questions.len())?;
    if ask.questions.iter().all(|question| question.prompts.ends.is_empty()) {
        return bad("a turn that asks nothing".into());
    }
    at_most("prompts in a turn", limits::PROMPTS, ask.questions.iter().map(|question| question.prompts.ends.len()).sum())?;
    let questions = ask.questions.into_iter().map(|judging::Question { model, prompts, params }| {
        let rows = prompts.ends.len();
        Ok(Question {
            prompts: texts("the prompts", prompts, rows)?,
            sampling: services::sampling(params).map_err(services::of_the_call)?,
            model,
        })
    });
    Ok(Ask { questions: questions.collect::<Checked<_>>()?, memo: ask.memo })
}

fn verdicts(answer: judging::Verdicts, batch: &Batch) -> Checked<Verdicts> {
    let rows = batch.rows();
    let faults = row_faults(answer.faults, rows)?;
    let faulty = |row: usize| faults.contains_key(&row);
    if answer.scores.is_none() && answer.pairs.is_none() && answer.matrices.is_none() && faults.len() < rows {
        return bad("verdicts with neither `scores` nor `pairs` nor `matrices`".into());
    }
    let scores = match answer.scores {
        Some(mut scores) => {
            count("scores", rows, scores.len())?;
            usable("the score", &scores, faulty)?;
            faults.keys().for_each(|&row| scores[row] = f64::NAN);
            Some(scores)
        }
        None => None,
    };
    Ok(Verdicts {
        scores,
        pairs: answer.pairs.map(|pairs| check_pairs(pairs, rows)).transpose()?,
        matrices: answer.matrices.map(|matrices| check_matrices(matrices, batch)).transpose()?,
        rationales: answer.rationales.map(|rationales| check_rationales(rationales, rows)).transpose()?,
        parts: parts(answer.parts, rows, faulty)?,
        faults: faults.into_iter().map(|(row, fault)| (row as u32, fault)).collect(),
    })
}

fn check_pairs(pairs: judging::PairVerdicts, rows: usize) -> Checked<PairVerdicts> {
    let judging::PairVerdicts { first, second, probability } = pairs;
    at_most("pairs", rows.saturating_mul(rows), first.len())?;
    count("entries of `pairs.second`", first.len(), second.len())?;
    count("entries of `pairs.probability`", first.len(), probability.len())?;
    for (pair, ((&a, &b), probability)) in first.iter().zip(&second).zip(&probability).enumerate() {
        in_range("a pair", a, rows)?;
        in_range("a pair", b, rows)?;
        if a == b {
            return bad(format!("pair {pair} of row {a} with itself"));
        }
        // NaN is in no range.
        if !(0.0..=1.0).contains(probability) {
            return bad(format!("{probability} as the probability of pair {pair}"));
        }
    }
    Ok(PairVerdicts { first, second, probability })
}

/// Entries that could not be read are 0, whatever the guest left there.
fn check_matrices(matrices: judging::MatrixVerdicts, batch: &Batch) -> Checked<MatrixVerdicts> {
    let judging::MatrixVerdicts { mut values, readable } = matrices;
    let entries = batch.groups().map(|group| group.len() * group.len()).sum();
    count("entries of `matrices`", entries, values.len())?;
    count("flags in `matrices.readable`", entries, readable.len())?;
    if let Some(flag) = readable.iter().find(|&&flag| flag > 1) {
        return bad(format!("{flag} as a flag in `matrices.readable`, expected 0 or 1"));
    }
    let mut start = 0;
    for (group, rows) in batch.groups().enumerate() {
        let n = rows.len();
        for i in 0..n {
            for j in 0..=i {
                let (ij, ji) = (start + i * n + j, start + j * n + i);
                if readable[ij] != readable[ji] {
                    return bad(format!("matrix of group {group} that is readable at ({i}, {j}) or ({j}, {i}), but not at both"));
                }
                if readable[ij] == 0 {
                    (values[ij], values[ji]) = (0.0, 0.0);
                    continue;
                }
                let (a, b) = (values[ij], values[ji]);
                // NaN is not finite, and no infinity's sum with its opposite is 0.
                if !a.is_finite() || a != -b {
                    return bad(format!(
                        "matrix of group {group} with {a} at ({i}, {j}) and {b} at ({j}, {i}): it must be skew-symmetric"
                    ));
                }
                if a.abs() > limits::MAGNITUDE {
                    return bad(format!("{a:e} at ({i}, {j}) of the matrix of group {group}, limit ±{:e}", limits::MAGNITUDE));
                }
            }
        }
        start += n * n;
    }
    Ok(MatrixVerdicts { values, readable: readable.into_iter().map(|flag| flag == 1).collect() })
}

fn check_rationales(rationales: types::Texts, rows: usize) -> Checked<Texts> {
    let rationales = texts("the rationales", rationales, rows)?;
    let cut = |row| clip_to(limits::RATIONALE_BYTES, rationales.get(row).unwrap_or_default().to_owned());
    Ok((0..rows).map(cut).collect())
}

/// A text per row, all of them UTF-8.
pub fn texts(what: &str, texts: types::Texts, rows: usize) -> Checked<Texts> {
    let types::Texts { bytes, ends: stops } = texts;
    ends(what, &stops, rows, bytes.len())?;
    let texts = Texts { bytes, ends: stops };
    match (0..rows).find(|&row| texts.get(row).is_none()) {
        Some(row) => Err(PluginFault::BadOutput { message: format!("{what} of row {row} are not UTF-8") }),
        None => Ok(texts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of two rows and of one.
    fn batch() -> Batch {
        Batch::new(0, vec![0, 1, 2], vec![2, 3])
    }

    fn none() -> judging::Verdicts {
        judging::Verdicts { scores: None, pairs: None, matrices: None, rationales: None, parts: vec![], faults: vec![] }
    }

    fn fault(row: u32) -> types::RowFault {
        types::RowFault { row, fault: types::Fault { code: "unparseable".into(), message: "why".into(), retryable: false } }
    }

    fn matrices(values: &[f64], readable: &[u8]) -> Checked<Verdicts> {
        let matrices = judging::MatrixVerdicts { values: values.to_vec(), readable: readable.to_vec() };
        verdicts(judging::Verdicts { matrices: Some(matrices), ..none() }, &batch())
    }

    #[test]
    fn scores_of_rows_with_a_fault_are_no_numbers() {
        let answer = judging::Verdicts { scores: Some(vec![1.0, f64::INFINITY, 3.0]), faults: vec![fault(1)], ..none() };
        let scores = verdicts(answer, &batch()).unwrap().scores.unwrap();
        assert!(scores[0] == 1.0 && scores[1].is_nan() && scores[2] == 3.0);
        let huge = judging::Verdicts { scores: Some(vec![1.0, 2.0, 1e300]), ..none() };
        assert_eq!(verdicts(huge, &batch()).unwrap_err().code(), "bad_output");
        let infinite = judging::Verdicts { scores: Some(vec![1.0, f64::INFINITY, 3.0]), ..none() };
        assert!(matches!(verdicts(infinite, &batch()), Err(PluginFault::NonFinite { row: 1, .. })));
        let short = judging::Verdicts { scores: Some(vec![1.0]), ..none() };
        assert_eq!(verdicts(short, &batch()).unwrap_err().code(), "wrong_count");
    }

    #[test]
    fn verdicts_of_no_form_stand_only_where_every_row_has_a_fault() {
        assert_eq!(verdicts(none(), &batch()).unwrap_err().code(), "bad_output");
        let failed = judging::Verdicts { faults: (0..3).map(fault).collect(), ..none() };
        assert_eq!(verdicts(failed, &batch()).unwrap().faults.len(), 3);
    }

    #[test]
    fn pairs_are_of_two_rows_of_the_batch_with_a_probability() {
        let pair = |first, second, probability| {
            let pairs = judging::PairVerdicts { first: vec![first], second: vec![second], probability: vec![probability] };
            verdicts(judging::Verdicts { pairs: Some(pairs), ..none() }, &batch())
        };
        assert!(pair(0, 1, 0.5).is_ok());
        for (first, second, probability) in [(0, 3, 0.5), (1, 1, 0.5), (0, 1, 1.5), (0, 1, f64::NAN)] {
            assert_eq!(pair(first, second, probability).unwrap_err().code(), "bad_output");
        }
    }

    #[test]
    fn matrices_are_skew_symmetric_where_they_are_readable() {
        let read = matrices(&[0.0, 1.0, -1.0, 0.0, 0.0], &[1; 5]).unwrap().matrices.unwrap();
        assert_eq!(read.readable, [true; 5]);
        let unread = matrices(&[0.0, f64::NAN, 7.0, 0.0, 0.0], &[1, 0, 0, 1, 1]).unwrap().matrices.unwrap();
        assert_eq!(unread.values, [0.0; 5]);
        assert_eq!(matrices(&[0.0; 4], &[1; 4]).unwrap_err().code(), "wrong_count");
        for (values, readable) in [
            ([0.0, 1.0, 1.0, 0.0, 0.0], [1; 5]),
            ([0.0, 1.0, -1.0, 0.0, 3.0], [1; 5]),
            ([0.0, 1e300, -1e300, 0.0, 0.0], [1; 5]),
            ([0.0, f64::NAN, f64::NAN, 0.0, 0.0], [1; 5]),
            ([0.0, f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.0], [1; 5]),
            ([0.0, 1.0, -1.0, 0.0, 0.0], [1, 0, 1, 1, 1]),
            ([0.0, 1.0, -1.0, 0.0, 0.0], [1, 1, 1, 1, 2]),
        ] {
            assert_eq!(matrices(&values, &readable).unwrap_err().code(), "bad_output", "{values:?} {readable:?}");
        }
    }

    #[test]
    fn rationales_are_a_text_per_row() {
        let rationales = |bytes: &[u8], ends: &[u32]| {
            let rationales = types::Texts { bytes: bytes.to_vec(), ends: ends.to_vec() };
            verdicts(judging::Verdicts { scores: Some(vec![0.0; 3]), rationales: Some(rationales), ..none() }, &batch())
        };
        assert_eq!(rationales(b"abc", &[1, 2, 3]).unwrap().rationales.unwrap().get(2), Some("c"));
        assert!(rationales(b"abc", &[1, 3]).is_err() && rationales(b"ab\xff", &[1, 2, 3]).is_err());
        let long = "é".repeat(limits::RATIONALE_BYTES);
        let cut = rationales(long.as_bytes(), &[0, 0, long.len() as u32]).unwrap().rationales.unwrap();
        assert_eq!((cut.get(0), cut.bytes.len()), (Some(""), limits::RATIONALE_BYTES + '…'.len_utf8()));
    }

    #[test]
    fn turns_that_ask_nothing_or_too_much_are_refused() {
        let sampling =
            types::Sampling { max_tokens: 8, temperature: 0.0, top_p: 1.0, count: 1, seed: 0, stop: vec![], extra: vec![] };
        let question = |prompts: usize| judging::Question {
            model: "m".into(),
            prompts: types::Texts { bytes: vec![b'a'; prompts], ends: (1..=prompts as u32).collect() },
            params: sampling.clone(),
        };
        let ask = |questions, memo| turn(judging::Turn::Ask(judging::Ask { questions, memo }), &batch());
        assert!(ask(vec![question(1)], vec![1]).is_ok());
        assert!(ask(vec![], vec![]).is_err() && ask(vec![question(0)], vec![]).is_err());
        assert!(ask(vec![question(1); limits::QUESTIONS + 1], vec![]).is_err());
        assert!(ask(vec![question(limits::PROMPTS + 1)], vec![]).is_err());
        assert!(ask(vec![question(1)], vec![0; limits::MEMO_BYTES + 1]).is_err());
        let mut cold = question(1);
        cold.params.temperature = f32::NAN;
        assert_eq!(ask(vec![cold], vec![]).unwrap_err().code(), "invalid-question");
    }
}
