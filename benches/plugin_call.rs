//! What a call into a plugin costs beyond the plugin's own work.
//!
//! - `plugin_call/numbers/rows`: 4,096 numbers into a running guest and back, checked. `nothing` is the same call with a guest
//!   that reads no column and returns as many zeros; the difference is the column's way in.
//! - `plugin_call/texts/bytes`: a text column into a running guest, where the SDK checks that it is UTF-8.
//! - `plugin_call/fresh/rows`: as `numbers` with everything a run pays: copying the batch for the worker, the way to the worker
//!   and back, a fresh instance and its `init`.
//! - `plugin_call/started/rows`: its part on the calling thread: a fresh instance, its `init` and the call.
//! - `plugin_call/handoff/rows`: its part without a plugin: the copy, and the way to a thread that sleeps and back, which is the
//!   machine's and depends on how deep its cores sleep.
//! - `plugin_call/native/rows`: the copies that a native function with the same interface makes, to compare.
//!
//! `cargo bench --bench plugin_call`, after `cargo xtask guests`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::channel::bounded;
use plumb_core::{Batch, Column, PluginKind};
use plumb_host::{Host, HostOptions, LoadRequest, LoadedPlugin};

fn guest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/guests/{name}.wasm"))
}

fn echo(host: &Host, read: &str) -> LoadedPlugin {
    let mut request = LoadRequest::new(PluginKind::Shaper, guest("shaper-echo"));
    request.config.insert("read".into(), read.into());
    host.load(request).expect("`cargo xtask guests` builds the guest")
}

fn numbers(rows: usize) -> Arc<Batch> {
    let mut batch = Batch::new(0, (0..rows as u64).collect(), vec![rows as u32]);
    batch.insert("value", Column::F64((0..rows).map(|row| row as f64 * 0.5).collect()));
    Arc::new(batch)
}

fn texts(rows: usize, bytes: usize) -> Arc<Batch> {
    let mut batch = Batch::new(0, (0..rows as u64).collect(), vec![rows as u32]);
    batch.insert("completion", Column::Text((0..rows).map(|_| "a".repeat(bytes)).collect()));
    Arc::new(batch)
}

fn calls(c: &mut Criterion) {
    let host = Host::new(HostOptions::default()).expect("a host starts");
    let rows = 4096;
    let batch = numbers(rows);
    let Some(Column::F64(values)) = batch.column("value") else { unreachable!("`numbers` made it") };

    let mut group = c.benchmark_group("plugin_call");
    group.throughput(Throughput::Elements(rows as u64));
    let plugin = echo(&host, "numbers");
    let mut instance = plugin.instance().expect("the guest starts");
    assert_eq!(instance.shape(&batch).expect("the guest answers").values.as_ref(), Some(values));
    group.bench_function(BenchmarkId::new("numbers", rows), |b| b.iter(|| instance.shape(black_box(&batch))));

    let mut nothing = echo(&host, "nothing").instance().expect("the guest starts");
    group.bench_function(BenchmarkId::new("nothing", rows), |b| b.iter(|| nothing.shape(black_box(&batch))));
    let empty = numbers(1);
    group.bench_function(BenchmarkId::new("nothing", 1), |b| b.iter(|| nothing.shape(black_box(&empty))));
    group.bench_function(BenchmarkId::new("native", rows), |b| {
        b.iter(|| {
            let answer: Vec<f64> = black_box(values).clone();
            answer.iter().all(|value| value.is_finite()).then_some(answer)
        });
    });
    group.bench_function(BenchmarkId::new("started", rows), |b| {
        b.iter(|| plugin.instance().and_then(|mut instance| instance.shape(black_box(&batch))));
    });
    group.bench_function(BenchmarkId::new("handoff", rows), |b| {
        let (jobs, queue) = bounded::<Arc<Batch>>(1);
        let (answers, done) = bounded(1);
        let worker = thread::spawn(move || queue.into_iter().try_for_each(|batch| answers.send(batch)));
        b.iter(|| {
            jobs.send(Arc::new(Batch::clone(black_box(&batch)))).expect("the worker runs");
            done.recv()
        });
        drop(jobs);
        worker.join().expect("the worker ends").expect("somebody waits for every answer");
    });
    let shaper = plugin.into_shaper().expect("it is a shaper");
    group.bench_function(BenchmarkId::new("fresh", rows), |b| b.iter(|| shaper.shape(black_box(&batch))));

    for (rows, length) in [(256, 16 << 10), (4096, 256)] {
        let batch = texts(rows, length);
        let mut instance = echo(&host, "texts").instance().expect("the guest starts");
        let total = (rows * length) as u64;
        assert_eq!(instance.shape(&batch).expect("the guest answers").values.expect("it has values")[0], total as f64);
        group.throughput(Throughput::Bytes(total));
        group.bench_function(BenchmarkId::new("texts", format!("{rows}x{length}")), |b| {
            b.iter(|| instance.shape(black_box(&batch)));
        });
    }
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
