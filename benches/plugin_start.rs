//! What it costs to start a plugin.
//!
//! - `plugin_start/compile`: no cache: read, inspect, compile, link, `describe`, `init`.
//! - `plugin_start/cached`: the same, with the compiled code in the cache, as in every run but a machine's first.
//! - `plugin_start/instance`: what every call pays: a fresh instance and its `init`.
//!
//! `cargo bench --bench plugin_start`, after `cargo xtask guests`.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use criterion::{Criterion, criterion_group, criterion_main};
use plumb_core::PluginKind;
use plumb_host::{Host, HostOptions, LoadRequest};

fn request() -> LoadRequest {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests/shaper-echo.wasm");
    let mut request = LoadRequest::new(PluginKind::Shaper, path);
    request.config.insert("read".into(), "numbers".into());
    request
}

fn host(cache_dir: Option<PathBuf>) -> Host {
    Host::new(HostOptions { cache_dir, ..HostOptions::default() }).expect("a host starts")
}

fn start(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut group = c.benchmark_group("plugin_start");

    let plain = host(None);
    group.sample_size(10);
    group.bench_function("compile", |b| b.iter(|| plain.load(request()).expect("`cargo xtask guests` builds the guest")));

    let cache = dir.path().join("components");
    let filled = host(Some(cache.clone()));
    filled.load(request()).expect("the guest loads");
    assert_eq!(std::fs::read_dir(&cache).expect("the cache is there").count(), 1, "the cache holds the guest");
    group.sample_size(50);
    group.bench_function("cached", |b| b.iter(|| filled.load(request()).expect("the guest loads")));

    let plugin = filled.load(request()).expect("the guest loads");
    group.bench_function("instance", |b| b.iter(|| plugin.instance().expect("the guest starts")));
    group.finish();
}

criterion_group!(benches, start);
criterion_main!(benches);
