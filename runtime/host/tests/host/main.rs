//! The host against real components: guests that misbehave (`tests/guests`), one or more for every limit and rule.

mod state;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use plumb_core::recipe::LimitsUse;
use plumb_core::{Batch, Column, Filter, Outcome, PluginFault, PluginKind, RewardFn, Rewards};
use plumb_host::{Collector, Error, Host, HostOptions, LoadRequest, LoadedPlugin, Source, inspect};
use serde_json::json;

/// Path of a guest that `cargo xtask guests` built.
fn guest(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/guests/{name}.wasm"));
    assert!(path.is_file(), "`{}` is missing, run `cargo xtask guests`", path.display());
    path
}

/// Compiled guests, shared by these tests.
fn cache_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-guests")
}

fn host(threads: usize) -> (Host, Arc<Collector>) {
    let sink = Arc::new(Collector::default());
    let options =
        HostOptions { threads, cache_dir: Some(cache_dir()), seed: 7, sink: Arc::clone(&sink) as _, ..HostOptions::default() };
    (Host::new(options).unwrap(), sink)
}

fn request(kind: PluginKind, name: &str, config: serde_json::Value) -> LoadRequest {
    let serde_json::Value::Object(config) = config else { panic!("a configuration is an object") };
    // Far below the defaults, so that guests that spin or allocate are soon done.
    let limits = LimitsUse { fuel: Some(50_000_000), fuel_per_row: Some(1_000_000), memory_mib: Some(8), ..LimitsUse::default() };
    LoadRequest { config, limits, ..LoadRequest::new(kind, guest(name)) }
}

fn misbehaving(host: &Host, mode: &str) -> LoadedPlugin {
    host.load(request(PluginKind::Reward, "reward-misbehaves", json!({ "mode": mode }))).unwrap()
}

fn reward(host: &Host, mode: &str) -> Arc<dyn RewardFn> {
    misbehaving(host, mode).into_reward().unwrap()
}

/// Row `i` holds `i` letters, `POISON` where `poison` says so.
fn batch(rows: usize, poison: &[usize]) -> Batch {
    let mut batch = Batch::new(3, (1000..1000 + rows as u64).collect(), vec![rows as u32]);
    let texts = (0..rows).map(|row| if poison.contains(&row) { "POISON".to_owned() } else { "x".repeat(row % 50) });
    batch.insert("completion", Column::Text(texts.collect()));
    batch.insert("value", Column::F64((0..rows).map(|row| row as f64).collect()));
    batch
}

/// Code of a failed row.
fn failed(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Failed(fault) => &fault.code,
        other => panic!("expected a failure, got {other:?}"),
    }
}

fn score(mode: &str, batch: Batch) -> Rewards {
    reward(&host(2).0, mode).score(batch).unwrap()
}

#[test]
fn reward_scores_rows_in_their_order_with_parts() {
    let answer = score("good", batch(1000, &[]));
    assert_eq!(answer.outcomes.len(), 1000);
    assert_eq!(answer.outcomes[777], Outcome::Scored(27.0));
    assert_eq!((answer.parts[0].0.as_str(), answer.parts[0].1[777]), ("length", 27.0));
}

#[test]
fn reward_of_an_empty_batch_is_empty() {
    assert_eq!(score("good", batch(0, &[])), Rewards::default());
}

#[test]
fn faults_of_the_guest_fail_the_rows_with_their_code() {
    for (mode, code) in [
        ("trap", "trap"),
        ("spin", "out_of_fuel"),
        ("allocate", "out_of_memory"),
        ("recurse", "trap"),
        ("nan", "non_finite"),
        ("wrong-count", "wrong_count"),
        ("row-out-of-range", "bad_output"),
        ("metric-flood", "bad_output"),
        ("random-flood", "bad_output"),
        ("fault", "not-today"),
    ] {
        let answer = score(mode, batch(2, &[]));
        assert_eq!(answer.outcomes.iter().map(failed).collect::<Vec<_>>(), [code; 2], "mode {mode}");
    }
}

#[test]
fn answer_beyond_its_size_is_refused_even_where_memory_allows_it() {
    let (host, _) = host(1);
    let mut request = request(PluginKind::Reward, "reward-misbehaves", json!({ "mode": "huge-answer" }));
    request.limits = LimitsUse { memory_mib: Some(256), ..LimitsUse::default() };
    let answer = host.load(request).unwrap().into_reward().unwrap().score(batch(1, &[])).unwrap();
    assert_eq!(failed(&answer.outcomes[0]), "bad_output");
}

