//! Attacks of verdicts: on the loss, on rows of others, and on the records.

use plumb_sdk::judge::{Fault, MatrixVerdicts, PairVerdicts, Part, RowFault, Texts, Verdicts};

#[derive(serde::Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Other rows: one score too few, so that all behind it would move up.
    TooFew,
    /// Other rows: a million scores too many.
    TooMany,
    /// The loss: a score that is no number.
    Nan,
    /// The loss: a finite score whose square is not.
    HugeNumber,
    /// The order of turns: has decided, and says nothing.
    NoVerdict,
    /// Other rows: a fault for a row of another call.
    RowOfOthers,
    /// The records: two faults for one row.
    TwoFaults,
    /// The records: a fault's code of a megabyte.
    LongCode,
    /// Other rows: a pair with a row that is not there, which no question was about.
    PairOfOthers,
    /// The loss: a pair of a row with itself.
    PairItself,
    /// The loss: a probability above 1.
    PairProbability,
    /// The loss: a probability that is no number.
    PairNan,
    /// The ledger: a million pairs.
    PairFlood,
    /// The ledger: lists of pairs that differ in length.
    PairLengths,
    /// The loss: both rows of a pair win.
    MatrixBothWin,
    /// The loss: a finite entry whose square is not.
    MatrixHuge,
    /// Other rows: matrices of fewer groups than there are.
    MatrixShort,
    /// The records: rationales that are not UTF-8.
    BrokenRationale,
    /// The disk: rationales of 40 MiB.
    LongRationales,
    /// The metrics: a thousand parts.
    ManyParts,
}

impl Attack {
    pub fn run(self, rows: usize, verdicts: &mut Verdicts) {
        let scores = verdicts.scores.as_mut().expect("the honest judge scores");
        let fault = |row: usize, code: String| RowFault { row: row as u32, fault: Fault::new(code, "of the judge") };
        let pairs = |n: usize, second: usize, probability: f64| {
            Some(PairVerdicts { first: vec![0; n], second: vec![second as u32; n], probability: vec![probability; n] })
        };
        // Groups of four rows, as the tests have them.
        let matrices = |groups: usize, above: f64, below: f64| {
            let mut values = vec![0.0; 16 * groups];
            (values[1], values[4]) = (above, below);
            Some(MatrixVerdicts { readable: vec![true; values.len()], values })
        };
        match self {
            Attack::TooFew => drop(scores.remove(0)),
            Attack::TooMany => scores.resize(1 << 20, 0.0),
            Attack::Nan => scores[0] = f64::NAN,
            Attack::HugeNumber => scores[0] = 1e200,
            Attack::NoVerdict => verdicts.scores = None,
            Attack::RowOfOthers => verdicts.faults.push(fault(rows, "abstain".into())),
            Attack::TwoFaults => verdicts.faults.extend([fault(0, "one".into()), fault(0, "two".into())]),
            Attack::LongCode => verdicts.faults.push(fault(0, "c".repeat(1 << 20))),
            Attack::PairOfOthers => verdicts.pairs = pairs(1, rows, 0.5),
            Attack::PairItself => verdicts.pairs = pairs(1, 0, 0.5),
            Attack::PairProbability => verdicts.pairs = pairs(1, 1, 1.5),
            Attack::PairNan => verdicts.pairs = pairs(1, 1, f64::NAN),
            Attack::PairFlood => verdicts.pairs = pairs(1 << 20, 1, 0.5),
            Attack::PairLengths => {
                verdicts.pairs = Some(PairVerdicts { first: vec![0, 2], second: vec![1], probability: vec![0.5] });
            }
            Attack::MatrixBothWin => verdicts.matrices = matrices(rows / 4, 1.0, 1.0),
            Attack::MatrixHuge => verdicts.matrices = matrices(rows / 4, 1e200, -1e200),
            Attack::MatrixShort => verdicts.matrices = matrices(rows / 4 - 1, 1.0, -1.0),
            Attack::BrokenRationale => {
                verdicts.rationales = Some(Texts { bytes: vec![0xff], ends: vec![1; rows] });
            }
            Attack::LongRationales => {
                let mut ends = vec![40 << 20; rows];
                ends[0] = 1;
                verdicts.rationales = Some(Texts { bytes: vec![b'r'; 40 << 20], ends });
            }
            Attack::ManyParts => {
                verdicts.parts = (0..1000).map(|i| Part::new(i.to_string(), vec![0.0; rows])).collect();
            }
        }
    }
}
