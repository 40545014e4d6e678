//! Whether an answer is the expected one.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

/// Every number of `want` within `tolerance · max(1, |number|)` of the one in `got`, all else equal; `got` may have more entries.
///
/// # Errors
/// The first difference, with its place.
pub fn compare(got: &Value, want: &Value, tolerance: f64, place: &str) -> Result<()> {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => {
            for (name, want) in want {
                let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                let Some(got) = got.get(name) else { bail!("{place} is absent") };
                compare(got, want, tolerance, &place)?;
            }
            Ok(())
        }
        (Value::Array(got), Value::Array(want)) => {
            ensure!(got.len() == want.len(), "{place} has {} entries and not {}", got.len(), want.len());
            let pairs = got.iter().zip(want).enumerate();
            pairs.into_iter().try_for_each(|(i, (got, want))| compare(got, want, tolerance, &format!("{place}[{i}]")))
        }
        (Value::Number(got), Value::Number(want)) => {
            let (got, want) = (got.as_f64().unwrap_or(f64::NAN), want.as_f64().unwrap_or(f64::NAN));
            let close = (got - want).abs() <= tolerance * want.abs().max(1.0);
            ensure!(close, "{place} is {got} and not {want}");
            Ok(())
        }
        // Some cases write truth as 0 and 1.
        (Value::Bool(got), Value::Number(want)) => {
            compare(&Value::from(u8::from(*got)), &Value::Number(want.clone()), tolerance, place)
        }
        (Value::Number(got), Value::Bool(want)) => {
            compare(&Value::Number(got.clone()), &Value::from(u8::from(*want)), tolerance, place)
        }
        _ => {
            ensure!(got == want, "{place} is {got} and not {want}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_held_to_an_absolute_bound_below_one_and_to_a_relative_one_above() {
        let close = |got: f64, want: f64| compare(&json!({ "x": got }), &json!({ "x": want }), 1e-3, "").is_ok();
        assert!(close(1e-4, 0.0) && !close(2e-3, 0.0));
        assert!(close(1000.9, 1000.0) && !close(1001.1, 1000.0));
        assert!(!close(f64::NAN, 1.0), "NaN is written as null");
    }

    #[test]
    fn first_difference_is_named_by_its_place() {
        let error = |got, want| compare(&got, &want, 1e-9, "").unwrap_err().to_string();
        assert_eq!(error(json!({"a": [{"b": 1}, {"b": 2}]}), json!({"a": [{"b": 1}, {"b": 3}]})), "a[1].b is 2 and not 3");
        assert_eq!(error(json!({}), json!({"loss": 1})), "loss is absent");
        assert_eq!(error(json!({"a": [1]}), json!({"a": []})), "a has 1 entries and not 0");
        assert_eq!(error(json!({"a": "x"}), json!({"a": null})), "a is \"x\" and not null");
    }

    #[test]
    fn answers_may_hold_more_than_is_expected() {
        assert!(compare(&json!({"loss": 1.0, "more": true}), &json!({"loss": 1}), 1e-9, "").is_ok());
    }
}
