//! The host against components that the Python SDK made: `cargo xtask python` builds them into target/guests.

use std::path::PathBuf;
use std::sync::Arc;

use plumb_core::{Batch, Column, Outcome, PluginKind, Rewards};
use plumb_host::{Collector, Error, Host, HostOptions, LoadRequest, LoadedPlugin};
use serde_json::json;

/// Path of a component that `cargo xtask python` built.
fn guest(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/guests/{name}.wasm"));
    assert!(path.is_file(), "`{}` is missing, run `cargo xtask python`", path.display());
    path
}

fn host(threads: usize) -> (Host, Arc<Collector>) {
    let sink = Arc::new(Collector::default());
    let cache_dir = Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-python"));
    let options = HostOptions { threads, cache_dir, seed: 7, sink: Arc::clone(&sink) as _, ..HostOptions::default() };
    (Host::new(options).unwrap(), sink)
}

fn load(host: &Host, name: &str, config: serde_json::Value) -> plumb_host::Result<LoadedPlugin> {
    let serde_json::Value::Object(config) = config else { panic!("a configuration is an object") };
    host.load(LoadRequest { config, ..LoadRequest::new(PluginKind::Reward, guest(name)) })
}

fn batch(columns: &[(&str, &[&str])]) -> Batch {
    let rows = columns[0].1.len();
    let mut batch = Batch::new(3, (1000..1000 + rows as u64).collect(), vec![rows as u32]);
    for (name, texts) in columns {
        batch.insert(*name, Column::Text(texts.iter().map(|&text| text.to_owned()).collect()));
    }
    batch
}

fn score(plugin: LoadedPlugin, batch: Batch) -> Rewards {
    plugin.into_reward().unwrap().score(batch).unwrap()
}

/// What the probe answers to each action.
fn probe(host: &Host, actions: &[&str]) -> Rewards {
    score(load(host, "python-probe", json!({})).unwrap(), batch(&[("completion", actions)]))
}

fn values(rewards: &Rewards) -> Vec<Option<f64>> {
    rewards.outcomes.iter().map(Outcome::value).collect()
}

/// Code and message of a failed row.
fn failed(outcome: &Outcome) -> (&str, &str) {
    match outcome {
        Outcome::Failed(fault) => (&fault.code, &fault.message),
        other => panic!("expected a failure, got {other:?}"),
    }
}

fn part<'a>(rewards: &'a Rewards, name: &str) -> &'a [f64] {
    &rewards.parts.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no part `{name}`")).1
}

#[test]
fn rows_are_scored_with_parts_whatever_their_bytes() {
    let (host, _) = host(2);
    let texts = ["The answer is 42.", "Die Antwort: é 字 🙂 answer is -7", "", "none"];
    let rewards = score(load(&host, "reward-regex", json!({})).unwrap(), batch(&[("completion", &texts)]));
    assert_eq!(values(&rewards), [Some(1.0), Some(1.0), Some(0.0), Some(0.0)]);
    let numbers = part(&rewards, "answer");
    assert!(numbers[0] == 42.0 && numbers[1] == -7.0 && numbers[2].is_nan());
}

