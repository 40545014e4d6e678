//! Reward plugins: rows are independent, so that batches are cut for the workers, and a fault costs only the rows it comes from.

use std::sync::Arc;

use plumb_core::{Batch, Outcome, Pending, Plugin, PluginError, PluginFault, PluginId, RewardFn, Rewards, RowFault};

use crate::host::Shared;
use crate::instance::CallError;
use crate::limits;
use crate::runner::{Runner, Ticket, lock};
use crate::view::BatchView;

const EXPORT: &str = "score";

/// A reward plugin on the worker pool.
pub struct WasmReward {
    pub runner: Arc<Runner>,
    pub shared: Arc<Shared>,
}

impl Plugin for WasmReward {
    fn id(&self) -> &PluginId {
        &self.runner.id
    }

    fn end_step(&self) {
        self.runner.end_step();
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.runner.take_metrics()
    }

    fn busy_s(&self) -> Option<f64> {
        Some(self.runner.busy_s())
    }

    fn save_state(&self) -> Result<Option<Vec<u8>>, PluginError> {
        Ok(self.runner.save_state())
    }

    fn load_state(&self, state: &[u8]) -> Result<(), PluginError> {
        self.runner.load_state(state)
    }
}

impl RewardFn for WasmReward {
    fn submit(&self, batch: Batch) -> Pending<Result<Rewards, PluginError>> {
        if let Err(fault) = self.runner.check_columns(&batch) {
            return Pending::ready(Err(self.runner.error(EXPORT, fault)));
        }
        let ticket = self.runner.ticket();
        let rows = batch.rows();
        let parts = BatchView::new(Arc::new(batch)).parts(limits::CALL_ROWS, limits::CALL_BYTES);
        let answers: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let (runner, ticket) = (Arc::clone(&self.runner), ticket.clone());
                self.shared.pool.run(move || score_part(&runner, &ticket, &part))
            })
            .collect();
        let runner = Arc::clone(&self.runner);
        Pending::new(move || {
            let mut merged = Rewards::default();
            for answer in answers {
                let lost = || runner.error(EXPORT, PluginFault::Host { message: "a worker panicked".into() });
                append(&mut merged, answer.recv().map_err(|_| lost())?);
            }
            let mut stats = lock(&runner.stats);
            stats.counts.rows += rows as u64;
            for outcome in &merged.outcomes {
                if let Outcome::Abstained(fault) | Outcome::Failed(fault) = outcome {
                    *stats.counts.row_faults.entry(fault.code.clone()).or_default() += 1;
                }
            }
            drop(stats);
            Ok(merged)
        })
    }
}

/// Scores a part, whatever it takes: every row gets an outcome.
fn score_part(runner: &Runner, ticket: &Ticket, part: &BatchView) -> Rewards {
    let mut result = score(runner, ticket, part);
    if result.as_ref().is_err_and(worth_a_retry) {
        lock(&runner.stats).counts.retries += 1;
        result = score(runner, ticket, part);
    }
    result.unwrap_or_else(|error| bisect(runner, ticket, part, &error))
}

fn score(runner: &Runner, ticket: &Ticket, part: &BatchView) -> Result<Rewards, CallError> {
    runner.call(ticket, part, |instance| instance.score(part))
}

/// A fault of the machine may pass: memory that the system lacked, a clock that ran out under load. Fuel is counted, so that the
/// same call runs out of it again; and what a plugin says about its own fault is taken at its word.
fn worth_a_retry(error: &CallError) -> bool {
    match error.fault {
        PluginFault::OutOfFuel { .. } => false,
        PluginFault::Fault { .. } => error.retryable,
        _ => true,
    }
}

/// Halves the part until the rows that the fault comes from stand alone.
fn bisect(runner: &Runner, ticket: &Ticket, part: &BatchView, error: &CallError) -> Rewards {
    let rows = part.rows();
    // A plugin's own fault for the batch is an answer: it holds for every row.
    if rows == 1 || matches!(error.fault, PluginFault::Fault { .. }) {
        let fault = RowFault { code: error.fault.code().to_owned(), message: message(&error.fault) };
        return Rewards { outcomes: vec![Outcome::Failed(fault); rows], ..Rewards::default() };
    }
    let mut merged = Rewards::default();
    for half in [part.part(0, rows / 2), part.part(rows / 2, rows)] {
        lock(&runner.stats).counts.bisections += 1;
        let answer = score(runner, ticket, &half);
        append(&mut merged, answer.unwrap_or_else(|error| bisect(runner, ticket, &half, &error)));
    }
    merged
}

/// The plugin's own words for its own fault, the host's for the others.
fn message(fault: &PluginFault) -> String {
    match fault {
        PluginFault::Fault { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// Appends the answer for the next rows. A part that one of the two lacks is NaN there.
fn append(merged: &mut Rewards, next: Rewards) {
    let (before, added) = (merged.outcomes.len(), next.outcomes.len());
    merged.outcomes.extend(next.outcomes);
    for (name, values) in next.parts {
        if let Some((_, all)) = merged.parts.iter_mut().find(|(other, _)| *other == name) {
            all.extend(values);
        } else {
            let mut all = vec![f64::NAN; before];
            all.extend(values);
            merged.parts.push((name, all));
        }
    }
    for (_, values) in &mut merged.parts {
        values.resize(before + added, f64::NAN);
    }
    merged.spans.extend(next.spans.into_iter().map(|mut span| {
        span.row += before as u32;
        span
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_core::feedback::Span;

    #[test]
    fn append_keeps_parts_and_spans_at_their_rows() {
        let span = Span { name: "s".into(), in_tokens: true, row: 0, start: 0, stop: 1, value: 1.0 };
        let answer = |parts: &[(&str, f64)]| Rewards {
            outcomes: vec![Outcome::Scored(0.0)],
            parts: parts.iter().map(|(name, value)| ((*name).to_owned(), vec![*value])).collect(),
            spans: vec![span.clone()],
        };
        let mut merged = Rewards::default();
        append(&mut merged, answer(&[("a", 1.0)]));
        append(&mut merged, answer(&[("b", 2.0), ("a", 3.0)]));
        append(&mut merged, answer(&[]));
        let bits: Vec<_> =
            merged.parts.iter().map(|(name, v)| (name.as_str(), v.iter().map(|x| x.to_bits()).collect::<Vec<_>>())).collect();
        let nan = f64::NAN.to_bits();
        assert_eq!(bits, [("a", vec![1f64.to_bits(), 3f64.to_bits(), nan]), ("b", vec![nan, 2f64.to_bits(), nan])]);
        assert_eq!(merged.spans.iter().map(|s| s.row).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
