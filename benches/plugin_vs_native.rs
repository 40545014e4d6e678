//! The same reward as a component, under a run's settings (fuel, epochs, canonical NaNs), and as native code: one crate, two builds.
//!
//! `plugin_vs_native/<reward>/{component,native}/<rows>` over completions of about 1 KiB:
//! - `contains`, `last-number`: `reward-exact-match`, which searches the text for the answer or from its end for a number.
//! - `regex`: `reward-format`, which searches the text for a pattern.
//!
//! The component's time has the batch's way into a running guest and the checks of its answer; the native one's nothing but the
//! reward. `cargo bench --bench plugin_vs_native`, after `cargo xtask plugins`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plumb_core::{Batch, Column, PluginKind};
use plumb_host::{Host, HostOptions, LoadRequest};
use plumb_sdk::reward::BatchReward;
use plumb_sdk::testing::{self, BatchBuilder};
use reward_exact_match::logic::ExactMatch;
use reward_format::logic::Format;

/// One call of a run, and a step of 4,096 completions in one call.
const ROWS: [usize; 2] = [256, 4096];

/// A worked solution with numbers and words, and the answer at its end in every other row.
fn completion(row: usize) -> String {
    let steps = (0..16)
        .map(|step| format!("Step {step}: take {}, add {step} and get the sum of {}.\n", row * 31 + step, row * 31 + 2 * step));
    let answer = if row.is_multiple_of(2) { row } else { row + 2 };
    format!("{}So the answer is \\boxed{{{answer}}}.", steps.collect::<String>())
}

fn compare<T: BatchReward>(c: &mut Criterion, host: &Host, name: &str, plugin: &str, config: &serde_json::Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/plugins/{plugin}.wasm"));
    let mut request = LoadRequest::new(PluginKind::Reward, path);
    request.config = config.as_object().cloned().unwrap_or_default();
    let component = host.load(request).expect("`cargo xtask plugins` builds the reward");
    let mut instance = component.instance().expect("the guest starts");
    let native: T = testing::reward(&config.to_string()).expect("the same configuration");
    let mut group = c.benchmark_group(format!("plugin_vs_native/{name}"));
    for rows in ROWS {
        let completions: Vec<String> = (0..rows).map(completion).collect();
        let answers: Vec<String> = (0..rows).map(|row| row.to_string()).collect();
        let mut batch = Batch::new(0, (0..rows as u64).collect(), vec![rows as u32]);
        batch.insert("completion", Column::Text(completions.iter().collect()));
        batch.insert("answer", Column::Text(answers.iter().collect()));
        let batch = Arc::new(batch);
        let data = BatchBuilder::new().text("completion", &completions).text("answer", &answers).build();
        let (guest, own) =
            (instance.score(&batch).expect("the guest answers"), native.score(&data.batch()).expect("so does the crate"));
        let guest: Vec<f64> = guest.outcomes.iter().map(|outcome| outcome.value().expect("every row has a reward")).collect();
        assert_eq!(guest, own.values, "both builds give the same rewards");
        assert!(guest.contains(&0.0) && guest.contains(&1.0), "some rows are right, some wrong");
        group.throughput(Throughput::Bytes(completions.iter().map(|text| text.len() as u64).sum()));
        group.bench_function(BenchmarkId::new("component", rows), |b| b.iter(|| instance.score(black_box(&batch))));
        group.bench_function(BenchmarkId::new("native", rows), |b| b.iter(|| native.score(&black_box(&data).batch())));
    }
    group.finish();
}

fn rewards(c: &mut Criterion) {
    let host = Host::new(HostOptions::default()).expect("a host starts");
    for mode in ["contains", "last-number"] {
        compare::<ExactMatch>(c, &host, mode, "reward-exact-match", &serde_json::json!({ "mode": mode }));
    }
    let even = serde_json::json!({ "regex": { "pattern": r"answer is \\boxed\{\d*[02468]\}" } });
    compare::<Format>(c, &host, "regex", "reward-format", &even);
}

criterion_group!(benches, rewards);
criterion_main!(benches);
