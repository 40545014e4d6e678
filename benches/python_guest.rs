//! What a reward in Python costs.
//!
//! - `python_guest/regex/warm`: 256 rows through a running instance, a regular expression searched in each.
//! - `python_guest/regex/fresh`: the same as a run does it: a fresh instance, its `init`, the way to the worker and back.
//! - `python_guest/load/cached`: from the component's bytes to a plugin that can be called, compiled code in the cache.
//!
//! `cargo bench --bench python_guest`, after `cargo xtask python`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use plumb_core::{Batch, Column, Outcome, PluginKind};
use plumb_host::{Host, HostOptions, LoadRequest, LoadedPlugin};

const ROWS: usize = 256;

fn load(host: &Host) -> LoadedPlugin {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests/reward-regex.wasm");
    host.load(LoadRequest::new(PluginKind::Reward, guest)).expect("`cargo xtask python` builds the guest")
}

/// Completions of 150 to 500 bytes that end in the answer.
fn batch() -> Arc<Batch> {
    let mut batch = Batch::new(0, (0..ROWS as u64).collect(), vec![ROWS as u32]);
    let thought = "First 12 + 30 is 42, so we go on with the next step and so on, and then we check it all once more. ";
    let texts = (0..ROWS).map(|row| format!("{}So the answer is {row}.", thought.repeat(row % 4 + 1)));
    batch.insert("completion", Column::Text(texts.collect()));
    Arc::new(batch)
}

fn calls(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = HostOptions { threads: 1, cache_dir: Some(folder.path().to_owned()), ..HostOptions::default() };
    let host = Host::new(options).expect("a host starts");
    let plugin = load(&host);
    let batch = batch();
    let mut group = c.benchmark_group("python_guest");
    group.throughput(Throughput::Elements(ROWS as u64));
    let mut instance = plugin.instance().expect("the guest starts");
    let outcomes = instance.score(&batch).expect("the guest answers").outcomes;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Scored(1.0)));
    group.bench_function("regex/warm", |b| b.iter(|| instance.score(black_box(&batch))));
    let reward = plugin.into_reward().expect("it is a reward");
    group.bench_function("regex/fresh", |b| b.iter(|| reward.score((*batch).clone())));
    group.finish();

    let mut group = c.benchmark_group("python_guest/load");
    group.sample_size(10);
    group.bench_function("cached", |b| b.iter(|| load(&host)));
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
