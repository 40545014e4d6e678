//! The circuit breaker: plugins that fail step after step are taken out of service.

use std::collections::BTreeMap;

use plumb_core::recipe::Circuit;
use plumb_core::{Outcome, PluginKind};
use serde::{Deserialize, Serialize};

use super::observed::Observed;

/// Steps in a row in which a plugin failed on too many rows, and the last of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Streak {
    /// What it is for.
    pub kind: PluginKind,
    /// Batches in a row.
    pub steps: u64,
    /// Rows of the last one that failed.
    pub failed: u64,
    /// Rows of the last one.
    pub rows: u64,
    /// Code of the last one's first failed row.
    pub code: String,
}

/// Counts failed batches by plugin. Part of a checkpoint, so that a resumed run opens its circuits at the same steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Breaker(BTreeMap<String, Streak>);

impl Breaker {
    /// Counts a batch: it failed when the share of its rows that failed is over `max_failed_share`. One without rows says nothing.
    pub fn observe(&mut self, rule: &Circuit, observed: &Observed) {
        let (failed, rows) = (observed.failed(), observed.outcomes.len());
        if rows == 0 {
            return;
        }
        if failed as f64 / rows as f64 <= rule.max_failed_share {
            self.0.remove(&observed.name);
            return;
        }
        let code = observed.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Failed(fault) => Some(fault.code.clone()),
            Outcome::Scored(_) | Outcome::Abstained(_) => None,
        });
        let steps = self.0.get(&observed.name).map_or(0, |streak| streak.steps) + 1;
        let (failed, rows, code) = (failed as u64, rows as u64, code.unwrap_or_default());
        self.0.insert(observed.name.clone(), Streak { kind: observed.kind, steps, failed, rows, code });
    }

    /// A plugin whose circuit opens, first by name; its count begins anew.
    pub fn open(&mut self, rule: &Circuit) -> Option<(String, Streak)> {
        let name = self.0.iter().find(|(_, streak)| rule.failed_steps > 0 && streak.steps >= rule.failed_steps)?.0.clone();
        self.0.remove_entry(&name)
    }

    /// Forgets a plugin that was replaced.
    pub fn reset(&mut self, name: &str) {
        self.0.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plumb_core::{Batch, RowFault};

    use super::*;

    fn batch(failed: usize, abstained: usize, scored: usize) -> Observed {
        let fault = || RowFault { code: "trap".into(), message: String::new() };
        let mut outcomes = vec![Outcome::Scored(1.0); scored];
        outcomes.extend((0..abstained).map(|_| Outcome::Abstained(fault())));
        outcomes.extend((0..failed).map(|_| Outcome::Failed(fault())));
        Observed { name: "a".into(), kind: PluginKind::Reward, batch: Arc::new(Batch::default()), outcomes }
    }

    #[test]
    fn circuit_opens_after_failed_batches_in_a_row_and_abstentions_are_no_failures() {
        let rule = Circuit { max_failed_share: 0.5, failed_steps: 2 };
        let mut breaker = Breaker::default();
        let mut after = |observed: Observed| {
            breaker.observe(&rule, &observed);
            breaker.open(&rule).map(|(name, streak)| (name, streak.steps, streak.failed, streak.rows, streak.code))
        };
        assert_eq!(after(batch(3, 0, 1)), None);
        assert_eq!(after(batch(2, 0, 2)), None, "half is not more than half");
        assert_eq!(after(batch(3, 0, 1)), None);
        assert_eq!(after(batch(0, 0, 0)), None);
        assert_eq!(after(batch(4, 0, 0)), Some(("a".into(), 2, 4, 4, "trap".into())));
        assert_eq!(after(batch(4, 0, 0)), None, "the count begins anew");
        assert_eq!(after(batch(1, 3, 0)), None);
        let never = Circuit { failed_steps: 0, ..rule };
        (0..9).for_each(|_| breaker.observe(&never, &batch(1, 0, 0)));
        assert_eq!(breaker.open(&never), None);
    }
}