#[test]
fn fault_messages_say_what_happened() {
    let message = |mode| match &score(mode, batch(1, &[])).outcomes[0] {
        Outcome::Failed(fault) => fault.message.clone(),
        other => panic!("expected a failure, got {other:?}"),
    };
    let trap = message("trap");
    assert!(trap.contains("the test guest panics"), "the guest's last words are missing: {trap}");
    assert_eq!(message("spin"), "ran out of fuel: spent 51000000 units, all it had, on 1 row");
    let memory = message("allocate");
    assert!(memory.starts_with("ran out of memory: needs at least ") && memory.ends_with(" MiB, limit 8 MiB"), "{memory}");
    assert_eq!(message("wrong-count"), "returned 0 values, expected 1");
    assert_eq!(message("nan"), "returned NaN as the value of row 0");
    assert_eq!(message("fault"), "the test guest does not answer");
}

#[test]
fn poison_rows_fail_alone_and_the_others_keep_their_scores() {
    let poison = [0, 130, 131, 299];
    for (mode, code) in [("poison-trap", "trap"), ("poison-spin", "out_of_fuel")] {
        let (host, _) = host(2);
        let plugin = reward(&host, mode);
        let answer = plugin.score(batch(300, &poison)).unwrap();
        for (row, outcome) in answer.outcomes.iter().enumerate() {
            if poison.contains(&row) {
                assert_eq!(failed(outcome), code);
                assert!(answer.parts[0].1[row].is_nan());
            } else {
                assert_eq!(*outcome, Outcome::Scored((row % 50) as f64));
            }
        }
        let stats = host.stats()[0].1.clone().counts;
        // 300 rows are two calls; a trap is tried again, running out of fuel repeats for certain.
        assert_eq!(stats.retries, if code == "trap" { 2 } else { 0 });
        assert_eq!((stats.rows, stats.row_faults[code]), (300, 4));
        assert!(stats.bisections <= 2 * 8 * poison.len() as u64, "{stats:?}");
    }
}

#[test]
fn search_for_poison_finds_eight_neighbours_and_gives_up_where_all_rows_fail() {
    let (host, _) = host(2);
    let answer = reward(&host, "poison-trap").score(batch(256, &[8, 9, 10, 11, 12, 13, 14, 15])).unwrap();
    assert_eq!(answer.outcomes.iter().filter(|outcome| outcome.value().is_none()).count(), 8);
    let answer = reward(&host, "spin").score(batch(256, &[])).unwrap();
    assert!(answer.outcomes.iter().all(|outcome| failed(outcome) == "out_of_fuel"));
    let counts = &host.stats()[1].1.counts;
    assert_eq!((counts.calls, counts.row_faults["out_of_fuel"]), (17, 256), "one call, and sixteen of the search");
}

#[test]
fn a_plugins_own_faults_are_abstentions_or_failures_of_their_rows() {
    let answer = score("row-faults", batch(4, &[1]));
    assert!(
        matches!(&answer.outcomes[0], Outcome::Abstained(fault) if fault.code == "abstain" && fault.message == "an even row")
    );
    assert_eq!(failed(&answer.outcomes[1]), "unparseable");
    assert_eq!(answer.outcomes[3], Outcome::Scored(3.0));
}

#[test]
fn a_failed_call_does_not_touch_the_next() {
    let plugin = reward(&host(1).0, "poison-trap");
    assert_eq!(failed(&plugin.score(batch(1, &[0])).unwrap().outcomes[0]), "trap");
    assert_eq!(plugin.score(batch(2, &[])).unwrap().outcomes, [Outcome::Scored(0.0), Outcome::Scored(1.0)]);
}

#[test]
fn deadline_stops_a_guest_with_plenty_of_fuel() {
    let (host, _) = host(1);
    let mut request = request(PluginKind::Reward, "reward-misbehaves", json!({ "mode": "spin" }));
    request.limits = LimitsUse { fuel: Some(u64::MAX), deadline_ms: Some(30), ..LimitsUse::default() };
    let answer = host.load(request).unwrap().into_reward().unwrap().score(batch(1, &[])).unwrap();
    assert_eq!(failed(&answer.outcomes[0]), "deadline");
}

#[test]
fn missing_column_fails_before_the_guest_runs() {
    let plugin = reward(&host(1).0, "good");
    let error = plugin.score(Batch::new(0, vec![1], vec![1])).unwrap_err();
    assert!(
        matches!(&error.fault, PluginFault::Fault { code, message } if code == "missing-column" && message.contains("completion"))
    );
}

