//! A reward that does what its configuration's `mode` says. The reward of a row that nothing happens to is the length of its
//! completion in bytes.

use std::hint::black_box;

use plumb_sdk::reward::{BatchReward, Descriptor, Fault, Part, Rewards, RowFault};
use plumb_sdk::{Batch, kv, log, metrics, random};

/// Text in a completion that makes the modes `poison-*` act.
const POISON: &str = "POISON";

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    mode: Mode,
}

#[derive(serde::Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// Scores and nothing else.
    Good,
    /// Panics in every call.
    Trap,
    /// Never returns.
    Spin,
    /// Asks for more and more memory.
    Allocate,
    /// Recurses until the stack ends.
    Recurse,
    /// One NaN among the values.
    Nan,
    /// One value too few.
    WrongCount,
    /// A fault for a row that is not there.
    RowOutOfRange,
    /// More bytes than an answer may have.
    HugeAnswer,
    /// Panics if a completion is poisoned.
    PoisonTrap,
    /// Never returns if a completion is poisoned.
    PoisonSpin,
    /// Abstains from the even rows, and fails on the poisoned ones.
    RowFaults,
    /// A fault for the whole batch.
    Fault,
    /// `init` fails.
    InitFault,
    /// `init` panics.
    InitTrap,
    /// Too many log lines, then a good answer.
    LogFlood,
    /// Too many metrics.
    MetricFlood,
    /// Counts its rows and observes their lengths, then panics if a completion is poisoned; every call has a name of its own too.
    Metrics,
    /// Too many random numbers.
    RandomFlood,
    /// Counts its rows in `kv`; the reward is the count it found.
    KvCount,
    /// As `KvCount`, and panics after writing if a completion is poisoned.
    KvCountPoison,
    /// The reward is a random number keyed by the row's id.
    Random,
}

struct Misbehaves {
    mode: Mode,
}

impl BatchReward for Misbehaves {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["completion"]).outputs(&["length"]);

    fn new(config: Config) -> Result<Self, Fault> {
        match config.mode {
            Mode::InitFault => Err(Fault::bad_config("`mode` must not be `init-fault`")),
            Mode::InitTrap => panic!("init of the test guest panics"),
            mode => Ok(Misbehaves { mode }),
        }
    }

    fn score(&self, batch: &Batch) -> Result<Rewards, Fault> {
        let completions = batch.text("completion")?;
        let poisoned = completions.iter().position(|text| text.contains(POISON));
        let lengths: Vec<f64> = completions.iter().map(|text| text.len() as f64).collect();
        let mut rewards = Rewards { parts: vec![Part::new("length", lengths.clone())], ..Rewards::from(lengths) };
        match self.mode {
            Mode::Good | Mode::InitFault | Mode::InitTrap => {}
            Mode::Trap => panic!("the test guest panics"),
            Mode::Spin => spin(),
            Mode::Allocate => allocate(),
            Mode::Recurse => rewards.values[0] = recurse(0) as f64,
            Mode::Nan => rewards.values[0] = f64::NAN,
            Mode::WrongCount => drop(rewards.values.pop()),
            Mode::RowOutOfRange => {
                rewards.faults.push(RowFault { row: batch.rows() as u32, fault: Fault::abstain("no such row") });
            }
            Mode::HugeAnswer => rewards.values.resize(9 << 20, 0.0),
            Mode::PoisonTrap if poisoned.is_some() => panic!("poisoned"),
            Mode::PoisonSpin if poisoned.is_some() => spin(),
            Mode::PoisonTrap | Mode::PoisonSpin => {}
            Mode::RowFaults => {
                for (row, text) in completions.iter().enumerate() {
                    let fault = if text.contains(POISON) {
                        Fault::unparseable("a poisoned completion")
                    } else if row % 2 == 0 {
                        Fault::abstain("an even row")
                    } else {
                        continue;
                    };
                    rewards.faults.push(RowFault { row: row as u32, fault });
                }
            }
            Mode::Fault => return Err(Fault::new("not-today", "the test guest does not answer")),
            Mode::LogFlood => (0..1000).for_each(|line| log::info(&format!("line {line}"))),
            Mode::MetricFlood => (0..1000).for_each(|metric| metrics::count(&format!("metric_{metric}"), 1)),
            Mode::Metrics => {
                let lengths: Vec<f64> = completions.iter().map(|text| text.len() as f64 / 10.0).collect();
                metrics::count("scored", batch.rows() as u64);
                metrics::observe("length", &lengths);
                metrics::count(&format!("first/{}", batch.row_ids()[0]), 1);
                log::warn(&format!("{} rows\n", batch.rows()));
                if poisoned.is_some() {
                    panic!("poisoned after reporting");
                }
            }
            Mode::RandomFlood => drop(random::draw("flood", 0, u32::MAX)),
            Mode::KvCount | Mode::KvCountPoison => {
                let count = kv::get("rows").map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
                kv::set("rows", &(count + batch.rows() as u64).to_le_bytes())?;
                if self.mode == Mode::KvCountPoison && poisoned.is_some() {
                    panic!("poisoned after writing");
                }
                metrics::count("rows_seen", batch.rows() as u64);
                metrics::observe("found", &[count as f64]);
                rewards.values.fill(count as f64);
            }
            Mode::Random => {
                for (value, id) in rewards.values.iter_mut().zip(batch.row_ids()) {
                    *value = random::uniform("value", *id, 1)[0];
                }
            }
        }
        Ok(rewards)
    }
}

fn spin() {
    let mut i = 0u64;
    loop {
        i = black_box(i + 1);
    }
}

fn allocate() {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1u8; 1 << 20]));
    }
}

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + frame[(depth % 64) as usize] }
}

plumb_sdk::export_reward!(Misbehaves);
