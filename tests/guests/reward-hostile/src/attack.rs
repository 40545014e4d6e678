//! One function of the enemy each: what it is after stands beside its name.

use std::arch::wasm32::memory_grow;
use std::hint::black_box;

use plumb_sdk::log::{self, Level};
use plumb_sdk::reward::{Fault, Part, Rewards, RowFault, Spans, Unit};
use plumb_sdk::{Batch, kv, metrics, random};

#[derive(serde::Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// None: a fault for each poisoned row, as an honest plugin has it. What every attack must come to.
    Honest,
    /// The processor: never returns.
    Spin,
    /// The stack: recurses without end.
    Recurse,
    /// Memory: asks for 4 GiB at once.
    GrowBig,
    /// Memory: asks for a page as long as it gets one.
    GrowSmall,
    /// Memory of the host: an answer of 80 MiB.
    HugeAnswer,
    /// The loss: a value that is no number.
    Nan,
    /// The loss: an infinite value.
    Infinite,
    /// The loss: a finite value whose square is not.
    HugeNumber,
    /// Other rows: one value too few, so that all behind it would move up.
    TooFew,
    /// Other rows: a million values too many.
    TooMany,
    /// Other rows: a fault for a row of another call.
    RowOfOthers,
    /// The records: two faults for one row.
    TwoFaults,
    /// The records: a fault's code of a megabyte.
    LongCode,
    /// The records: a fault's message of a megabyte.
    LongMessage,
    /// The terminal: a fault's message that clears the screen.
    ControlCharacters,
    /// The host's texts: a message that is not UTF-8.
    BrokenMessage,
    /// The host's texts: a log line that is not UTF-8.
    BrokenLog,
    /// The host's texts: a key that is not UTF-8.
    BrokenKey,
    /// The metrics: a thousand parts.
    ManyParts,
    /// The metrics: two parts of one name.
    SameParts,
    /// The metrics: a part with a megabyte as its name.
    LongPart,
    /// The ledger: two million spans.
    ManySpans,
    /// The ledger: spans of rows that are not there.
    SpansOfOthers,
    /// The ledger: a thousand lists of spans.
    ManySpanLists,
    /// The log: ten megabytes of lines.
    LogFlood,
    /// The log: a line of ten thousand fields.
    LogFields,
    /// The log: a million empty lines.
    LogEmpty,
    /// The metrics: a thousand names.
    MetricNames,
    /// The metrics: a million values.
    MetricValues,
    /// The metrics: a million observations of nothing.
    MetricEmpty,
    /// The metrics: a name that breaks out of the plugin's own.
    MetricName,
    /// The metrics: not a number.
    MetricNan,
    /// The processor of the host: four billion random numbers.
    RandomFlood,
    /// Memory of the host: fills `kv` until it is full, and then goes on.
    KvFlood,
    /// Memory of the host: a million entries of nothing.
    KvEmpty,
    /// The processor of the host: lists all keys again and again.
    KvKeys,
    /// The processor of the host: cheap host calls without end.
    SlowDrip,
    /// The processor of the host: has the same column copied again and again.
    Copies,
    /// The log: a panic with a megabyte to say.
    LongPanic,
    /// The search for the poison: a fault that says that asking again may help.
    AskAgain,
}