#[test]
fn answers_do_not_depend_on_threads_cuts_or_order() {
    let values = |answer: Rewards| answer.outcomes.iter().map(|o| o.value().unwrap().to_bits()).collect::<Vec<_>>();
    let whole = values(score("random", batch(700, &[])));
    let (host, _) = host(1);
    let plugin = reward(&host, "random");
    let all = batch(700, &[]);
    let parts: Vec<_> = [(300, 700), (0, 300)].map(|(start, stop)| plugin.submit(all.slice(start, stop))).into_iter().collect();
    let [second, first] = parts.try_into().ok().unwrap();
    let first = values(first.wait().unwrap());
    assert_eq!([first, values(second.wait().unwrap())].concat(), whole);
    assert!(whole.windows(2).all(|pair| pair[0] != pair[1]), "rows draw from streams of their own");
}

#[test]
fn random_numbers_follow_seed_name_and_step() {
    let draw = |seed, name: &str, step| {
        let host = Host::new(HostOptions { seed, cache_dir: Some(cache_dir()), ..HostOptions::default() }).unwrap();
        let mut request = request(PluginKind::Reward, "reward-misbehaves", json!({ "mode": "random" }));
        request.name = Some(name.into());
        let mut batch = batch(1, &[]);
        batch.step = step;
        host.load(request).unwrap().into_reward().unwrap().score(batch).unwrap().outcomes[0].value().unwrap()
    };
    let base = draw(1, "a", 0);
    assert_eq!(base, draw(1, "a", 0));
    for other in [draw(2, "a", 0), draw(1, "b", 0), draw(1, "a", 1)] {
        assert_ne!(base, other);
    }
}

#[test]
fn kv_is_read_as_of_the_steps_begin_and_written_at_its_end() {
    let (host, _) = host(2);
    let plugin = reward(&host, "kv-count");
    let found = |rows| plugin.score(batch(rows, &[])).unwrap().outcomes[0].value().unwrap();
    assert_eq!((found(10), found(5)), (0.0, 0.0), "calls of a step do not see each other");
    plugin.end_step();
    // Of writes to one key by calls for the same rows, the last one's stays.
    assert_eq!(found(1), 5.0);
}

#[test]
fn kv_writes_land_in_the_order_of_rows_whichever_are_submitted_first() {
    let (host, _) = host(1);
    let plugin = reward(&host, "kv-count");
    let all = batch(10, &[]);
    for (start, stop) in [(7, 10), (0, 7)] {
        plugin.score(all.slice(start, stop)).unwrap();
    }
    plugin.end_step();
    assert_eq!(plugin.score(batch(1, &[])).unwrap().outcomes[0], Outcome::Scored(3.0), "the count of the last rows");
}

#[test]
fn kv_writes_of_failed_calls_are_dropped() {
    let (host, _) = host(1);
    let plugin = reward(&host, "kv-count-poison");
    assert_eq!(failed(&plugin.score(batch(1, &[0])).unwrap().outcomes[0]), "trap");
    plugin.end_step();
    assert_eq!(plugin.score(batch(1, &[])).unwrap().outcomes[0], Outcome::Scored(0.0));
}

#[test]
fn kv_survives_saving_and_loading() {
    let (host, _) = host(1);
    let plugin = reward(&host, "kv-count");
    assert_eq!(plugin.save_state().unwrap(), None);
    plugin.score(batch(4, &[])).unwrap();
    plugin.end_step();
    let state = plugin.save_state().unwrap().unwrap();
    let other = reward(&host, "kv-count");
    other.load_state(&state).unwrap();
    assert_eq!(other.score(batch(1, &[])).unwrap().outcomes[0], Outcome::Scored(4.0));
    assert_eq!(other.save_state().unwrap().unwrap(), state, "the same values are the same bytes");
    assert!(other.load_state(&state[..state.len() - 1]).is_err());
}

/// Metrics of a step in which `batches` were scored.
fn step_metrics(plugin: &dyn RewardFn, batches: Vec<Batch>) -> BTreeMap<String, f64> {
    let pending: Vec<_> = batches.into_iter().map(|batch| plugin.submit(batch)).collect();
    for pending in pending {
        drop(pending.wait().unwrap());
    }
    assert_eq!(plugin.take_metrics(), [], "metrics wait for the end of the step");
    plugin.end_step();
    plugin.take_metrics().into_iter().collect()
}

