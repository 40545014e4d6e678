//! What a judge costs besides the model's time: `begin` and `resume` over 64 rows, each in a fresh instance on a worker, with
//! questions and verdicts checked. The answers are there already.
//!
//! - `judge_turn/rubric/64`: `judge-rubric`, a prompt per row and a grade in each answer.
//! - `judge_turn/pairwise/64`: `judge-pairwise` over groups of 8 in both orders, 448 prompts, into matrices.
//!
//! `cargo bench --bench judge_turn`, after `cargo xtask plugins`.
#![allow(missing_docs)]

use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use plumb_core::recipe::Grants;
use plumb_core::services::Generated;
use plumb_core::{Batch, Column, Judge, PluginKind, Turn};
use plumb_host::{Host, HostOptions, LoadRequest};

const ROWS: usize = 64;
const GROUP: usize = 8;

fn judge(host: &Host, name: &str, config: &serde_json::Value) -> Arc<dyn Judge> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/plugins/{name}.wasm"));
    let mut request = LoadRequest::new(PluginKind::Judge, path);
    request.config = config.as_object().cloned().unwrap_or_default();
    // The pairs of a group are many prompts a row.
    request.grants = Grants { models: vec!["reference".into()], tokens_per_row: Some(1 << 20), ..Grants::default() };
    host.load(request).and_then(plumb_host::LoadedPlugin::into_judge).expect("`cargo xtask plugins` builds the judge")
}

/// Completions of about 600 bytes in groups of eight.
fn batch() -> Arc<Batch> {
    let mut batch = Batch::new(1, (0..ROWS as u64).collect(), (1..=ROWS / GROUP).map(|group| (group * GROUP) as u32).collect());
    let text = |row: usize| format!("Step {row}: {}", "so the answer follows from the line above. ".repeat(14));
    batch.insert("prompt", Column::Text((0..ROWS).map(|row| format!("Question {}: what is it?", row / GROUP)).collect()));
    batch.insert("completion", Column::Text((0..ROWS).map(text).collect()));
    Arc::new(batch)
}

fn turns(c: &mut Criterion) {
    let host = Host::new(HostOptions::default()).expect("a host starts");
    let batch = batch();
    let mut group = c.benchmark_group("judge_turn");
    for (name, verdict, config) in [
        (
            "rubric",
            "It is right and brief, as asked. [[8]]",
            serde_json::json!({ "model": "reference", "rubric": "Is it right?" }),
        ),
        (
            "pairwise",
            "Both are alike, the first is clearer. [[A]]",
            serde_json::json!({ "model": "reference", "form": "matrix" }),
        ),
    ] {
        let judge = judge(&host, &format!("judge-{name}"), &config);
        let Turn::Ask(ask) = judge.begin(&batch).expect("the judge asks") else { panic!("the judge asks") };
        let mut answer = Generated::default();
        for _ in 0..ask.questions[0].prompts.len() {
            answer.text.push(verdict);
            answer.tokens.push(&[0; 12]);
            answer.logprobs.push(&[0.0; 12]);
            answer.finish.push("stop".into());
        }
        let answers = [answer];
        group.bench_function(BenchmarkId::new(name, ROWS), |b| {
            b.iter(|| {
                judge.begin(&batch).expect("the judge asks");
                let turn = judge.resume(&batch, &ask.memo, &answers).expect("the judge decides");
                assert!(matches!(turn, Turn::Done(_)));
            });
        });
        // What calls left is for the end of a step.
        judge.end_step();
    }
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
