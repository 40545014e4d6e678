//! Ways for the fuzz targets in `tests/fuzz` to what is private here. No part of the interface.

use std::sync::Arc;

use plumb_core::feedback::{Ask, Verdicts};
use plumb_core::{Batch, Column, Outcome, Ragged, Turn};

use crate::answer;
use crate::bindings::{filtering, judging, rewarding, shaping, tooling, types};
use crate::limits;
use crate::snapshot::Snapshot;
use crate::view::BatchView;

/// Decodes what a checkpoint holds of a plugin; what is accepted must be written and read again as it was.
pub fn snapshot(bytes: &[u8]) {
    if let Some(snapshot) = Snapshot::decode(bytes) {
        assert!(Snapshot::decode(&snapshot.encode()) == Some(snapshot));
    }
}

/// Makes an answer of each kind out of `bytes` and checks it; what passes must hold what the checks promise.
pub fn answers(bytes: &[u8]) {
    let mut input = Input(bytes);
    let batch = batch();
    match input.byte() % 5 {
        0 => rewards(&mut input, &batch),
        1 => shaped(&mut input, &batch),
        2 => decision(&mut input, &batch),
        3 => turn(&mut input, &batch),
        _ => outputs(&mut input, batch.rows()),
    }
}

fn rewards(input: &mut Input, batch: &Arc<Batch>) {
    let rows = batch.rows();
    if let Ok(rewards) = answer::rewards(input.rewards(rows), &BatchView::new(Arc::clone(batch))) {
        assert_eq!(rewards.outcomes.len(), rows);
        assert!(rewards.outcomes.iter().all(|outcome| outcome.value().is_none_or(usable)));
        assert!(rewards.parts.iter().all(|(name, values)| name.len() <= limits::NAME_BYTES && values.len() == rows));
        let faulty = |row: u32| !matches!(rewards.outcomes[row as usize], Outcome::Scored(_));
        assert!(rewards.spans.iter().all(|span| span.start <= span.stop && usable(span.value) && !faulty(span.row)));
    }
}

fn shaped(input: &mut Input, batch: &Batch) {
    let rows = batch.rows();
    if let Ok(shaped) = answer::shaped(input.shaped(rows), batch) {
        let faulty = |row: usize| shaped.faults.iter().any(|(at, _)| *at as usize == row);
        assert!(shaped.faults.iter().all(|(row, _)| (*row as usize) < rows));
        if let Some(values) = &shaped.values {
            assert_eq!(values.len(), rows);
            assert!(values.iter().enumerate().all(|(row, value)| usable(*value) || faulty(row)));
        }
        if let Some(tokens) = &shaped.token_values {
            assert!((0..rows).all(|row| faulty(row) || tokens.row(row).len() == row));
        }
    }
}

fn decision(input: &mut Input, batch: &Batch) {
    let rows = batch.rows();
    if let Ok(decision) = answer::decision(input.decision(rows), batch) {
        assert_eq!(decision.keep.len(), rows);
        let row = |row: u32| (row as usize) < rows;
        assert!(decision.weights.iter().flatten().all(|weight| usable(*weight) && *weight >= 0.0));
        assert!(decision.regenerate.iter().all(|group| (*group as usize) < batch.group_ends.len()));
        assert!(decision.reasons.iter().all(|(at, _)| row(*at)));
        assert!(decision.relabels.iter().all(|relabel| relabel.rows.iter().all(|(at, _)| row(*at))));
        if let Some(pairs) = &decision.pairs {
            assert!(pairs.chosen.iter().chain(&pairs.rejected).all(|at| row(*at)));
            assert!(pairs.probability.iter().all(|p| (0.0..=1.0).contains(p)));
            assert!([pairs.rejected.len(), pairs.margin.len(), pairs.level.len()] == [pairs.chosen.len(); 3]);
        }
    }
}

/// What `begin` and `resume` return alike.
fn turn(input: &mut Input, batch: &Batch) {
    match answer::turn(input.turn(batch), batch) {
        Ok(Turn::Ask(Ask { questions, memo })) => {
            assert!(memo.len() <= limits::MEMO_BYTES && questions.len() <= limits::QUESTIONS);
            let prompts: usize = questions.iter().map(|question| question.prompts.len()).sum();
            assert!((1..=limits::PROMPTS).contains(&prompts));
            for question in &questions {
                assert!((0..question.prompts.len()).all(|row| question.prompts.get(row).is_some()));
                let sampling = &question.sampling;
                assert!(sampling.max_tokens > 0 && (1..=limits::COMPLETIONS).contains(&sampling.count));
                assert!(sampling.temperature >= 0.0 && sampling.temperature.is_finite());
                assert!(sampling.top_p > 0.0 && sampling.top_p <= 1.0 && sampling.stop.len() <= limits::STOPS);
            }
        }
        Ok(Turn::Done(verdicts)) => verdicts_fit(&verdicts, batch),
        Err(_) => {}
    }
}

