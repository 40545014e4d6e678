//! Reward plugins: rows are independent, so that batches are cut for the workers, and a fault costs only the rows it comes from.

use std::sync::Arc;

use plumb_core::feedback::MAX_PARTS;
use plumb_core::{Batch, Outcome, Pending, PluginError, PluginFault, RewardFn, Rewards, RowFault};

use crate::instance::CallError;
use crate::limits;
use crate::plugin::WasmPlugin;
use crate::runner::{Runner, Ticket, lock};
use crate::stats::count_code;
use crate::view::BatchView;

const EXPORT: &str = "score";

impl RewardFn for WasmPlugin {
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
        // Who waits for the answer keeps the workers, that drop their jobs when the last user is gone.
        let (runner, shared) = (Arc::clone(&self.runner), Arc::clone(&self.shared));
        Pending::new(move || {
            let _workers = shared;
            let mut merged = Rewards::default();
            for answer in answers {
                let answer = answer.recv().unwrap_or_else(|_| Err(PluginFault::Host { message: "a worker panicked".into() }));
                append(&mut merged, answer.map_err(|fault| runner.error(EXPORT, fault))?);
            }
            let mut stats = lock(&runner.stats);
            stats.counts.rows += rows as u64;
            for outcome in &merged.outcomes {
                if let Outcome::Abstained(fault) | Outcome::Failed(fault) = outcome {
                    count_code(&mut stats.counts.row_faults, &fault.code);
                }
            }
            drop(stats);
            Ok(merged)
        })
    }
}

/// Failed calls in a row after which a search gives up. With both halves asked before either is searched, a search still finds
/// up to eight neighbouring rows that all fail (14 calls), and a plugin that fails on everything costs 16 calls, not 510.
const HOPELESS: u32 = 16;

/// Scores a part, whatever it takes: every row gets an outcome. Only a host that fails is an error.
fn score_part(runner: &Runner, ticket: &Ticket, part: &BatchView) -> Result<Rewards, PluginFault> {
    let mut search = Search { runner, ticket, failures: 0 };
    match search.score(part, CallError::may_pass)? {
        Ok(rewards) => Ok(rewards),
        Err(error) => search.bisect(part, &error),
    }
}

/// A search for the rows that a fault comes from.
struct Search<'a> {
    runner: &'a Runner,
    ticket: &'a Ticket,
    /// Calls that failed since one was answered.
    failures: u32,
}

impl Search<'_> {
    /// One call, and a second one after a fault of the kind `again`. Faults of the host are nobody's score: they go up.
    fn score(&mut self, part: &BatchView, again: impl Fn(&CallError) -> bool) -> Result<Result<Rewards, CallError>, PluginFault> {
        match self.runner.call_again(again, || self.runner.call_beside_others(self.ticket, part, |instance| instance.score(part)))
        {
            Err(error) if error.of_the_host() => Err(error.fault),
            answer => Ok(answer),
        }
    }

    /// Halves the part until the rows that the fault comes from stand alone, or until it looks as if all did.
    fn bisect(&mut self, part: &BatchView, error: &CallError) -> Result<Rewards, PluginFault> {
        let rows = part.rows();
        if rows == 1 || error.of_every_row() || self.failures >= HOPELESS {
            let fault = RowFault { code: error.fault.code().to_owned(), message: error.message() };
            return Ok(Rewards { outcomes: vec![Outcome::Failed(fault); rows], ..Rewards::default() });
        }
        let halves = [part.part(0, rows / 2), part.part(rows / 2, rows)];
        let mut answers = Vec::with_capacity(2);
        for half in &halves {
            lock(&self.runner.stats).counts.bisections += 1;
            let answer = self.score(half, CallError::of_the_host)?;
            self.failures = if answer.is_ok() { 0 } else { self.failures + 1 };
            answers.push(answer);
        }
        let mut merged = Rewards::default();
        for (half, answer) in halves.iter().zip(answers) {
            append(
                &mut merged,
                match answer {
                    Ok(rewards) => rewards,
                    Err(error) => self.bisect(half, &error)?,
                },
            );
        }
        Ok(merged)
    }
}

/// Appends the answer for the next rows. A part that one of the two lacks is NaN there; parts beyond [`MAX_PARTS`] are left out.
fn append(merged: &mut Rewards, next: Rewards) {
    let (before, added) = (merged.outcomes.len(), next.outcomes.len());
    merged.outcomes.extend(next.outcomes);
    for (name, values) in next.parts {
        if let Some((_, all)) = merged.parts.iter_mut().find(|(other, _)| *other == name) {
            all.extend(values);
        } else if merged.parts.len() < MAX_PARTS {
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
        (0..100).for_each(|i| append(&mut merged, answer(&[(&format!("p{i}"), 1.0)])));
        assert_eq!(merged.parts.len(), MAX_PARTS);
    }
}