#[test]
fn metrics_of_a_step_are_those_of_its_good_calls_whatever_threads_and_order() {
    let all = batch(1000, &[]);
    let whole = step_metrics(&*reward(&host(1).0, "metrics"), vec![all.clone()]);
    // 1000 rows are four calls, of lengths 0 to 49.
    assert_eq!((whole["scored"], whole["calls"], whole["rows"], whole["retries"]), (1000.0, 4.0, 1000.0, 0.0));
    assert!((whole["length"] - 2.45).abs() < 1e-12 && whole["fuel"] > 0.0, "{whole:?}");
    assert_eq!(whole["first/1256"], 1.0);
    assert_eq!(step_metrics(&*reward(&host(4).0, "metrics"), vec![all.clone()]), whole);
    let parts = [(512, 1000), (0, 512)].map(|(start, stop)| all.slice(start, stop));
    assert_eq!(step_metrics(&*reward(&host(2).0, "metrics"), parts.into()), whole);
}

#[test]
fn metrics_of_failed_calls_are_dropped_and_steps_do_not_mix() {
    let plugin = reward(&host(2).0, "metrics");
    let first = step_metrics(&*plugin, vec![batch(64, &[5])]);
    assert_eq!((first["scored"], first["rows"], first["retries"]), (63.0, 64.0, 1.0));
    let second = step_metrics(&*plugin, vec![batch(10, &[])]);
    assert_eq!((second["scored"], second["calls"], second["rows"], second["retries"]), (10.0, 1.0, 10.0, 0.0));
    plugin.end_step();
    assert_eq!(plugin.take_metrics(), [], "a step without calls has no numbers");
}

#[test]
fn names_of_metrics_are_bounded_in_a_step_and_the_plugin_is_told() {
    let (host, sink) = host(1);
    let plugin = reward(&host, "metrics");
    let metrics = step_metrics(&*plugin, (0..100).map(|row| batch(100, &[]).slice(row, row + 1)).collect());
    assert_eq!(metrics.len(), plumb_host::limits::STEP_METRIC_NAMES + 4, "and the four counts of its calls");
    let last = sink.take_lines().pop().unwrap();
    assert_eq!(last.message, "38 metrics of a step are too many, `first/1064` is the first that is left out");
}

#[test]
fn time_in_calls_grows_with_every_call() {
    let plugin = reward(&host(1).0, "good");
    assert_eq!(plugin.busy_s(), Some(0.0));
    plugin.score(batch(256, &[])).unwrap();
    assert!(plugin.busy_s().unwrap() > 0.0);
}

#[test]
fn log_lines_reach_the_sink_up_to_their_limit() {
    let (host, sink) = host(1);
    reward(&host, "log-flood").score(batch(1, &[])).unwrap();
    let lines = sink.take_lines();
    assert_eq!((lines.len(), lines[1].message.as_str()), (plumb_host::limits::LOG_LINES, "line 1"));
    assert_eq!(host.stats()[0].1.counts.log_lines_dropped, 1000 - plumb_host::limits::LOG_LINES as u64);
}

fn filter(mode: &str) -> Arc<dyn Filter> {
    host(1).0.load(request(PluginKind::Filter, "filter-misbehaves", json!({ "mode": mode }))).unwrap().into_filter().unwrap()
}

#[test]
fn filter_decides_or_fails_as_a_whole() {
    let decision = filter("good").select(&batch(3, &[])).unwrap();
    assert_eq!(decision.keep, [false, true, true]);
    assert_eq!(decision.reasons, [(0, "the first row of the test".to_owned())]);
    for (mode, code) in
        [("trap", "trap"), ("wrong-count", "wrong_count"), ("nan-weight", "non_finite"), ("group-out-of-range", "bad_output")]
    {
        assert_eq!(filter(mode).select(&batch(3, &[])).unwrap_err().fault.code(), code, "mode {mode}");
    }
}

#[test]
fn configuration_errors_surface_at_load_with_the_plugins_words() {
    let (host, _) = host(1);
    let load = |config| host.load(request(PluginKind::Reward, "reward-misbehaves", config)).unwrap_err();
    let error = load(json!({ "mode": "init-fault" }));
    assert_eq!(error.code(), "plugin.config");
    assert!(error.to_string().contains("must not be `init-fault`"), "{error}");
    let error = load(json!({ "mood": "good" }));
    assert!(error.code() == "plugin.config" && error.to_string().contains("mood"), "{error}");
    assert_eq!(load(json!({ "mode": "init-trap" })).code(), "plugin.trap");
    assert!(host.stats().is_empty(), "nothing of a plugin that does not load stays");
}

