//! The kernels of training and rollouts at the shapes of SmolLM2-135M: d = 576, f = 1536, 9 query heads on 3 key heads of 64, v = 49,152.
//!
//! `cargo bench --bench kernels`; `-- matmul` for one group. Throughput is in FLOP (criterion says "elem") for products and in bytes for
//! what memory bounds, so that a figure can be held against the machine's peak. Set `RAYON_NUM_THREADS` to choose the threads.
#![allow(missing_docs, reason = "criterion's macros make public functions without documentation")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plumb_kernels::cpu::adamw::{AdamW, adamw};
use plumb_kernels::cpu::attention::{AttentionSaved, Heads, Span, attention, attention_backward};
use plumb_kernels::cpu::global_norm::global_norm;
use plumb_kernels::cpu::logprob::{Head, LogprobGrads, logprob, logprob_backward};
use plumb_kernels::cpu::matmul::{Matrix, MatrixMut, Precision, Store, matmul};
use plumb_kernels::cpu::packed_matmul::{PackedMatrix, WeightFormat};
use rayon::prelude::*;

const TOKENS: usize = 1536;

/// Numbers in (-1, 1) without pattern in their low bits.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn bench_matmul(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matmul");
    group.sample_size(10);
    for (inputs, outputs) in [(576, 960), (576, 576), (576, 3072), (1536, 576), (576, 49_152)] {
        let n = if outputs == 49_152 { 256 } else { TOKENS };
        let (x, w, dy) = (noise(n * inputs), noise(outputs * inputs), noise(n * outputs));
        group.throughput(Throughput::Elements(2 * (n * inputs * outputs) as u64));
        let [mx, mw, mdy] = [Matrix::new(&x, n, inputs), Matrix::new(&w, outputs, inputs), Matrix::new(&dy, n, outputs)];
        let mut out = vec![0.0; (n * outputs).max(outputs * inputs).max(n * inputs)];
        for precision in [Precision::Highest, Precision::High, Precision::Medium] {
            let id = |product: &str| format!("{product}/n{n}_in{inputs}_out{outputs}/{precision:?}").to_lowercase();
            group.bench_function(id("forward"), |bencher| {
                let out = &mut out[..n * outputs];
                bencher.iter(|| matmul(precision, Store::Set, MatrixMut::new(out, n, outputs), mx, mw.t()));
            });
            group.bench_function(id("dx"), |bencher| {
                let out = &mut out[..n * inputs];
                bencher.iter(|| matmul(precision, Store::Set, MatrixMut::new(out, n, inputs), mdy, mw));
            });
            group.bench_function(id("dw"), |bencher| {
                let dw = &mut out[..outputs * inputs];
                bencher.iter(|| matmul(precision, Store::Add, MatrixMut::new(dw, outputs, inputs), mdy.t(), mx));
            });
        }
    }
    group.finish();
}

/// Rollouts' products: all matrices of a shape, as one token's pass reads them, beside a plain read of as many bytes.
fn bench_packed_matmul(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packed_matmul");
    group.sample_size(10);
    for (n, k, layers) in [(49_152, 576, 1), (3072, 576, 30), (576, 1536, 30)] {
        let w = noise(n * k);
        let formats = [
            (WeightFormat::F32, Precision::Highest),
            (WeightFormat::F32, Precision::High),
            (WeightFormat::Bf16, Precision::Highest),
            (WeightFormat::Bf16, Precision::High),
            (WeightFormat::Int8, Precision::Highest),
        ];
        for (format, precision) in formats {
            let packed = || {
                let mut matrix = PackedMatrix::zeros(n, k, format, precision);
                matrix.pack(&[&w]);
                matrix
            };
            let matrices: Vec<PackedMatrix> = (0..layers).map(|_| packed()).collect();
            let bytes: usize = matrices.iter().map(PackedMatrix::bytes).sum();
            group.throughput(Throughput::Bytes(bytes as u64));
            for m in [1, 8, 16, 32] {
                let (x, mut y) = (noise(m * k), vec![0.0; m * n]);
                group.bench_function(format!("{format:?}_{precision:?}/n{n}_k{k}_m{m}").to_lowercase(), |bencher| {
                    bencher.iter(|| matrices.iter().for_each(|matrix| matrix.multiply(&x, &mut y)));
                });
            }
            let plain = vec![1.0_f32; bytes / 4];
            group.bench_function(format!("read/{format:?}_{precision:?}_n{n}_k{k}").to_lowercase(), |bencher| {
                bencher.iter(|| black_box(&plain).par_chunks(1 << 16).map(largest).reduce(|| 0.0, f32::max));
            });
        }
    }
    group.finish();
}

