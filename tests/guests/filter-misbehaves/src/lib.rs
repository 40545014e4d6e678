//! A filter that keeps every row, or breaks the rule that its configuration names.

use plumb_sdk::filter::{Batch, Decision, Descriptor, Fault, Filter, Pairs, Relabel, Texts};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    mode: Mode,
}

#[derive(serde::Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// Keeps all rows but the first.
    Good,
    /// Panics.
    Trap,
    /// One decision too many.
    WrongCount,
    /// A weight that is no number.
    NanWeight,
    /// A weight below zero, which would turn the row's gradient round.
    NegativeWeight,
    /// A weight that makes all others nothing.
    HugeWeight,
    /// A group to sample again that is not there.
    GroupOutOfRange,
    /// All groups to sample again, in every call: a step that never ends, if the host lets it.
    RegenerateAll,
    /// More groups to sample again than there are.
    RegenerateFlood,
    /// A pair with a row that is not there.
    PairOutOfRange,
    /// A pair that is preferred with a probability above 1.
    PairProbability,
    /// Pairs whose lists have different lengths.
    PairLengths,
    /// A million pairs, each of which costs a term of the loss.
    PairFlood,
    /// Deletes the text of every row.
    RelabelAll,
    /// New text for a column of numbers.
    RelabelNumbers,
    /// New text that is not UTF-8.
    RelabelBroken,
    /// New texts whose ends lie beyond them.
    RelabelEnds,
    /// A reason of a megabyte for a row that is not there.
    ReasonOutOfRange,
    /// A hundred reasons of a hundred kilobytes for one row.
    ReasonFlood,
    /// Drops every row.
    DropAll,
}

struct Misbehaves {
    mode: Mode,
}

impl Filter for Misbehaves {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["value"]);

    fn new(config: Config) -> Result<Self, Fault> {
        Ok(Misbehaves { mode: config.mode })
    }

    fn select(&self, batch: &Batch) -> Result<Decision, Fault> {
        let rows = batch.rows();
        let mut decision = Decision::keep_all(rows);
        let pairs = |n: usize, rejected: u32, probability: f64| Pairs {
            chosen: vec![0; n],
            rejected: vec![rejected; n],
            probability: vec![probability; n],
            margin: vec![0.0; n],
            level: vec![0; n],
        };
        let relabel = |column: &str, bytes: &[u8], ends: Vec<u32>| Relabel {
            column: column.into(),
            rows: (0..rows as u32).collect(),
            texts: Texts { bytes: bytes.to_vec(), ends },
        };
        match self.mode {
            Mode::Good => decision.drop_row(0, "the first row of the test"),
            Mode::Trap => panic!("the test guest panics"),
            Mode::WrongCount => decision.keep.push(true),
            Mode::NanWeight => decision.weights = Some(vec![f64::NAN; rows]),
            Mode::NegativeWeight => decision.weights = Some(vec![-1.0; rows]),
            Mode::HugeWeight => decision.weights = Some(vec![f64::MAX; rows]),
            Mode::GroupOutOfRange => decision.regenerate.push(batch.groups().len() as u32),
            Mode::RegenerateAll => decision.regenerate = (0..batch.groups().len() as u32).collect(),
            Mode::RegenerateFlood => decision.regenerate = vec![0; 1 << 20],
            Mode::PairOutOfRange => decision.pairs = Some(pairs(1, rows as u32, 0.5)),
            Mode::PairProbability => decision.pairs = Some(pairs(1, 0, 1.5)),
            Mode::PairLengths => decision.pairs = Some(Pairs { margin: Vec::new(), ..pairs(1, 0, 0.5) }),
            Mode::PairFlood => decision.pairs = Some(pairs(1 << 20, 0, 0.5)),
            Mode::RelabelAll => decision.relabels.push(relabel("completion", b"", vec![0; rows])),
            Mode::RelabelNumbers => decision.relabels.push(relabel("value", b"", vec![0; rows])),
            Mode::RelabelBroken => decision.relabels.push(relabel("completion", b"\xff", vec![1; rows])),
            Mode::RelabelEnds => decision.relabels.push(relabel("completion", b"", vec![u32::MAX; rows])),
            Mode::ReasonOutOfRange => decision.reasons.push((rows as u32, "r".repeat(1 << 20))),
            Mode::ReasonFlood => {
                decision.reasons = vec![(0, "r".repeat(100_000)); 100];
            }
            Mode::DropAll => decision.keep.fill(false),
        }
        Ok(decision)
    }
}

plumb_sdk::export_filter!(Misbehaves);
