//! The best completions of each group or of the whole batch.
//!
//! Reference: Dong et al. 2023, "RAFT: Reward rAnked FineTuning": local ranking is the paper's algorithm, global ranking that of its
//! public implementation.

use std::collections::BTreeSet;

use plumb_sdk::filter::{Batch, Decision, Descriptor, Fault, Filter};
use serde::Deserialize;

/// What a recipe may set.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Column of numbers to rank by, highest first.
    pub column: String,
    /// What is ranked against what.
    pub strategy: Strategy,
    /// For [`Strategy::Local`]: how many to keep of each group.
    pub per_group: usize,
    /// For [`Strategy::Global`]: which share to keep of all rows that have a value, in [0, 1].
    pub top_fraction: f64,
    /// Whether only the first of equal completions of a group is ranked.
    pub deduplicate: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config { column: "value".to_owned(), strategy: Strategy::Local, per_group: 1, top_fraction: 0.2, deduplicate: false }
    }
}

/// What is ranked against what.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Completions of the same prompt.
    Local,
    /// All of the batch: for values that compare across prompts.
    Global,
}

/// The filter.
#[derive(Debug)]
pub struct BestOfN {
    config: Config,
}

impl Filter for BestOfN {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().config_schema(include_str!("../config.schema.json"));

    fn new(config: Config) -> Result<Self, Fault> {
        if config.per_group == 0 {
            return Err(Fault::bad_config("`per_group` must be at least 1"));
        }
        if !(0.0..=1.0).contains(&config.top_fraction) {
            return Err(Fault::bad_config("`top_fraction` must be in [0, 1]"));
        }
        Ok(BestOfN { config })
    }

    fn select(&self, batch: &Batch) -> Result<Decision, Fault> {
        let values = batch.f64s(&self.config.column)?;
        let mut decision = Decision::keep_all(batch.rows());
        let mut groups = Vec::with_capacity(batch.groups().len());
        for group in batch.groups() {
            let mut seen = BTreeSet::new();
            let mut ranked = Vec::with_capacity(group.len());
            for row in group {
                if values[row].is_nan() {
                    decision.drop_row(row, "no value");
                } else if self.config.deduplicate && !seen.insert(batch.text("completion")?.get(row)) {
                    decision.drop_row(row, "duplicate");
                } else {
                    ranked.push(row);
                }
            }
            groups.push(ranked);
        }
        for row in self.losers(values, groups) {
            decision.drop_row(row, "not among the best");
        }
        // In the order of rows, whatever the ranking's.
        decision.reasons.sort();
        Ok(decision)
    }
}

impl BestOfN {
    /// The rows that are ranked but not kept.
    fn losers(&self, values: &[f64], groups: Vec<Vec<usize>>) -> Vec<usize> {
        match self.config.strategy {
            Strategy::Local => {
                groups.into_iter().flat_map(|group| best_first(values, group).into_iter().skip(self.config.per_group)).collect()
            }
            Strategy::Global => {
                let rows: Vec<usize> = groups.into_iter().flatten().collect();
                // A hair above the product, so that 10 × 0.3 keeps 3 although it rounds to 2.9999999999999996.
                let kept = (rows.len() as f64 * self.config.top_fraction + 1e-9).floor() as usize;
                best_first(values, rows).split_off(kept)
            }
        }
    }
}

/// Rows by falling value, ties by rising row.
fn best_first(values: &[f64], mut rows: Vec<usize>) -> Vec<usize> {
    // Adding 0 makes -0 into 0, which `total_cmp` tells apart.
    rows.sort_by(|&a, &b| (values[b] + 0.0).total_cmp(&(values[a] + 0.0)).then(a.cmp(&b)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_sdk::testing::{self, BatchBuilder};
    use serde_json::Value;

    fn keep(config: &str, groups: &[Vec<f64>]) -> Vec<bool> {
        let filter: BestOfN = testing::filter(config).unwrap();
        let ends = groups.iter().scan(0, |end, group| {
            *end += group.len() as u32;
            Some(*end)
        });
        let data = BatchBuilder::new().f64s("value", groups.concat()).groups(ends.collect::<Vec<_>>()).build();
        filter.select(&data.batch()).unwrap().keep
    }

    #[test]
    fn golden_raft_select() {
        let golden: Value = serde_json::from_str(include_str!("../tests/golden.json")).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let (params, rewards) = (&case["params"], &case["inputs"]["rewards"]);
            let groups: Vec<Vec<f64>> = serde_json::from_value(rewards.clone()).unwrap();
            let mut config = serde_json::json!({"strategy": params["strategy"], "per_group": params["per_group"]});
            if !params["top_fraction"].is_null() {
                config["top_fraction"] = params["top_fraction"].clone();
            }
            let mut expected = vec![false; groups.iter().map(Vec::len).sum()];
            let selected: Vec<(usize, usize)> = serde_json::from_value(case["expected"]["selected"].clone()).unwrap();
            for (group, completion) in selected {
                expected[groups[..group].iter().map(Vec::len).sum::<usize>() + completion] = true;
            }
            assert_eq!(keep(&config.to_string(), &groups), expected, "{config}");
        }
    }

    #[test]
    fn ties_keep_the_first_row_and_both_zeros_are_equal() {
        assert_eq!(keep("{}", &[vec![2.0, 3.0, 3.0], vec![-0.0, 0.0]]), [false, true, false, true, false]);
    }

    #[test]
    fn global_share_is_not_lost_to_rounding_and_may_be_nothing() {
        let values: Vec<f64> = (0..10).map(f64::from).collect();
        let kept = |share: &str| {
            let config = format!(r#"{{"strategy": "global", "top_fraction": {share}}}"#);
            keep(&config, std::slice::from_ref(&values)).iter().filter(|&&kept| kept).count()
        };
        assert_eq!([kept("0.3"), kept("0.05"), kept("1"), kept("0")], [3, 0, 10, 0]);
    }

    #[test]
    fn rows_without_value_and_duplicates_are_not_ranked() {
        let filter: BestOfN = testing::filter(r#"{"per_group": 2, "deduplicate": true}"#).unwrap();
        let data = BatchBuilder::new()
            .text("completion", ["a", "a", "b", "c", "d"])
            .f64s("value", [3.0, 3.0, 2.0, f64::NAN, 1.0])
            .build();
        let decision = filter.select(&data.batch()).unwrap();
        assert_eq!(decision.keep, [true, false, true, false, false]);
        let reasons: Vec<_> = decision.reasons.iter().map(|(row, reason)| (*row, reason.as_str())).collect();
        assert_eq!(reasons, [(1, "duplicate"), (3, "no value"), (4, "not among the best")]);
    }
}
