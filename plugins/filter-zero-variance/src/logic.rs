//! Groups that teach nothing: all completions are worth the same, so every group-relative advantage is 0.

use plumb_sdk::filter::{Batch, Decision, Descriptor, Fault, Filter};
use serde::Deserialize;

/// What a recipe may set.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Column of numbers that is looked at.
    pub column: String,
    /// Largest difference between a group's values that still counts as none.
    pub tolerance: f64,
}

impl Default for Config {
    fn default() -> Self {
        // Sums of the same parts in another order differ by rounding alone.
        Config { column: "value".to_owned(), tolerance: 1e-9 }
    }
}

/// The filter.
#[derive(Debug)]
pub struct ZeroVariance {
    config: Config,
}

impl Filter for ZeroVariance {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().config_schema(include_str!("../config.schema.json"));

    fn new(config: Config) -> Result<Self, Fault> {
        if !(config.tolerance.is_finite() && config.tolerance >= 0.0) {
            return Err(Fault::bad_config("`tolerance` must be finite and not negative"));
        }
        Ok(ZeroVariance { config })
    }

    fn select(&self, batch: &Batch) -> Result<Decision, Fault> {
        let values = batch.f64s(&self.config.column)?;
        let mut decision = Decision::keep_all(batch.rows());
        for group in batch.groups() {
            let known = values[group.clone()].iter().filter(|value| !value.is_nan());
            let (low, high) = known.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
            // Without any value this is negative infinity: nothing to compare is no variance either.
            let flat = high - low <= self.config.tolerance;
            for row in group {
                if values[row].is_nan() {
                    decision.drop_row(row, "no value");
                } else if flat {
                    decision.drop_row(row, "zero variance");
                }
            }
        }
        Ok(decision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_sdk::testing::{self, BatchBuilder};

    fn keep(config: &str, values: &[f64], groups: &[u32]) -> Vec<bool> {
        let filter: ZeroVariance = testing::filter(config).unwrap();
        let data = BatchBuilder::new().f64s("value", values.to_vec()).groups(groups.to_vec()).build();
        filter.select(&data.batch()).unwrap().keep
    }

    #[test]
    fn groups_of_equal_values_are_dropped_whole_and_others_kept_whole() {
        assert_eq!(keep("{}", &[1.0, 1.0, 0.0, 1.0, 0.0, 0.0], &[2, 4, 6]), [false, false, true, true, false, false]);
    }

    #[test]
    fn rows_without_value_are_dropped_and_do_not_make_variance() {
        let nan = f64::NAN;
        assert_eq!(keep("{}", &[1.0, nan, 1.0, 0.0, nan, 1.0, nan], &[3, 6, 7]), [false, false, false, true, false, true, false]);
    }

    #[test]
    fn tolerance_bounds_the_spread_of_the_group() {
        assert_eq!(keep(r#"{"tolerance": 0.125}"#, &[1.0, 1.125, 1.0, 1.25], &[2, 4]), [false, false, true, true]);
        assert_eq!(keep("{}", &[0.1 + 0.2, 0.3], &[2]), [false, false]);
        assert_eq!(keep(r#"{"tolerance": 0}"#, &[0.1 + 0.2, 0.3], &[2]), [true, true]);
    }

    #[test]
    fn single_completions_and_empty_groups_have_no_variance() {
        assert_eq!(keep("{}", &[1.0, 2.0], &[0, 1, 2]), [false, false]);
    }

    #[test]
    fn dropped_rows_have_a_reason_each() {
        let filter: ZeroVariance = testing::filter("{}").unwrap();
        let data = BatchBuilder::new().f64s("value", [1.0, f64::NAN]).build();
        let reasons = filter.select(&data.batch()).unwrap().reasons;
        assert_eq!(reasons, [(0, "zero variance".to_owned()), (1, "no value".to_owned())]);
    }
}
