//! What plugins cost. Numbers that repeat and numbers of the clock are kept apart.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits;

/// Where codes are counted that have no count of their own.
const OTHER: &str = "other";

/// Counts of a plugin since it was loaded.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct PluginStats {
    /// What the same run repeats exactly, retries after missed deadlines aside.
    pub counts: Counts,
    /// Wall clock of the calls.
    pub latency: Latency,
}

/// Deterministic counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Calls into the guest: one per part of a batch, retry or bisection.
    pub calls: u64,
    /// Rows of batches that were answered.
    pub rows: u64,
    /// Calls repeated after a fault.
    pub retries: u64,
    /// Calls made to find the rows that a fault comes from.
    pub bisections: u64,
    /// Failed calls by their code.
    pub call_faults: BTreeMap<String, u64>,
    /// Rows without a value by their code, abstentions among them.
    pub row_faults: BTreeMap<String, u64>,
    /// Fuel used, instantiation and `init` included (about one per instruction).
    pub fuel: u64,
    /// Log lines, and fields of lines, beyond the limits of a call.
    pub log_lines_dropped: u64,
}

/// Counts a fault under its code. Codes are a plugin's own words: those beyond [`limits::CODES`] in the alphabet's order are counted
/// together, which does not depend on the order they came in.
pub fn count_code(counts: &mut BTreeMap<String, u64>, code: &str) {
    *counts.entry(code.to_owned()).or_default() += 1;
    if counts.len() - usize::from(counts.contains_key(OTHER)) > limits::CODES {
        let last = counts.keys().rfind(|code| *code != OTHER).cloned();
        let faults = last.and_then(|last| counts.remove(&last)).unwrap_or_default();
        *counts.entry(OTHER.to_owned()).or_default() += faults;
    }
}

/// Distribution of calls' wall clock, in powers of two.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Latency {
    /// Sum over all calls, in µs.
    pub total_us: u64,
    /// The longest call, in µs.
    pub max_us: u64,
    /// Calls of less than 2^i µs and at least half of that.
    pub buckets: [u64; 32],
}

impl Latency {
    /// Adds a call.
    pub fn add(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.total_us = self.total_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
        self.buckets[(64 - us.leading_zeros() as usize).min(31)] += 1;
    }

    /// Upper bound of the `q`-quantile in µs, at most twice the true one; None before the first call.
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        let calls: u64 = self.buckets.iter().sum();
        let rank = ((calls as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets.iter().enumerate().find_map(|(i, &n)| {
            seen += n;
            (seen >= rank).then(|| (1 << i).min(self.max_us))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_beyond_their_number_are_counted_together_whatever_the_order() {
        let codes: Vec<String> = (0..100).map(|i| format!("c{i:02}")).collect();
        let (mut forth, mut back) = (BTreeMap::new(), BTreeMap::new());
        codes.iter().chain(&codes).for_each(|code| count_code(&mut forth, code));
        codes.iter().chain(&codes).rev().for_each(|code| count_code(&mut back, code));
        assert_eq!(forth, back);
        assert_eq!((forth.len(), forth["c63"], forth[OTHER]), (limits::CODES + 1, 2, 72));
    }

    #[test]
    fn latency_quantiles_bound_the_true_ones() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_us(0.5), None);
        for us in [0, 10, 20, 30, 5000] {
            latency.add(Duration::from_micros(us));
        }
        assert_eq!(latency.quantile_us(0.5), Some(32));
        assert_eq!(latency.quantile_us(0.99), Some(5000));
        assert_eq!((latency.total_us, latency.max_us), (5060, 5000));
    }
}
