//! A filter that keeps every row, or breaks the rule that its configuration names.

use plumb_sdk::filter::{Batch, Decision, Descriptor, Fault, Filter};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    mode: Mode,
}

#[derive(serde::Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Good,
    Trap,
    WrongCount,
    NanWeight,
    GroupOutOfRange,
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
        let mut decision = Decision::keep_all(batch.rows());
        match self.mode {
            Mode::Good => decision.drop_row(0, "the first row of the test"),
            Mode::Trap => panic!("the test guest panics"),
            Mode::WrongCount => decision.keep.push(true),
            Mode::NanWeight => decision.weights = Some(vec![f64::NAN; batch.rows()]),
            Mode::GroupOutOfRange => decision.regenerate.push(batch.groups().len() as u32),
        }
        Ok(decision)
    }
}

plumb_sdk::export_filter!(Misbehaves);
