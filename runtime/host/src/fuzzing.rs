//! Ways for the fuzz targets in `tests/fuzz` to what is private here. No part of the interface.

use std::sync::Arc;

use plumb_core::{Batch, Column, Outcome, Ragged};

use crate::answer;
use crate::bindings::{filtering, rewarding, shaping, types};
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
    let rows = batch.rows();
    match input.byte() % 3 {
        0 => {
            if let Ok(rewards) = answer::rewards(input.rewards(rows), &BatchView::new(Arc::clone(&batch))) {
                assert_eq!(rewards.outcomes.len(), rows);
                assert!(rewards.outcomes.iter().all(|outcome| outcome.value().is_none_or(usable)));
                assert!(rewards.parts.iter().all(|(name, values)| name.len() <= limits::NAME_BYTES && values.len() == rows));
                let faulty = |row: u32| !matches!(rewards.outcomes[row as usize], Outcome::Scored(_));
                assert!(rewards.spans.iter().all(|span| span.start <= span.stop && usable(span.value) && !faulty(span.row)));
            }
        }
        1 => {
            if let Ok(shaped) = answer::shaped(input.shaped(rows), &batch) {
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
        _ => {
            if let Ok(decision) = answer::decision(input.decision(rows), &batch) {
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
}
