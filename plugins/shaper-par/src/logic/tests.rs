use super::*;
use plumb_sdk::testing::{self, BatchBuilder};
use serde_json::{Value, json};

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Within the vectors' tolerance, relative beyond 1.
fn assert_close(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {got} instead of {expected}");
    }
}

fn cases(operation: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(include_str!("../../tests/golden.json")).unwrap();
    let cases: Vec<Value> =
        golden["cases"].as_array().unwrap().iter().filter(|case| case["operation"] == operation).cloned().collect();
    assert!(!cases.is_empty(), "no vectors for {operation}");
    cases
}

/// The vectors' parameters as a configuration of `kind`; they use all references unless they say how many.
fn config(kind: &str, params: &Value) -> String {
    let mut config = params.clone();
    config["kind"] = json!(kind);
    if config.get("max_refs").is_none() {
        config["max_refs"] = Value::Null;
    }
    config.to_string()
}

fn shape(shaper: &mut Par, builder: BatchBuilder) -> Vec<f64> {
    shaper.shape(&builder.build().batch()).unwrap().values.unwrap()
}

/// Vectors with groups of rewards, and maybe references per group.
fn check_groups(operation: &str, kind: &str) {
    for case in cases(operation) {
        let mut shaper: Par = testing::shaper(&config(kind, &case["params"])).unwrap();
        let groups = rows(&case["inputs"]["rewards"]);
        let mut builder = BatchBuilder::new().f64s("value", groups.concat());
        if let Some(references) = case["inputs"].get("reference_rewards") {
            let each =
                groups.iter().zip(references.as_array().unwrap()).flat_map(|(group, list)| vec![list.to_string(); group.len()]);
            builder = builder.text("reference_rewards", each);
        }
        let got = shape(&mut shaper, builder);
        assert_close(&got, &rows(&case["expected"]["rewards"]).concat(), case["tolerance"].as_f64().unwrap(), operation);
    }
}

/// Vectors with batches one after the other; between them the state goes through its bytes into a fresh shaper.
fn check_batches(operation: &str, kind: &str) {
    for case in cases(operation) {
        let config = config(kind, &case["params"]);
        let tolerance = case["tolerance"].as_f64().unwrap();
        let mut state: Option<Vec<u8>> = None;
        for (batch, expected) in rows(&case["inputs"]["reward_batches"]).iter().zip(rows(&case["expected"]["reward_batches"])) {
            let mut shaper: Par = testing::shaper(&config).unwrap();
            if let Some(state) = &state {
                shaper.load(1, state).unwrap();
            }
            let got = shape(&mut shaper, BatchBuilder::new().f64s("value", batch.clone()));
            assert_close(&got, &expected, tolerance, operation);
            state = Some(shaper.save().unwrap());
        }
        let running = Running::from_bytes(&state.unwrap()).unwrap();
        let expected = &case["expected"]["state"];
        assert_eq!(running.count, expected["count"].as_u64().unwrap());
        let got = [running.mean, running.variance(), running.min, running.max];
        let keys = ["mean", "variance_ddof0", "min", "max"].map(|key| expected[key].as_f64().unwrap());
        assert_close(&got, &keys, tolerance, operation);
    }
}

#[test]
fn golden_shape_par() {
    check_groups("shape_par", "par");
}

#[test]
fn golden_shape_tanh_centered() {
    check_groups("shape_tanh_centered", "tanh-centered");
}

#[test]
fn golden_shape_fitted_poly() {
    check_groups("shape_fitted_poly", "fitted-poly");
}

#[test]
fn golden_shape_slow_then_fast() {
    check_groups("shape_slow_then_fast", "slow-then-fast");
}

#[test]
fn golden_shape_sigmoid() {
    check_groups("shape_sigmoid", "sigmoid");
}

#[test]
fn golden_shape_lsc() {
    check_groups("shape_lsc", "lsc");
}

#[test]
fn golden_shape_meanstd_running() {
    check_batches("shape_meanstd_running", "meanstd");
}

#[test]
fn golden_shape_clip_running() {
    check_batches("shape_clip_running", "clip");
}

#[test]
fn golden_shape_minmax_running() {
    check_batches("shape_minmax_running", "minmax");
}

#[test]
fn golden_length_penalty() {
    for case in cases("length_penalty") {
        let (params, inputs) = (&case["params"], &case["inputs"]);
        let length = json!({"valid_len": params["valid_len"], "penalty": params["penalty_per_token"]});
        let mut shaper: Par = testing::shaper(&json!({"kind": "identity", "length": length}).to_string()).unwrap();
        let lengths: Vec<Vec<u32>> = serde_json::from_value(inputs["lengths"].clone()).unwrap();
        let builder =
            BatchBuilder::new().f64s("value", rows(&inputs["rewards"]).concat()).u32s("completion_tokens", lengths.concat());
        let got = shape(&mut shaper, builder);
        assert_close(&got, &rows(&case["expected"]["rewards"]).concat(), case["tolerance"].as_f64().unwrap(), "length_penalty");
    }
}

