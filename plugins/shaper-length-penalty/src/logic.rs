//! Soft overlong punishment.

use plumb_sdk::shaper::{Batch, Descriptor, Fault, Shaped, Shaper};
use serde::Deserialize;

/// What a recipe sets.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Longest completion, in tokens; from here on the punishment is full.
    pub max_length: u32,
    /// Tokens before `max_length` over which the punishment grows; 0 makes it a step.
    #[serde(default)]
    pub cache: u32,
    /// Factor of the punishment.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

/// The shaper.
#[derive(Debug)]
pub struct LengthPenalty {
    config: Config,
}

impl Shaper for LengthPenalty {
    type Config = Config;
    const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!()
        .needs_columns(&["value", "completion_tokens"])
        .outputs(&["length_penalty"])
        .config_schema(include_str!("../config.schema.json"));

    fn new(config: Config) -> Result<Self, Fault> {
        if config.max_length == 0 || config.cache > config.max_length {
            return Err(Fault::bad_config("`max_length` must be at least 1, and `cache` at most `max_length`"));
        }
        if !(config.weight.is_finite() && config.weight >= 0.0) {
            return Err(Fault::bad_config("`weight` must be finite and not negative"));
        }
        Ok(LengthPenalty { config })
    }

    fn shape(&mut self, batch: &Batch) -> Result<Shaped, Fault> {
        let lengths = batch.u32s("completion_tokens")?;
        let penalties: Vec<f64> = lengths.iter().map(|&length| self.config.weight * self.penalty(length)).collect();
        let values = batch.f64s("value")?.iter().zip(&penalties).map(|(value, penalty)| value + penalty).collect::<Vec<_>>();
        Ok(Shaped::from(values).part("length_penalty", penalties))
    }
}

impl LengthPenalty {
    /// `0` up to `max_length - cache` tokens, `-1` beyond `max_length`, and linear between them:
    /// `((max_length - cache) - length) / cache`.
    ///
    /// Reference: Yu et al. 2025, "DAPO", equation 13.
    fn penalty(&self, length: u32) -> f64 {
        let Config { max_length, cache, .. } = self.config;
        let free = max_length - cache;
        if length <= free {
            0.0
        } else if length <= max_length {
            (f64::from(free) - f64::from(length)) / f64::from(cache)
        } else {
            -1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_sdk::testing::{self, BatchBuilder};

    fn shape(config: &str, lengths: &[u32], value: f64) -> Vec<f64> {
        let mut shaper: LengthPenalty = testing::shaper(config).unwrap();
        let data =
            BatchBuilder::new().u32s("completion_tokens", lengths.to_vec()).f64s("value", vec![value; lengths.len()]).build();
        shaper.shape(&data.batch()).unwrap().values.unwrap()
    }

    #[test]
    fn punishment_is_zero_then_linear_then_full() {
        // By hand from the paper's setting, scaled down: 16384 + 4096 tokens become 16 + 4.
        let values = shape(r#"{"max_length": 20, "cache": 4}"#, &[0, 15, 16, 17, 18, 20, 21, 4000], 1.0);
        assert_eq!(values, [1.0, 1.0, 1.0, 0.75, 0.5, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn without_cache_the_punishment_is_a_step_and_weight_scales_it() {
        assert_eq!(shape(r#"{"max_length": 8, "weight": 0.5}"#, &[8, 9], 0.0), [0.0, -0.5]);
    }

    #[test]
    fn rows_without_value_stay_without_and_keep_their_part() {
        let mut shaper: LengthPenalty = testing::shaper(r#"{"max_length": 2, "cache": 2}"#).unwrap();
        let data = BatchBuilder::new().u32s("completion_tokens", [1, 1]).f64s("value", [f64::NAN, 2.0]).build();
        let shaped = shaper.shape(&data.batch()).unwrap();
        let values = shaped.values.unwrap();
        assert!(values[0].is_nan());
        assert_eq!(values[1], 1.5);
        assert_eq!(shaped.parts[0].values, [-0.5, -0.5]);
    }

    #[test]
    fn configurations_without_sense_are_refused() {
        for config in ["{}", r#"{"max_length": 4, "cache": 5}"#, r#"{"max_length": 0}"#, r#"{"max_length": 4, "weight": -1}"#] {
            assert_eq!(testing::shaper::<LengthPenalty>(config).unwrap_err().code, Fault::BAD_CONFIG, "{config}");
        }
    }
}
