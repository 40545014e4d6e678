//! From a judge's verdicts to one reward a row, and to the columns that shapers and filters read.

use plumb_core::feedback::{MAX_PARTS, Verdicts};
use plumb_core::{Batch, Outcome, RowFault};

use super::rows::{Judgement, Scores};

/// Largest score or matrix entry, as for rewards and shapers: what a loss can work with.
const MAGNITUDE: f64 = 1e12;

/// Code of a row about which the judge said nothing.
pub const NO_VERDICT: &str = "no-verdict";

/// Verdicts that fit the batch, or what is wrong with them.
pub fn check(verdicts: Verdicts, batch: &Batch) -> Result<Verdicts, RowFault> {
    let rows = batch.rows();
    let squares: usize = batch.groups().map(|group| group.len() * group.len()).sum();
    let Verdicts { scores, pairs, matrices, rationales, parts, faults } = &verdicts;
    let mut wrong = None;
    let mut expect = |what: &str, got: Option<usize>, expected: usize| {
        if let Some(got) = got.filter(|got| *got != expected) {
            wrong.get_or_insert(("wrong_count", format!("returned {got} {what}, expected {expected}")));
        }
    };
    expect("scores", scores.as_ref().map(Vec::len), rows);
    expect("rationales", rationales.as_ref().map(plumb_core::Texts::len), rows);
    parts.iter().for_each(|(_, values)| expect("values of a part", Some(values.len()), rows));
    expect("entries of matrices", matrices.as_ref().map(|m| m.values.len()), squares);
    expect("flags of matrices", matrices.as_ref().map(|m| m.readable.len()), squares);
    expect("second rows of pairs", pairs.as_ref().map(|p| p.second.len()), pairs.as_ref().map_or(0, |p| p.first.len()));
    expect("probabilities of pairs", pairs.as_ref().map(|p| p.probability.len()), pairs.as_ref().map_or(0, |p| p.first.len()));
    if wrong.is_none() {
        let outside = |row: &u32| *row as usize >= rows;
        let pair_rows = || pairs.iter().flat_map(|pairs| pairs.first.iter().chain(&pairs.second));
        let bad_probability = pairs.iter().flat_map(|pairs| &pairs.probability).find(|p| !(0.0..=1.0).contains(*p));
        let large = |x: &&f64| x.abs() > MAGNITUDE;
        let too_large = scores.iter().flatten().chain(matrices.iter().flat_map(|m| &m.values)).find(large);
        let bad_entry = matrices.iter().flat_map(|m| m.values.iter().zip(&m.readable)).find(|(x, read)| **read && !x.is_finite());
        wrong = if let Some(row) = pair_rows().chain(faults.iter().map(|(row, _)| row)).find(|row| outside(row)) {
            Some(("bad_output", format!("named row {row} of {rows}")))
        } else if let Some(probability) = bad_probability {
            Some(("non_finite", format!("returned the probability {probability}")))
        } else if let Some((entry, _)) = bad_entry {
            Some(("non_finite", format!("returned the readable matrix entry {entry}")))
        } else {
            too_large.map(|value| ("bad_output", format!("returned {value:e}, limit ±{MAGNITUDE:e}")))
        };
    }
    match wrong {
        None => Ok(verdicts),
        Some((code, message)) => Err(RowFault { code: code.into(), message }),
    }
}

/// The judge as a reward: the rule is that of [`plumb_core::recipe::JudgeUse`]. A row without a verdict has failed with `no-verdict`,
/// or with the fault that the judge gave it; `abstain` is an abstention.
pub fn scores(name: &str, verdicts: Result<Verdicts, RowFault>, batch: &Batch) -> Scores {
    let rows = batch.rows();
    let verdicts = match verdicts {
        Ok(verdicts) => verdicts,
        Err(fault) => {
            let (outcomes, judgement) = (vec![Outcome::Failed(fault); rows], Some(Judgement::default()));
            return Scores { name: name.into(), outcomes, judgement, ..Scores::default() };
        }
    };
    let mut values: Vec<Option<f64>> = match &verdicts {
        Verdicts { scores: Some(scores), .. } => scores.iter().map(|score| score.is_finite().then_some(*score)).collect(),
        Verdicts { pairs: Some(pairs), .. } => {
            let mut sums = vec![(0.0, 0u32); rows];
            let mut add = |row: u32, probability: f64| {
                let (sum, count) = &mut sums[row as usize];
                (*sum, *count) = (*sum + probability, *count + 1);
            };
            for ((&first, &second), &p) in pairs.first.iter().zip(&pairs.second).zip(&pairs.probability) {
                add(first, p);
                add(second, 1.0 - p);
            }
            sums.iter().map(|(sum, count)| (*count > 0).then(|| sum / f64::from(*count))).collect()
        }
        _ => vec![None; rows],
    };
    let (matrix, readable) = matrix(&verdicts, batch).unzip();
    if let (None, None, Some(matrix), Some(readable)) = (&verdicts.scores, &verdicts.pairs, &matrix, &readable) {
        values = win_rates(matrix, readable, batch);
    }
    let no_verdict =
        || Outcome::Failed(RowFault { code: NO_VERDICT.into(), message: "the judge said nothing about this row".into() });
    let mut outcomes: Vec<Outcome> = values.into_iter().map(|value| value.map_or_else(no_verdict, Outcome::Scored)).collect();
    for (row, fault) in &verdicts.faults {
        let fault = fault.clone();
        outcomes[*row as usize] = if fault.code == "abstain" { Outcome::Abstained(fault) } else { Outcome::Failed(fault) };
    }
    let text =
        |texts: plumb_core::Texts| (0..rows).map(|row| String::from_utf8_lossy(texts.bytes_at(row)).into_owned()).collect();
    let judgement = Judgement { matrix, readable, rationales: verdicts.rationales.map(text) };
    let (mut parts, name) = (verdicts.parts, name.to_owned());
    parts.truncate(MAX_PARTS);
    Scores { name, outcomes, parts, judgement: Some(judgement), ..Scores::default() }
}