fn verdicts_fit(verdicts: &Verdicts, batch: &Batch) {
    let rows = batch.rows();
    let Verdicts { scores, pairs, matrices, rationales, parts, faults } = verdicts;
    let faulty = |row: usize| faults.iter().any(|(at, _)| *at as usize == row);
    assert!(scores.is_some() || pairs.is_some() || matrices.is_some() || (0..rows).all(faulty));
    assert!(faults.iter().all(|(row, _)| (*row as usize) < rows));
    assert!(parts.iter().all(|(name, values)| name.len() <= limits::NAME_BYTES && values.len() == rows));
    if let Some(scores) = scores {
        assert_eq!(scores.len(), rows);
        assert!(scores.iter().enumerate().all(|(row, score)| if faulty(row) { score.is_nan() } else { usable(*score) }));
    }
    if let Some(pairs) = pairs {
        assert!([pairs.second.len(), pairs.probability.len()] == [pairs.first.len(); 2]);
        assert!(pairs.first.iter().zip(&pairs.second).all(|(a, b)| a != b && (*a.max(b) as usize) < rows));
        assert!(pairs.probability.iter().all(|p| (0.0..=1.0).contains(p)));
    }
    if let Some(matrices) = matrices {
        let (mut values, mut readable) = (matrices.values.as_slice(), matrices.readable.as_slice());
        for n in batch.groups().map(|group| group.len()) {
            let (entries, flags);
            (entries, values) = values.split_at(n * n);
            (flags, readable) = readable.split_at(n * n);
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let (at, across) = (i * n + j, j * n + i);
                assert!(usable(entries[at]) && entries[at] == -entries[across]);
                assert!(flags[at] == flags[across] && (flags[at] || entries[at] == 0.0));
            }
        }
        assert!(values.is_empty() && readable.is_empty());
    }
    if let Some(rationales) = rationales {
        assert!(rationales.len() == rows && (0..rows).all(|row| rationales.get(row).is_some()));
    }
}

fn outputs(input: &mut Input, rows: usize) {
    let answer = tooling::Outputs { output: input.texts(rows), faults: input.row_faults() };
    let faulty: Vec<usize> = answer.faults.iter().map(|fault| fault.row as usize).collect();
    if let Ok(outputs) = answer::tool_outputs(answer, rows) {
        assert_eq!(outputs.len(), rows);
        assert!(outputs.iter().enumerate().all(|(row, output)| output.is_err() == faulty.contains(&row)));
        let kept = limits::MESSAGE_BYTES + '…'.len_utf8();
        let faults = outputs.iter().filter_map(|output| output.as_ref().err());
        assert!(faults.into_iter().all(|fault| fault.code.len() <= limits::CODE_BYTES && fault.message.len() <= kept));
    }
}

fn usable(value: f64) -> bool {
    value.abs() <= limits::MAGNITUDE
}

/// Four rows in two groups; row `i` has `i` tokens.
fn batch() -> Arc<Batch> {
    let mut batch = Batch::new(3, vec![10, 11, 12, 13], vec![2, 4]);
    batch.insert("completion", Column::Text(["", "a", "bb", "ccc"].iter().collect()));
    let mut ids = Ragged::default();
    (0..4u32).for_each(|row| ids.push(&vec![row; row as usize]));
    batch.insert("completion_ids", Column::Tokens(ids));
    Arc::new(batch)
}

