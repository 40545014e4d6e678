//! A host with a well-behaved plugin on it, and what is measured of the process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plumb_core::recipe::LimitsUse;
use plumb_core::{Batch, Column, Outcome, PluginKind, RewardFn, Rewards};
use plumb_host::{Collector, Host, HostOptions, LoadRequest, Source};
use serde_json::json;

/// Path of a guest that `cargo xtask guests` built.
pub fn guest(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/guests/{name}.wasm"));
    assert!(path.is_file(), "`{}` is missing, run `cargo xtask guests`", path.display());
    path
}

/// One test measures at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request with limits that a spinning guest is soon done with.
pub fn request(kind: PluginKind, name: &str, config: serde_json::Value) -> LoadRequest {
    let serde_json::Value::Object(config) = config else { panic!("a configuration is an object") };
    LoadRequest { config, limits: limits(), ..LoadRequest::new(kind, guest(name)) }
}

pub fn limits() -> LimitsUse {
    LimitsUse { fuel: Some(20_000_000), fuel_per_row: Some(200_000), memory_mib: Some(96), ..LimitsUse::default() }
}

/// Fuel enough to fill memory with something, so that another limit is met.
pub fn roomy() -> LimitsUse {
    LimitsUse { fuel: Some(1_000_000_000), memory_mib: Some(256), ..LimitsUse::default() }
}

/// A request for bytes that no file holds.
pub fn bytes(component: Vec<u8>) -> LoadRequest {
    let source = Source::Bytes("raw".into(), component);
    LoadRequest { source, name: Some("raw".into()), limits: limits(), ..LoadRequest::new(PluginKind::Reward, "") }
}

/// Rows of the batch under attack, and the poisoned one.
pub const ROWS: usize = 48;
pub const POISONED: usize = 17;

/// Row `i` holds `i` letters, row [`POISONED`] the poison where it is wanted.
pub fn batch(poisoned: bool) -> Batch {
    let mut batch = Batch::new(3, (1000..1000 + ROWS as u64).collect(), (1..=ROWS as u32 / 4).map(|group| 4 * group).collect());
    let text = |row| if poisoned && row == POISONED { "a POISON pill".to_owned() } else { "x".repeat(row) };
    batch.insert("completion", Column::Text((0..ROWS).map(text).collect()));
    batch.insert("value", Column::F64((0..ROWS).map(|row| row as f64).collect()));
    batch
}

/// Outcomes as bits, to compare exactly.
pub fn bits(rewards: &Rewards) -> Vec<Result<u64, String>> {
    let bits = |outcome: &Outcome| match outcome {
        Outcome::Scored(value) => Ok(value.to_bits()),
        Outcome::Abstained(fault) | Outcome::Failed(fault) => Err(fault.code.clone()),
    };
    rewards.outcomes.iter().map(bits).collect()
}

/// A host that runs a good plugin, against which every attack is held.
pub struct Neighbour {
    pub host: Host,
    pub lines: Arc<Collector>,
    good: Arc<dyn RewardFn>,
    answer: Vec<Result<u64, String>>,
}

impl Neighbour {
    pub fn new(threads: usize) -> Self {
        let lines = Arc::new(Collector::default());
        let cache_dir = Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-guests"));
        let host =
            Host::new(HostOptions { threads, cache_dir, seed: 7, sink: Arc::clone(&lines) as _, ..HostOptions::default() })
                .unwrap();
        let good = host.load(request(PluginKind::Reward, "reward-misbehaves", json!({ "mode": "good" }))).unwrap();
        let good = good.into_reward().unwrap();
        let answer = bits(&good.score(batch(true)).unwrap());
        Neighbour { host, lines, good, answer }
    }

    /// The good plugin still says what it said before.
    #[track_caller]
    pub fn is_well(&self, after: &str) {
        assert_eq!(bits(&self.good.score(batch(true)).unwrap()), self.answer, "after {after}");
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub resident_kib: u64,
    pub threads: u64,
    pub files: usize,
}

impl Process {
    /// As the system counts now.
    #[cfg(target_os = "linux")]
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
        Process { resident_kib: field("VmRSS:"), threads: field("Threads:"), files }
    }

    /// Systems that do not tell have nothing to compare.
    #[cfg(not(target_os = "linux"))]
    pub fn now() -> Self {
        Process { resident_kib: 0, threads: 0, files: 0 }
    }

    /// Nothing but a little memory came on top.
    #[track_caller]
    pub fn has_not_grown_since(self, before: Process, kib: u64) {
        assert_eq!((self.threads, self.files), (before.threads, before.files), "threads and open files");
        let (now, then) = (self.resident_kib, before.resident_kib);
        assert!(now <= then + kib, "{now} KiB resident, {then} KiB before, {kib} KiB allowed");
    }
}