/// Each row's share of wins over the readable entries beside the diagonal: 1 where it wins, 0.5 for a tie, 0 where it loses.
fn win_rates(matrix: &[Vec<f64>], readable: &[Vec<f64>], batch: &Batch) -> Vec<Option<f64>> {
    let groups = batch.groups().flat_map(|group| group.clone().map(move |row| row - group.start));
    let rate = |((entries, readable), own): ((&Vec<f64>, &Vec<f64>), usize)| {
        let others = entries.iter().zip(readable).enumerate().filter(|(j, (_, read))| *j != own && **read > 0.0);
        let wins: Vec<f64> = others.map(|(_, (&x, _))| if x == 0.0 { 0.5 } else { f64::from(u8::from(x > 0.0)) }).collect();
        (!wins.is_empty()).then(|| wins.iter().sum::<f64>() / wins.len() as f64)
    };
    matrix.iter().zip(readable).zip(groups).map(rate).collect()
}

type Lists = Vec<Vec<f64>>;

/// Rows of the groups' matrices and whether each entry could be read: the judge's own, or made of its pairs within groups.
fn matrix(verdicts: &Verdicts, batch: &Batch) -> Option<(Lists, Lists)> {
    let sizes: Vec<usize> = batch.groups().flat_map(|group| std::iter::repeat_n(group.len(), group.len())).collect();
    if let Some(given) = &verdicts.matrices {
        let flags: Vec<f64> = given.readable.iter().map(|&read| f64::from(u8::from(read))).collect();
        let cut = |mut values: &[f64]| {
            let mut row = |size: &usize| {
                let (row, rest) = values.split_at(*size);
                values = rest;
                row.to_vec()
            };
            sizes.iter().map(&mut row).collect::<Lists>()
        };
        return Some((cut(&given.values), cut(&flags)));
    }
    let pairs = verdicts.pairs.as_ref()?;
    let starts: Vec<usize> = batch.groups().flat_map(|group| std::iter::repeat_n(group.start, group.len())).collect();
    let mut sums: Lists = sizes.iter().map(|&size| vec![0.0; size]).collect();
    let mut counts = sums.clone();
    for ((&first, &second), &p) in pairs.first.iter().zip(&pairs.second).zip(&pairs.probability) {
        let (first, second) = (first as usize, second as usize);
        if starts[first] == starts[second] && first != second {
            for (row, other, value) in [(first, second, 2.0 * p - 1.0), (second, first, 1.0 - 2.0 * p)] {
                sums[row][other - starts[row]] += value;
                counts[row][other - starts[row]] += 1.0;
            }
        }
    }
    for (row, (sums, counts)) in sums.iter_mut().zip(&mut counts).enumerate() {
        for (j, (sum, count)) in sums.iter_mut().zip(counts).enumerate() {
            if *count > 0.0 {
                *sum /= *count;
                *count = 1.0;
            } else if j != row - starts[row] {
                *sum = f64::NAN;
            }
        }
    }
    Some((sums, counts))
}

#[cfg(test)]
mod tests {
    use plumb_core::feedback::{MatrixVerdicts, PairVerdicts};

    use super::*;

    /// Groups of 3 and 2 rows.
    fn batch() -> Batch {
        Batch::new(1, vec![10, 11, 12, 13, 14], vec![3, 5])
    }

    fn values(scores: &Scores) -> Vec<Option<f64>> {
        scores.outcomes.iter().map(Outcome::value).collect()
    }

    fn code(outcome: &Outcome) -> &str {
        match outcome {
            Outcome::Scored(_) => "scored",
            Outcome::Abstained(fault) | Outcome::Failed(fault) => &fault.code,
        }
    }

    fn fault(code: &str) -> RowFault {
        RowFault { code: code.into(), message: String::new() }
    }