#[test]
fn configuration_that_does_not_fit_is_refused_at_load_with_path_and_reason() {
    let (host, _) = host(1);
    for (config, told) in [
        (json!({"patern": "x"}), "patern"),
        (json!({"pattern": 3}), "pattern"),
        (json!({"pattern": "("}), "missing ), unterminated subpattern"),
    ] {
        let error = load(&host, "reward-regex", config).expect_err("a wrong configuration is refused");
        assert!(matches!(error, Error::Config { .. }), "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn exceptions_are_faults_of_their_rows_and_the_others_keep_their_scores() {
    let (host, _) = host(1);
    let rewards = probe(&host, &["length", "raise", "abstain", "exit", "missing action", "deep", "parts"]);
    assert_eq!(values(&rewards), [Some(6.0), None, None, None, None, None, Some(1.0)]);
    let (code, message) = failed(&rewards.outcomes[1]);
    assert_eq!(code, "exception");
    assert!(message.starts_with("ValueError: invalid literal for int() with base 10: 'x' (probe.py:"), "{message}");
    assert!(matches!(&rewards.outcomes[2], Outcome::Abstained(fault) if fault.message == "not mine"));
    assert!(failed(&rewards.outcomes[3]).1.starts_with("SystemExit: 3"));
    assert_eq!(failed(&rewards.outcomes[4]).0, "no-such-action");
    assert!(failed(&rewards.outcomes[5]).1.starts_with("RecursionError"));
    assert_eq!((part(&rewards, "two")[6], part(&rewards, "three")[6]), (2.0, 3.0));
}

#[test]
fn rows_that_take_too_much_fail_alone() {
    let (host, _) = host(1);
    let mut request = LoadRequest::new(PluginKind::Reward, guest("python-probe"));
    request.limits.fuel = Some(300_000_000);
    request.limits.fuel_per_row = Some(100_000_000);
    let rewards = score(host.load(request).unwrap(), batch(&[("completion", &["length", "spin", "fill", "nan", "parts"])]));
    assert_eq!(values(&rewards), [Some(6.0), None, None, None, Some(1.0)]);
    let codes: Vec<_> = rewards.outcomes[1..4].iter().map(|outcome| failed(outcome).0).collect();
    assert_eq!(codes, ["out_of_fuel", "out_of_memory", "non_finite"]);
}

#[test]
fn what_the_sandbox_has_not_is_told_as_a_python_exception() {
    let (host, _) = host(1);
    for (action, told) in [
        ("open", "PermissionError: [Errno 63] plugins have no files (`open`)"),
        ("stat", "plugins have no files (`os.stat`)"),
        ("urandom", "use `plumb_sdk.random`"),
        ("socket", "plugins have no network (`socket.socket`)"),
        ("thread", "can't start new thread"),
        ("process", "does not support processes"),
    ] {
        let rewards = probe(&host, &[action]);
        let (code, message) = failed(&rewards.outcomes[0]);
        assert!(code == "exception" && message.contains(told), "{action}: {code}: {message}");
    }
}

#[test]
fn imports_of_functions_work_and_refused_ones_fail_their_rows_even_if_caught() {
    let (host, sink) = host(1);
    let actions = ["imports of functions", "late import", "caught import", "length", "optional import"];
    let rewards = probe(&host, &actions);
    assert_eq!(values(&rewards), [Some(1.0), None, None, Some(6.0), Some(1.0)]);
    for outcome in &rewards.outcomes[1..3] {
        let (code, message) = failed(outcome);
        assert_eq!(code, "missing-module");
        assert!(message.starts_with("module `wave` is not in the component (probe.py:"), "{message}");
        assert!(message.contains("in late_import): add \"wave\" to `imports` under `[tool.plumb]`"), "{message}");
    }
    assert!(sink.take_lines().iter().any(|line| line.message.starts_with("module `wave` is not in the component")));
}

#[test]
fn clock_stands_still_alarms_never_ring_and_chance_repeats() {
    let (host, _) = host(1);
    let actions = ["clock", "sleep", "alarm", "ctypes", "chance", "chance"];
    let first = values(&probe(&host, &actions));
    assert_eq!(first[..4], [Some(0.0), Some(1.0), Some(0.0), Some(4.0)]);
    assert_eq!(first[4], first[5]);
    assert_eq!(values(&probe(&host, &actions)), first);
}

#[test]
fn printed_and_logged_lines_reach_the_log() {
    let (host, sink) = host(1);
    assert_eq!(values(&probe(&host, &["print", "log", "kv"])), [Some(1.0); 3]);
    let lines: Vec<_> = sink.take_lines().into_iter().map(|line| line.message).collect();
    for message in ["printed 1", "odd", "WARNING:root:by logging"] {
        assert!(lines.iter().any(|line| line == message), "`{message}` is not among {lines:?}");
    }
}

#[test]
fn random_numbers_depend_on_the_row_and_not_on_cuts_or_threads() {
    let all = |threads| {
        let (host, _) = host(threads);
        values(&probe(&host, &["uniform"; 600]))
    };
    let one = all(1);
    assert_eq!(one, all(2));
    assert!(one[0] != one[1] && one.iter().all(|value| value.is_some_and(|value| (0.0..1.0).contains(&value))));
}

#[test]
fn trl_function_is_wrapped_with_none_as_abstention_and_exceptions_as_faults() {
    let (host, _) = host(1);
    let columns: [(&str, &[&str]); 3] =
        [("prompt", &["p"; 4]), ("completion", &["4", "5", "x", "4"]), ("answer", &["4", "4", "4", ""])];
    let rewards = score(load(&host, "reward-wrapped-trl", json!({})).unwrap(), batch(&columns));
    assert_eq!(values(&rewards), [Some(1.0), Some(0.0), None, None]);
    assert!(failed(&rewards.outcomes[2]).1.contains("ValueError: invalid literal for int() with base 10: 'x'"));
    assert!(matches!(rewards.outcomes[3], Outcome::Abstained(_)));
}

#[test]
fn verl_function_is_wrapped_with_its_numbers_as_parts() {
    let (host, _) = host(1);
    let plugin = load(&host, "reward-wrapped-verl", json!({})).unwrap();
    assert_eq!(plugin.descriptor().needs_columns, ["data_source", "completion", "answer"]);
    let columns: [(&str, &[&str]); 3] = [("data_source", &["d"; 2]), ("completion", &["42", "7"]), ("answer", &["42", "42"])];
    let rewards = score(plugin, batch(&columns));
    assert_eq!((values(&rewards), part(&rewards, "length")), (vec![Some(1.0), Some(0.0)], &[2.0, 1.0][..]));
}