/// The largest number, in lanes that any vector width can take.
fn largest(numbers: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 64];
    for chunk in numbers.as_chunks::<64>().0 {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.into_iter().fold(0.0, f32::max)
}

fn bench_attention(criterion: &mut Criterion) {
    let heads = Heads { query: 9, key: 3, dim: 64 };
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(10);
    for (sequences, len) in [(8, 192), (2, 768)] {
        let n = sequences * len;
        let spans: Vec<Span> = (0..sequences).map(|i| Span { start: i * len, len, prefix: None }).collect();
        let (qkv, dout) = (noise(n * heads.qkv_stride()), noise(n * heads.out_stride()));
        let (mut out, mut lse, mut dqkv) = (vec![0.0; dout.len()], vec![0.0; n * heads.query], vec![0.0; qkv.len()]);
        let shape = format!("n{sequences}_t{len}");
        // 4 FLOP for each pair of tokens (half of them causal), channel and head; 10 backward.
        let pairs = (sequences * len * len / 2 * heads.query * heads.dim) as u64;
        group.throughput(Throughput::Elements(4 * pairs));
        group.bench_function(BenchmarkId::new("forward", &shape), |bencher| {
            bencher.iter(|| attention(heads, &qkv, &spans, &mut out, &mut lse));
        });
        group.throughput(Throughput::Elements(10 * pairs));
        group.bench_function(BenchmarkId::new("backward", &shape), |bencher| {
            let saved = AttentionSaved { qkv: &qkv, out: &out, lse: &lse };
            bencher.iter(|| attention_backward(heads, saved, &spans, &dout, &mut dqkv));
        });
    }
    group.finish();
}

fn bench_logprob(criterion: &mut Criterion) {
    let (rows, width, vocab) = (256, 576, 49_152);
    let (matrix, hidden) = (noise(vocab * width), noise(rows * width));
    let (row_ends, tokens): (Vec<usize>, Vec<u32>) = (0..rows).map(|i| (i + 1, (i * 97) as u32)).unzip();
    let head = Head {
        matrix: &matrix,
        hidden: &hidden,
        width,
        temperature: 1.0,
        row_ends: &row_ends,
        tokens: &tokens,
        precision: Precision::High,
    };
    let (mut scratch, mut dhidden, mut dmatrix) = (Vec::new(), vec![0.0; hidden.len()], vec![0.0; matrix.len()]);
    let answer = logprob(head, &mut scratch);
    let dlogprobs = noise(rows);
    let mut group = criterion.benchmark_group("logprob");
    group.sample_size(10);
    let flop = 2 * (rows * width * vocab) as u64;
    group.throughput(Throughput::Elements(flop));
    group.bench_function("forward/r256_v49152", |bencher| bencher.iter(|| black_box(logprob(head, &mut scratch))));
    group.throughput(Throughput::Elements(3 * flop));
    group.bench_function("backward/r256_v49152", |bencher| {
        let grads = LogprobGrads { logprobs: &dlogprobs, entropies: None };
        bencher.iter(|| logprob_backward(head, &answer, grads, &mut scratch, &mut dhidden, &mut dmatrix));
    });
    group.finish();
}

fn bench_optimizer(criterion: &mut Criterion) {
    let n = 1 << 25;
    let [mut params, grads] = [noise(n), noise(n)];
    let [mut first, mut second] = [vec![0.0; n], vec![0.0; n]];
    let mut group = criterion.benchmark_group("optimizer");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(28 * n as u64));
    group.bench_function("adamw/n33554432", |bencher| {
        let constants =
            AdamW { learning_rate: 1e-6, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step: 10, grad_scale: 0.5 };
        bencher.iter(|| adamw(&constants, &mut params, &grads, &mut first, &mut second));
    });
    group.throughput(Throughput::Bytes(4 * n as u64));
    group.bench_function("global_norm/n33554432", |bencher| bencher.iter(|| black_box(global_norm(&grads))));
    group.finish();
}

criterion_group!(benches, bench_matmul, bench_packed_matmul, bench_attention, bench_logprob, bench_optimizer);
criterion_main!(benches);