    #[test]
    fn scores_come_first_and_a_row_without_one_says_why() {
        let verdicts = Verdicts {
            scores: Some(vec![1.0, f64::NAN, 3.0, f64::NAN, 5.0]),
            pairs: Some(PairVerdicts { first: vec![1], second: vec![0], probability: vec![1.0] }),
            faults: vec![(1, fault("unparseable")), (4, fault("abstain"))],
            ..Verdicts::default()
        };
        let scores = scores("j", check(verdicts, &batch()), &batch());
        assert_eq!(values(&scores), [Some(1.0), None, Some(3.0), None, None]);
        let codes: Vec<&str> = scores.outcomes.iter().map(code).collect();
        assert_eq!(codes, ["scored", "unparseable", "scored", "no-verdict", "abstain"]);
        assert!(matches!(scores.outcomes[4], Outcome::Abstained(_)));
        assert!(matches!(scores.outcomes[1], Outcome::Failed(_)));
    }

    #[test]
    fn pairs_become_mean_probabilities_and_a_skew_matrix_within_groups() {
        // Row 0 against 1 in both orders, 0 against 2, and 3 against a row of the other group.
        let pairs = PairVerdicts { first: vec![0, 1, 0, 3], second: vec![1, 0, 2, 0], probability: vec![0.9, 0.3, 0.5, 1.0] };
        let verdicts = Verdicts { pairs: Some(pairs), ..Verdicts::default() };
        let scores = scores("j", check(verdicts, &batch()), &batch());
        let expected = [Some((0.9 + 0.7 + 0.5 + 0.0) / 4.0), Some(0.2), Some(0.5), Some(1.0), None];
        for (got, expected) in values(&scores).into_iter().zip(expected) {
            assert!(got.zip(expected).map_or(got == expected, |(a, b)| (a - b).abs() < 1e-12), "{got:?}, expected {expected:?}");
        }
        let judgement = scores.judgement.unwrap();
        let (matrix, readable) = (judgement.matrix.unwrap(), judgement.readable.unwrap());
        assert!((matrix[0][1] - 0.6).abs() < 1e-12 && (matrix[1][0] + 0.6).abs() < 1e-12);
        assert_eq!((matrix[0][0], matrix[0][2], matrix[2][0]), (0.0, 0.0, 0.0));
        assert!(matrix[1][2].is_nan() && matrix[3][1].is_nan(), "what was not compared is not a tie");
        assert_eq!(readable, [vec![0.0, 1.0, 1.0], vec![1.0, 0.0, 0.0], vec![1.0, 0.0, 0.0], vec![0.0; 2], vec![0.0; 2]]);
    }

    #[test]
    fn matrix_becomes_the_share_of_wins_over_what_could_be_read() {
        let values_ = vec![0.0, 1.0, -1.0, -1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.0, -2.0, 0.0];
        let readable = vec![true, true, true, true, true, true, false, true, true, true, false, false, true];
        let matrices = Some(MatrixVerdicts { values: values_, readable });
        let scores = scores("j", check(Verdicts { matrices, ..Verdicts::default() }, &batch()), &batch());
        assert_eq!(values(&scores), [Some(0.5), Some(0.25), Some(0.5), None, None]);
        assert_eq!(scores.judgement.unwrap().matrix.unwrap()[2], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn verdicts_that_do_not_fit_fail_all_rows() {
        let wrong = |verdicts| {
            let scores = scores("j", check(verdicts, &batch()), &batch());
            assert!(scores.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Failed(_))));
            code(&scores.outcomes[0]).to_owned()
        };
        assert_eq!(wrong(Verdicts { scores: Some(vec![1.0; 4]), ..Verdicts::default() }), "wrong_count");
        let pairs = |second, probability| Some(PairVerdicts { first: vec![0], second, probability });
        assert_eq!(wrong(Verdicts { pairs: pairs(vec![1, 2], vec![0.5]), ..Verdicts::default() }), "wrong_count");
        assert_eq!(wrong(Verdicts { pairs: pairs(vec![5], vec![0.5]), ..Verdicts::default() }), "bad_output");
        assert_eq!(wrong(Verdicts { pairs: pairs(vec![1], vec![1.5]), ..Verdicts::default() }), "non_finite");
        let matrices = Some(MatrixVerdicts { values: vec![0.0; 9], readable: vec![true; 9] });
        assert_eq!(wrong(Verdicts { matrices, ..Verdicts::default() }), "wrong_count");
        assert_eq!(wrong(Verdicts { faults: vec![(9, fault("x"))], ..Verdicts::default() }), "bad_output");
        // Their mean is infinite, and no loss of it a number.
        assert_eq!(wrong(Verdicts { scores: Some(vec![1e308, 1e308, 0.0, 0.0, 0.0]), ..Verdicts::default() }), "bad_output");
        let matrices = Some(MatrixVerdicts { values: vec![-1e13; 13], readable: vec![true; 13] });
        assert_eq!(wrong(Verdicts { matrices, ..Verdicts::default() }), "bad_output");
    }
}
