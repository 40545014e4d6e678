//! A step's metrics from those of its calls.

use std::collections::BTreeMap;

use crate::limits;
use crate::sink::MetricValue;
use crate::stats::Counts;

/// Bytes that a name counts besides its letters and observations.
const ENTRY_BYTES: usize = 64;

/// What a call, or all calls of a step, reported, by name.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<String, Entry>);

#[derive(Debug, Default)]
struct Entry {
    count: u64,
    observed: Vec<f64>,
}

impl Tally {
    /// Adds what a call reported.
    pub fn add(&mut self, name: String, value: MetricValue) {
        match value {
            MetricValue::Count(delta) => {
                let count = &mut self.0.entry(name).or_default().count;
                *count = count.saturating_add(delta);
            }
            // Of nothing there is no mean.
            MetricValue::Observe(values) if values.is_empty() => {}
            MetricValue::Observe(values) => self.0.entry(name).or_default().observed.extend(values),
        }
    }

    /// Whether something was reported under that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Different names.
    pub fn names(&self) -> usize {
        self.0.len()
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let entry = |(name, entry): (&String, &Entry)| ENTRY_BYTES + name.len() + size_of_val(entry.observed.as_slice());
        self.0.iter().map(entry).sum()
    }

    /// Adds what another call reported.
    pub fn merge(&mut self, other: Tally) {
        for (name, other) in other.0 {
            let entry = self.0.entry(name).or_default();
            entry.count = entry.count.saturating_add(other.count);
            entry.observed.extend(other.observed);
        }
    }

    /// One number per name, in alphabetical order: the sum of counts, or the mean of observations where there are any. Also
    /// returns the names beyond [`limits::STEP_METRIC_NAMES`].
    pub fn finish(self) -> (Vec<(String, f64)>, Vec<String>) {
        let mut numbers: Vec<(String, f64)> = self.0.into_iter().map(|(name, entry)| (name, entry.number())).collect();
        let beyond = numbers.split_off(numbers.len().min(limits::STEP_METRIC_NAMES));
        (numbers, beyond.into_iter().map(|(name, _)| name).collect())
    }
}

impl Entry {
    fn number(mut self) -> f64 {
        if self.observed.is_empty() {
            return self.count as f64;
        }
        // A sum of floats depends on its order, and that of calls on how completions were batched while decoding.
        self.observed.sort_by(f64::total_cmp);
        self.observed.iter().sum::<f64>() / self.observed.len() as f64
    }
}

/// What is known of a step's calls, from the counts before and after it; nothing when there were none. A plugin's own metric of
/// the same name gives way.
pub fn add_counts(numbers: &mut Vec<(String, f64)>, before: &Counts, after: &Counts) {
    if after.calls == before.calls {
        return;
    }
    for (name, before, after) in [
        ("calls", before.calls, after.calls),
        ("rows", before.rows, after.rows),
        ("retries", before.retries, after.retries),
        ("fuel", before.fuel, after.fuel),
    ] {
        numbers.retain(|(own, _)| own != name);
        numbers.push((name.to_owned(), (after - before) as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(calls: &[(&str, MetricValue)]) -> Vec<(String, f64)> {
        let mut tally = Tally::default();
        for (name, value) in calls {
            tally.add((*name).to_owned(), value.clone());
        }
        let mut whole = Tally::default();
        whole.merge(tally);
        whole.finish().0
    }

    #[test]
    fn counts_are_summed_and_observations_averaged_whatever_the_order_of_calls() {
        let observe = |values: &[f64]| MetricValue::Observe(values.to_vec());
        // Added up from left to right and from right to left, these differ.
        let mut calls = vec![
            ("n", MetricValue::Count(2)),
            ("x", observe(&[0.1, 1e16])),
            ("x", observe(&[-1e16, 0.2])),
            ("n", MetricValue::Count(3)),
            ("none", observe(&[])),
        ];
        let forth = numbers(&calls);
        calls.reverse();
        assert_eq!(forth, numbers(&calls));
        assert_eq!((forth.len(), &forth[0]), (2, &("n".to_owned(), 5.0)));
        assert_eq!(numbers(&[("x", observe(&[1.0, 2.0])), ("x", observe(&[6.0]))]), [("x".to_owned(), 3.0)]);
    }

    #[test]
    fn names_of_a_step_are_bounded_and_those_beyond_told() {
        let mut tally = Tally::default();
        (0..100).rev().for_each(|i| tally.add(format!("m{i:03}"), MetricValue::Count(1)));
        let (numbers, beyond) = tally.finish();
        assert_eq!((numbers.len(), beyond.len(), beyond[0].as_str()), (limits::STEP_METRIC_NAMES, 36, "m064"));
    }

    #[test]
    fn counts_of_calls_replace_a_plugins_own_metrics_of_the_same_name() {
        let after = Counts { calls: 3, rows: 20, fuel: 900, ..Counts::default() };
        let mut own = vec![("calls".to_owned(), 77.0)];
        add_counts(&mut own, &after, &after);
        assert_eq!(own, [("calls".to_owned(), 77.0)], "a step without calls has no counts");
        add_counts(&mut own, &Counts { calls: 1, rows: 4, ..Counts::default() }, &after);
        let expected = [("calls", 2.0), ("rows", 16.0), ("retries", 0.0), ("fuel", 900.0)];
        assert_eq!(own, expected.map(|(name, value)| (name.to_owned(), value)));
    }
}