#[test]
fn wrong_kind_is_refused() {
    let (host, _) = host(1);
    let error = host.load(request(PluginKind::Filter, "shaper-counts", json!({}))).unwrap_err();
    assert!(matches!(error, Error::WrongKind { expected: PluginKind::Filter, found: PluginKind::Shaper, .. }), "{error}");
}

#[test]
fn imports_beyond_the_grants_are_refused_by_name() {
    let (host, _) = host(1);
    let error = host.load(request(PluginKind::Reward, "reward-needs-models", json!({}))).unwrap_err();
    assert!(matches!(&error, Error::NotGranted { capability: "models", .. }), "{error}");
    let error = host.load(request(PluginKind::Reward, "reward-needs-vault", json!({}))).unwrap_err();
    assert!(matches!(&error, Error::UnknownImport { import, .. } if import == "example:vault/secrets@1.0.0"), "{error}");
}

fn load_bytes(bytes: Vec<u8>) -> Error {
    let source = Source::Bytes("patched".into(), bytes);
    host(1).0.load(LoadRequest { source, ..LoadRequest::new(PluginKind::Reward, "") }).unwrap_err()
}

#[test]
fn component_of_another_interface_version_is_refused() {
    let mut bytes = std::fs::read(guest("reward-misbehaves")).unwrap();
    let old = b"@0.1.1";
    for at in 0..bytes.len() - old.len() {
        if bytes[at..].starts_with(old) {
            bytes[at..at + old.len()].copy_from_slice(b"@0.2.0");
        }
    }
    let error = load_bytes(bytes);
    assert!(matches!(&error, Error::WitVersion { interface, .. } if interface == "plumb:align/rewarding@0.2.0"), "{error}");
}

#[test]
fn truncated_components_are_refused_wherever_they_end() {
    let bytes = std::fs::read(guest("reward-misbehaves")).unwrap();
    for end in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        let error = load_bytes(bytes[..end].to_vec());
        let code = error.code();
        assert!(["plugin.not_a_component", "plugin.not_a_plugin", "plugin.malformed"].contains(&code.as_str()), "{end}: {error}");
    }
}

#[test]
fn inspect_reads_what_a_file_is_without_running_it() {
    let bytes = std::fs::read(guest("reward-needs-models")).unwrap();
    let inspection = inspect("reward-needs-models.wasm", &bytes).unwrap();
    assert_eq!((inspection.kind, inspection.wit_version.as_str(), inspection.stateful), (PluginKind::Reward, "0.1.1", false));
    assert_eq!(inspection.manifest.unwrap().name, "reward-needs-models");
    assert_eq!(inspection.digest.len(), 64);
    let refused: Vec<_> = inspection.imports.iter().filter(|import| !import.granted).map(|import| import.name.as_str()).collect();
    assert_eq!(refused, ["plumb:align/models@0.1.1"]);
    let stateful = std::fs::read(guest("shaper-counts")).unwrap();
    assert!(inspect("shaper-counts.wasm", &stateful).unwrap().stateful);
}

#[test]
fn cache_is_filled_used_and_survives_damage() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let run = || {
        let host = Host::new(HostOptions { cache_dir: Some(cache.clone()), ..HostOptions::default() }).unwrap();
        reward(&host, "good").score(batch(3, &[])).unwrap().outcomes[2].value()
    };
    let files = || std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(run(), Some(2.0));
    let [file] = <[PathBuf; 1]>::try_from(files()).unwrap();
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(run(), Some(2.0));
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for bad in [damaged, whole[..whole.len() / 2].to_vec(), Vec::new()] {
        std::fs::write(&file, bad).unwrap();
        assert_eq!(run(), Some(2.0));
        // Compiling is deterministic, so that the file is as it was.
        assert!(std::fs::read(&file).unwrap() == whole, "a damaged file is replaced");
    }
    assert_eq!(files().len(), 1, "no partial files stay behind");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn answers_outlive_the_host_that_computes_them() {
    let (host, _) = host(2);
    let plugin = reward(&host, "good");
    let pending = plugin.submit(batch(600, &[]));
    drop((host, plugin));
    assert_eq!(pending.wait().unwrap().outcomes.len(), 600);
}