#[test]
fn max_refs_takes_the_first_ones() {
    let case = &cases("shape_par")[0];
    let list = numbers(&case["inputs"]["reference_rewards"][0]);
    let shaped = |list: &[f64], max_refs: usize| {
        let mut shaper: Par = testing::shaper(&json!({"max_refs": max_refs}).to_string()).unwrap();
        shape(&mut shaper, BatchBuilder::new().f64s("value", [0.5]).text("reference_rewards", [json!(list).to_string()]))
    };
    assert_eq!(shaped(&list, 2), shaped(&list[..2], 10));
    assert_ne!(shaped(&list, 2), shaped(&list, 3));
}

#[test]
fn references_may_come_as_numbers_and_rows_without_are_left_and_reported() {
    let mut shaper: Par = testing::shaper("{}").unwrap();
    testing::take_output();
    let builder = BatchBuilder::new().f64s("value", [1.0, 3.5]).token_f32s("reference_rewards", [vec![0.5, 1.5], vec![]]);
    let got = shape(&mut shaper, builder);
    assert_eq!(got, [f64::midpoint(transform::sigmoid(0.5), transform::sigmoid(-0.5)), 3.5]);
    let output = testing::take_output();
    assert_eq!(output.counts["rows_without_references"], 1);
    assert_eq!(output.log.len(), 1);
}

#[test]
fn missing_or_unreadable_references_fail_the_batch() {
    let mut shaper: Par = testing::shaper("{}").unwrap();
    let fault = shaper.shape(&BatchBuilder::new().f64s("value", [1.0]).build().batch()).unwrap_err();
    assert_eq!(fault.code, Fault::MISSING_COLUMN);
    let data = BatchBuilder::new().f64s("value", [1.0]).text("reference_rewards", ["1.0"]).build();
    assert_eq!(shaper.shape(&data.batch()).unwrap_err().code, Fault::UNPARSEABLE);
}

#[test]
fn rows_without_value_are_passed_through_and_leave_the_statistics_alone() {
    let mut with: Par = testing::shaper(r#"{"kind": "meanstd"}"#).unwrap();
    let mut without: Par = testing::shaper(r#"{"kind": "meanstd"}"#).unwrap();
    let got = shape(&mut with, BatchBuilder::new().f64s("value", [1.0, f64::NAN, 3.0]));
    let expected = shape(&mut without, BatchBuilder::new().f64s("value", [1.0, 3.0]));
    assert!(got[1].is_nan());
    assert_eq!([got[0], got[2]], *expected);
    assert_eq!(with.save().unwrap(), without.save().unwrap());
}

#[test]
fn constant_rewards_give_zero_and_no_infinity() {
    for (kind, expected) in [("meanstd", 0.0), ("minmax", 0.0), ("clip", 2.0)] {
        let mut shaper: Par = testing::shaper(&json!({"kind": kind}).to_string()).unwrap();
        assert_eq!(shape(&mut shaper, BatchBuilder::new().f64s("value", [2.0, 2.0])), [expected; 2], "{kind}");
    }
}

#[test]
fn vanilla_centred_and_ceiling_follow_their_formulas() {
    let builder = BatchBuilder::new().f64s("value", [3.0]).text("reference_rewards", ["[1, 4]"]);
    let mut centred: Par = testing::shaper(r#"{"kind": "centered"}"#).unwrap();
    assert_eq!(shape(&mut centred, builder), [0.5]);
    let mut ceiling: Par = testing::shaper(r#"{"kind": "ceiling", "ceiling": 2.5}"#).unwrap();
    assert_eq!(shape(&mut ceiling, BatchBuilder::new().f64s("value", [3.0, 2.0])), [2.5, 2.0]);
}

#[test]
fn state_of_another_version_is_refused() {
    let mut shaper: Par = testing::shaper("{}").unwrap();
    let state = shaper.save().unwrap();
    assert!(shaper.load(2, &state).is_err());
    assert!(shaper.load(1, &state).is_ok());
}

#[test]
fn configurations_without_sense_are_refused() {
    for config in [r#"{"kind": "pra"}"#, r#"{"range_floor": 0}"#, r#"{"ddof": 2}"#, r#"{"max_refs": 0}"#, r#"{"width": -1}"#] {
        assert_eq!(testing::shaper::<Par>(config).unwrap_err().code, Fault::BAD_CONFIG, "{config}");
    }
}
