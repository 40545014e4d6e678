//! The capabilities of a plugin: grants, budgets, checks and clocks.

use std::sync::Arc;
use std::time::Duration;

use plumb_core::recipe::{Grants, LimitsUse};
use plumb_core::services::Models;
use plumb_core::{Column, Outcome, PluginKind};
use plumb_host::{Error, LoadRequest, inspect};
use serde_json::json;

use crate::{Counting, batch, guest, host, names, request};

fn grants() -> Grants {
    Grants { models: names(&["grader"]), tools: names(&["calculator"]), ..Grants::default() }
}

fn asks(config: serde_json::Value) -> LoadRequest {
    request(PluginKind::Reward, "reward-asks", config, grants())
}

/// Values of three rows, or the code that they failed with.
fn outcomes(models: Arc<dyn Models>, request: LoadRequest) -> Result<Vec<f64>, String> {
    let reward = host(models).load(request).unwrap().into_reward().unwrap();
    assert!(reward.asks_models());
    let outcomes = reward.score(batch(3)).unwrap().outcomes;
    outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Scored(value) => Ok(value),
            Outcome::Abstained(fault) | Outcome::Failed(fault) => Err(fault.code),
        })
        .collect()
}

fn asked(config: serde_json::Value) -> Result<Vec<f64>, String> {
    outcomes(Arc::new(Counting::default()), asks(config))
}

#[test]
fn every_question_reaches_the_model_and_its_answer_the_plugin() {
    for (mode, values) in [
        ("generate", [0.0, 1.0, 2.0]),
        ("logprobs", [0.0, -1.0, -2.0]),
        ("token-logprobs", [0.0, -2.0, -4.0]),
        ("choices", [0.0, 1.0, 2.0]),
        ("score", [0.0, 1.0, 2.0]),
        ("embed", [0.0, 1.0, 2.0]),
    ] {
        assert_eq!(asked(json!({ "mode": mode, "max_tokens": 8 })), Ok(values.to_vec()), "{mode}");
    }
}

#[test]
fn models_beyond_the_grants_are_denied() {
    assert_eq!(asked(json!({ "mode": "score", "model": "policy" })), Err("denied".to_owned()));
    assert_eq!(asked(json!({ "mode": "generate", "model": "policy", "max_tokens": 1 })), Err("denied".to_owned()));
}

#[test]
fn budget_counts_what_is_read_and_written_and_not_what_might_have_been() {
    // Three rows read 0, 1 and 2 tokens, at least one a prompt, and write one each.
    let with = |max_tokens: u64, per_row: u64| {
        let mut request = asks(json!({ "mode": "generate", "max_tokens": max_tokens }));
        request.grants.tokens_per_row = Some(per_row);
        outcomes(Arc::new(Counting::default()), request)
    };
    assert!(with(1, 2).is_ok());
    assert_eq!(with(2, 2), Err("budget".to_owned()), "what may be written must be left before it is");
    assert_eq!(with(0, 2), Err("invalid-question".to_owned()));
    let mut long = asks(json!({ "mode": "logprobs" }));
    long.grants.tokens_per_row = Some(1);
    assert_eq!(outcomes(Arc::new(Counting::default()), long), Err("budget".to_owned()));
}

#[test]
fn questions_that_are_none_never_reach_the_model() {
    let models = Arc::new(Counting::default());
    assert_eq!(outcomes(Arc::clone(&models) as _, asks(json!({ "mode": "broken-texts" }))), Err("invalid-question".to_owned()));
    assert_eq!(*models.asked.lock().unwrap(), 0);
}

#[test]
fn what_a_tokenizer_would_read_is_paid_from_the_plugins_fuel_before_it_reads() {
    let models = Arc::new(Counting::default());
    let request = asks(json!({ "mode": "generate", "max_tokens": 1 }));
    let reward = host(Arc::clone(&models) as _).load(request).unwrap().into_reward().unwrap();
    let mut long = batch(1);
    long.insert("completion", Column::Text(["x".repeat(1 << 20)].iter().collect()));
    let outcomes = reward.score(long).unwrap().outcomes;
    assert!(matches!(&outcomes[0], Outcome::Failed(fault) if fault.code == "out_of_fuel"), "{outcomes:?}");
    assert_eq!(*models.asked.lock().unwrap(), 0);
}

#[test]
fn answers_of_the_wrong_length_are_refused() {
    let models = Arc::new(Counting { short: true, ..Counting::default() });
    assert_eq!(outcomes(models, asks(json!({ "mode": "generate", "max_tokens": 8 }))), Err("bad-answer".to_owned()));
}

#[test]
fn models_answer_only_calls_with_a_batch() {
    let error = host(Arc::new(Counting::default())).load(asks(json!({ "mode": "in-init" }))).unwrap_err();
    assert!(matches!(&error, Error::Config { code, .. } if code == "denied"), "{error}");
}

#[test]
fn time_in_models_is_not_the_guests_and_the_guests_still_ends() {
    let with = |mode: &str, deadline_ms| {
        let mut request = asks(json!({ "mode": mode, "max_tokens": 8 }));
        request.limits = LimitsUse { fuel: Some(u64::MAX), deadline_ms: Some(deadline_ms), ..LimitsUse::default() };
        outcomes(Arc::new(Counting { delay: Duration::from_millis(200), ..Counting::default() }), request)
    };
    assert_eq!(with("generate", 60), Ok(vec![0.0, 1.0, 2.0]));
    assert_eq!(with("spin-after", 60), Err("deadline".to_owned()));
}

#[test]
fn missing_grants_are_refused_at_load_with_the_lines_to_add() {
    let host = host(Arc::new(Counting::default()));
    let refused = |grants: Grants| host.load(LoadRequest { grants, ..asks(json!({ "mode": "score" })) }).unwrap_err().to_string();
    let told = refused(Grants { tools: names(&["calculator"]), ..Grants::default() });
    assert!(
        told.contains("asks models") && told.contains("`grants = { models = [\"policy\"] }` at the plugin in the recipe"),
        "{told}"
    );
    assert!(!told.contains("plugin.toml"), "the manifest has its line: {told}");
    let told = refused(Grants { models: names(&["grader"]), ..Grants::default() });
    assert!(told.contains("asks tools") && told.contains("grants = { tools = [\"calculator\"] }"), "{told}");
    // This one's plugin.toml does not declare what it imports.
    let error = host.load(request(PluginKind::Reward, "reward-needs-models", json!({}), grants())).unwrap_err();
    assert!(error.to_string().contains("add `[needs] capabilities = [\"models\"]` in its plugin.toml"), "{error}");
    assert_eq!(error.code(), "plugin.not_granted");
}

#[test]
fn plugins_that_do_not_ask_import_no_capability() {
    for (name, expected) in
        [("reward-misbehaves", [false, false]), ("judge-probe", [false, false]), ("reward-asks", [true, true])]
    {
        let inspection = inspect(name, &std::fs::read(guest(name)).unwrap()).unwrap();
        assert_eq!(["models", "tools"].map(|capability| inspection.imports_interface(capability)), expected, "{name}");
    }
}