impl Attack {
    /// Attacks over the `poisoned` rows, of which there is one at least.
    pub fn run(self, batch: &Batch, poisoned: &[usize], rewards: &mut Rewards) -> Result<(), Fault> {
        let (rows, row) = (batch.rows(), poisoned[0]);
        let mut fault = |row: usize, fault: Fault| rewards.faults.push(RowFault { row: row as u32, fault });
        let spans = |name: String, n: usize, row: u32| Spans {
            name,
            unit: Unit::Char,
            rows: vec![row; n],
            starts: vec![0; n],
            stops: vec![1; n],
            values: vec![1.0; n],
        };
        match self {
            Attack::Honest => poisoned.iter().for_each(|&row| fault(row, Fault::unparseable("poisoned"))),
            Attack::Spin => spin(),
            Attack::Recurse => rewards.values[row] = recurse(0) as f64,
            Attack::GrowBig => assert_ne!(memory_grow::<0>(65_535), usize::MAX, "no 4 GiB"),
            Attack::GrowSmall => while memory_grow::<0>(1) != usize::MAX {},
            Attack::HugeAnswer => rewards.values.resize(10 << 20, 0.0),
            Attack::Nan => rewards.values[row] = f64::NAN,
            Attack::Infinite => rewards.values[row] = f64::NEG_INFINITY,
            Attack::HugeNumber => rewards.values[row] = 1e200,
            Attack::TooFew => drop(rewards.values.remove(0)),
            Attack::TooMany => rewards.values.resize(1 << 20, 0.0),
            Attack::RowOfOthers => fault(rows, Fault::abstain("of another call")),
            Attack::TwoFaults => (0..2).for_each(|_| fault(row, Fault::abstain("twice"))),
            Attack::LongCode => fault(row, Fault::new("c".repeat(1 << 20), "a long code")),
            Attack::LongMessage => fault(row, Fault::new("long-message", "m".repeat(1 << 20))),
            Attack::ControlCharacters => fault(row, Fault::new("control", "\u{1b}[2J\u{1b}[31merror: all is lost\r\n")),
            Attack::BrokenMessage => fault(row, Fault::new("broken", broken())),
            Attack::BrokenLog => log::info(&broken()),
            Attack::BrokenKey => kv::set(&broken(), b"value")?,
            Attack::ManyParts => rewards.parts = (0..1000).map(|i| Part::new(i.to_string(), vec![0.0; rows])).collect(),
            Attack::SameParts => rewards.parts = vec![Part::new("same", vec![0.0; rows]); 2],
            Attack::LongPart => rewards.parts = vec![Part::new("n".repeat(1 << 20), vec![0.0; rows])],
            Attack::ManySpans => rewards.spans = vec![spans("many".into(), 2_000_000, row as u32)],
            Attack::SpansOfOthers => rewards.spans = vec![spans("others".into(), 1, rows as u32)],
            Attack::ManySpanLists => rewards.spans = (0..1000).map(|i| spans(i.to_string(), 1, row as u32)).collect(),
            Attack::LogFlood => (0..1000).for_each(|_| log::warn(&"flood ".repeat(1700))),
            Attack::LogFields => log::write(Level::Warn, "fields", &vec![("name", "value".to_owned()); 10_000]),
            Attack::LogEmpty => (0..1_000_000).for_each(|_| log::warn("")),
            Attack::MetricNames => (0..1000).for_each(|i| metrics::count(&i.to_string(), 1)),
            Attack::MetricValues => (0..1000).for_each(|_| metrics::observe("flood", &[1.0; 1000])),
            Attack::MetricEmpty => (0..1_000_000).for_each(|i| metrics::observe(&i.to_string(), &[])),
            Attack::MetricName => metrics::count("../reward\n", 1),
            Attack::MetricNan => metrics::observe("nan", &[f64::NAN]),
            Attack::RandomFlood => drop(random::draw("flood", 0, u32::MAX)),
            Attack::KvFlood => (0..100).for_each(|i| drop(kv::set(&i.to_string(), &vec![0; 1 << 20]))),
            Attack::KvEmpty => (0..1_000_000).for_each(|i| drop(kv::set(&i.to_string(), &[]))),
            Attack::KvKeys => {
                (0..1000).for_each(|i| drop(kv::set(&i.to_string(), &[])));
                forever(|| drop(kv::keys("none")));
            }
            Attack::SlowDrip => forever(|| drop(kv::get("none"))),
            Attack::Copies => forever(|| drop(batch.columns())),
            Attack::LongPanic => panic!("{}", "panic ".repeat(100_000)),
            Attack::AskAgain => return Err(Fault::new("again", "ask me again").retryable()),
        }
        Ok(())
    }
}

/// A text that is none. Only within a sandbox: what is undefined here stays here.
fn broken() -> String {
    // SAFETY: not safe, and meant so: the bytes go straight to the host, which must notice.
    unsafe { String::from_utf8_unchecked(vec![b'a', 0xff, 0xfe, b'z']) }
}

fn forever(mut call: impl FnMut()) {
    loop {
        call();
    }
}

fn spin() {
    let mut i = 0u64;
    loop {
        i = black_box(i + 1);
    }
}

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + frame[(depth % 64) as usize] }
}