/// Data out of bytes; zeros behind their end. Small lengths and numbers that mean something are likely.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn u32(&mut self) -> u32 {
        match self.byte() {
            255 => u32::MAX,
            small => u32::from(small % 8),
        }
    }

    fn f64(&mut self) -> f64 {
        match self.byte() {
            0..=99 => 0.5,
            100 => f64::NAN,
            101 => f64::INFINITY,
            102 => f64::MAX,
            103 => -0.0,
            104 => 1.0 + f64::EPSILON,
            _ => f64::from_bits(u64::from_le_bytes(std::array::from_fn(|_| self.byte()))),
        }
    }

    /// As many as rows, mostly.
    fn list<T>(&mut self, rows: usize, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        let n = match self.byte() {
            0..=199 => rows,
            other => usize::from(other - 200),
        };
        (0..n).map(|_| one(self)).collect()
    }

    fn few<T>(&mut self, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        let n = self.byte() % 5;
        (0..n).map(|_| one(self)).collect()
    }

    fn maybe<T>(&mut self, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() % 2 == 1).then(|| one(self))
    }

    fn name(&mut self) -> String {
        match self.byte() {
            255 => "n".repeat(limits::MESSAGE_BYTES + 1),
            254 => "completion".into(),
            253 => "abstain".into(),
            252 => "token".into(),
            251 => "char".into(),
            250 => "é".repeat(limits::MESSAGE_BYTES),
            other => char::from(b'a' + other % 4).to_string(),
        }
    }

    fn texts(&mut self, rows: usize) -> types::Texts {
        types::Texts { bytes: self.few(Self::byte), ends: self.list(rows, Self::u32) }
    }

    fn fault(&mut self) -> types::Fault {
        types::Fault { code: self.name(), message: self.name(), retryable: false }
    }

    fn row_faults(&mut self) -> Vec<types::RowFault> {
        self.few(|input| types::RowFault { row: input.u32(), fault: input.fault() })
    }

    fn parts(&mut self, rows: usize) -> Vec<types::NamedF64> {
        self.few(|input| types::NamedF64 { name: input.name(), values: input.list(rows, Self::f64) })
    }

    fn rewards(&mut self, rows: usize) -> rewarding::Rewards {
        rewarding::Rewards {
            values: self.list(rows, Self::f64),
            parts: self.parts(rows),
            spans: self.few(|input| {
                let n = usize::from(input.byte() % 4);
                types::NamedSpans {
                    name: input.name(),
                    unit: input.name(),
                    rows: input.list(n, Self::u32),
                    starts: input.list(n, Self::u32),
                    stops: input.list(n, Self::u32),
                    values: input.list(n, Self::f64),
                }
            }),
            faults: self.row_faults(),
        }
    }

    fn shaped(&mut self, rows: usize) -> shaping::Shaped {
        shaping::Shaped {
            values: self.maybe(|input| input.list(rows, Self::f64)),
            token_values: self.maybe(|input| types::RaggedF32 {
                values: input.list(6, |input| input.f64() as f32),
                // Zero, one, two and three tokens, if the bytes say nothing else.
                ends: if input.byte() < 200 { vec![0, 1, 3, 6] } else { input.list(rows, Self::u32) },
            }),
            parts: self.parts(rows),
            faults: self.row_faults(),
        }
    }

    fn decision(&mut self, rows: usize) -> filtering::Decision {
        filtering::Decision {
            keep: self.list(rows, |input| input.byte() % 3),
            weights: self.maybe(|input| input.list(rows, Self::f64)),
            pairs: self.maybe(|input| {
                let n = usize::from(input.byte() % 4);
                filtering::Pairs {
                    chosen: input.list(n, Self::u32),
                    rejected: input.list(n, Self::u32),
                    probability: input.list(n, Self::f64),
                    margin: input.list(n, Self::f64),
                    level: input.list(n, Self::u32),
                }
            }),
            relabels: self.few(|input| {
                let n = usize::from(input.byte() % 4);
                filtering::Relabel { column: input.name(), rows: input.list(n, Self::u32), texts: input.texts(n) }
            }),
            regenerate: self.few(Self::u32),
            parts: self.parts(rows),
            reasons: self.few(|input| (input.u32(), input.name())),
        }
    }

    fn turn(&mut self, batch: &Batch) -> judging::Turn {
        if self.byte().is_multiple_of(2) {
            judging::Turn::Done(self.verdicts(batch))
        } else {
            let questions = self.list(1, |input| judging::Question {
                model: input.name(),
                prompts: input.prompts(),
                params: input.sampling(),
            });
            judging::Turn::Ask(judging::Ask { questions, memo: self.few(Self::byte) })
        }
    }

    /// Texts of a byte each, or whatever.
    fn prompts(&mut self) -> types::Texts {
        match self.byte() {
            0..=127 => {
                let bytes = self.few(Self::byte);
                types::Texts { ends: (1..=bytes.len() as u32).collect(), bytes }
            }
            other => self.texts(usize::from(other % 4)),
        }
    }

    fn sampling(&mut self) -> types::Sampling {
        types::Sampling {
            max_tokens: self.u32(),
            temperature: self.f64() as f32,
            top_p: self.f64() as f32,
            count: self.u32(),
            seed: u64::from(self.u32()),
            stop: self.few(Self::name),
            extra: self.few(|input| (input.name(), input.name())),
        }
    }

    fn verdicts(&mut self, batch: &Batch) -> judging::Verdicts {
        let rows = batch.rows();
        let entries = batch.groups().map(|group| group.len() * group.len()).sum();
        judging::Verdicts {
            scores: self.maybe(|input| input.list(rows, Self::f64)),
            pairs: self.maybe(|input| {
                let n = usize::from(input.byte() % 4);
                judging::PairVerdicts {
                    first: input.list(n, Self::u32),
                    second: input.list(n, Self::u32),
                    probability: input.list(n, Self::f64),
                }
            }),
            matrices: self.maybe(|input| judging::MatrixVerdicts {
                values: input.list(entries, |input| match input.byte() {
                    // Skew-symmetric ones are likely: most entries are 0, the diagonal among them.
                    0..=199 => 0.0,
                    200..=219 => 1.0,
                    220..=239 => -1.0,
                    _ => input.f64(),
                }),
                readable: input.list(entries, |input| u8::from(input.byte() < 200)),
            }),
            rationales: self.maybe(|input| input.texts(rows)),
            parts: self.parts(rows),
            faults: self.row_faults(),
        }
    }
}
