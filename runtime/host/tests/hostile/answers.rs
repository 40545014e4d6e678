//! `reward-hostile`, `shaper-hostile`, `filter-misbehaves`: a table of attacks and their outcomes.

use std::sync::Arc;

use plumb_core::{Decision, Filter, Outcome, PluginError, PluginKind, Shaped, Shaper};
use serde_json::json;

use crate::support::{Neighbour, POISONED, Process, ROWS, alone, batch, request, roomy};

/// Attacks of `reward-hostile`, and what becomes of the poisoned row: a code, or None where the row is scored, since nothing but a
/// limit was met. `docs/src/security.md` lists them.
const REWARDS: [(&str, Option<&str>); 41] = [
    ("honest", Some("unparseable")),
    ("spin", Some("out_of_fuel")),
    ("recurse", Some("trap")),
    ("grow-big", Some("out_of_memory")),
    ("grow-small", None),
    ("huge-answer", Some("bad_output")),
    ("nan", Some("non_finite")),
    ("infinite", Some("non_finite")),
    ("huge-number", Some("bad_output")),
    ("too-few", Some("wrong_count")),
    ("too-many", Some("wrong_count")),
    ("row-of-others", Some("bad_output")),
    ("two-faults", Some("bad_output")),
    ("long-code", Some("bad_output")),
    ("long-message", Some("long-message")),
    ("control-characters", Some("control")),
    ("broken-message", Some("bad_output")),
    ("broken-log", Some("bad_output")),
    ("broken-key", Some("bad_output")),
    ("many-parts", Some("bad_output")),
    ("same-parts", Some("bad_output")),
    ("long-part", Some("bad_output")),
    ("many-spans", Some("bad_output")),
    ("spans-of-others", Some("bad_output")),
    ("many-span-lists", Some("bad_output")),
    ("log-flood", None),
    ("log-fields", None),
    ("log-empty", Some("out_of_fuel")),
    ("metric-names", Some("bad_output")),
    ("metric-values", Some("bad_output")),
    ("metric-empty", Some("out_of_fuel")),
    ("metric-name", Some("bad_output")),
    ("metric-nan", Some("bad_output")),
    ("random-flood", Some("bad_output")),
    ("kv-flood", Some("out_of_fuel")),
    ("kv-empty", Some("out_of_fuel")),
    ("kv-keys", Some("out_of_fuel")),
    ("slow-drip", Some("out_of_fuel")),
    ("copies", Some("out_of_fuel")),
    ("long-panic", Some("trap")),
    ("ask-again", Some("again")),
];

/// Runs one attack, checks all that must hold after any, and says what became of the poisoned row.
fn attack(neighbour: &Neighbour, name: &str) -> Option<String> {
    let mut request = request(PluginKind::Reward, "reward-hostile", json!({ "attack": name }));
    if ["huge-answer", "many-spans"].contains(&name) {
        request.limits = roomy();
    }
    let plugin = neighbour.host.load(request).unwrap().into_reward().unwrap();
    let answer = plugin.score(batch(true)).unwrap();
    assert_eq!(answer.outcomes.len(), ROWS, "{name}");
    for (row, outcome) in answer.outcomes.iter().enumerate().filter(|(row, _)| *row != POISONED) {
        // A plugin's own fault for the batch is its answer for all of its rows.
        assert!(*outcome == Outcome::Scored(row as f64) || name == "ask-again", "{name}, row {row}: {outcome:?}");
    }
    let code = match &answer.outcomes[POISONED] {
        Outcome::Scored(value) => {
            assert_eq!(*value, 13.0, "{name}");
            None
        }
        Outcome::Abstained(fault) | Outcome::Failed(fault) => {
            assert!(fault.message.len() <= plumb_host::limits::MESSAGE_BYTES + '…'.len_utf8(), "{name}");
            Some(fault.code.clone())
        }
    };
    plugin.end_step();
    assert!(plugin.take_metrics().len() <= plumb_host::limits::STEP_METRIC_NAMES + 4, "{name}");
    assert!(plugin.save_state().unwrap().is_none_or(|state| state.len() <= 2 * plumb_host::limits::KV_BYTES), "{name}");
    let lines = neighbour.lines.take_lines();
    let bytes: usize = lines.iter().map(|line| line.message.len()).sum();
    let calls = neighbour.host.stats().last().unwrap().1.counts.calls as usize;
    assert!(bytes <= calls * plumb_host::limits::LOG_BYTES + 1000, "{name}: {bytes} bytes of log lines in {calls} calls");
    neighbour.is_well(name);
    code
}

#[test]
fn attacks_of_a_reward_cost_their_row_and_nothing_else() {
    let _alone = alone();
    let neighbour = Neighbour::new(2);
    let round = || {
        let found: Vec<_> = REWARDS.iter().map(|(name, _)| (*name, attack(&neighbour, name))).collect();
        let others: Vec<_> = found.iter().zip(REWARDS).filter(|((_, found), (_, code))| found.as_deref() != *code).collect();
        assert!(others.is_empty(), "{others:?}");
    };
    // Instances live in slots that keep up to 2 MiB each, and the first rounds come by all of them.
    round();
    round();
    let warm = Process::now();
    round();
    Process::now().has_not_grown_since(warm, 32 << 10);
}

fn shaper(neighbour: &Neighbour, attack: &str, from_call: u64) -> Arc<dyn Shaper> {
    let mut request = request(PluginKind::Shaper, "shaper-hostile", json!({ "attack": attack, "from_call": from_call }));
    if ["huge-state", "kv-flood"].contains(&attack) {
        request.limits = roomy();
    }
    neighbour.host.load(request).unwrap().into_shaper().unwrap()
}

fn first(answer: Result<Shaped, PluginError>) -> Result<f64, String> {
    answer.map(|shaped| shaped.values.unwrap()[0]).map_err(|error| error.fault.code().to_owned())
}

#[test]
fn attacks_of_a_shaper_fail_their_call_and_leave_the_state_of_the_call_before() {
    let _alone = alone();
    let neighbour = Neighbour::new(2);
    let round = |neighbour: &Neighbour| {
        for (name, code) in [
            ("trap-later", "trap"),
            ("trap-in-save", "trap"),
            ("fault-in-save", "no-state"),
            ("spin-in-save", "out_of_fuel"),
            ("trap-in-load", "trap"),
            ("huge-state", "bad_output"),
            ("too-many", "wrong_count"),
            ("nan", "non_finite"),
            ("huge-number", "bad_output"),
            ("nothing", "bad_output"),
            ("tokens-backwards", "bad_output"),
            ("tokens-of-others", "wrong_count"),
            ("short-part", "wrong_count"),
        ] {
            let plugin = shaper(neighbour, name, 3);
            let batch = batch(false);
            assert_eq!((first(plugin.shape(&batch)), first(plugin.shape(&batch))), (Ok(1.0), Ok(2.0)), "{name}");
            plugin.end_step();
            let state = plugin.save_state().unwrap();
            for _ in 0..2 {
                assert_eq!(first(plugin.shape(&batch)), Err(code.to_owned()), "{name}");
            }
            plugin.end_step();
            assert_eq!(plugin.save_state().unwrap(), state, "{name}");
            neighbour.is_well(name);
        }
    };
    round(&neighbour);
    let warm = Process::now();
    round(&neighbour);
    Process::now().has_not_grown_since(warm, 32 << 10);
}

#[test]
fn writes_to_kv_are_bounded_over_all_calls_of_a_step() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    let plugin = shaper(&neighbour, "kv-flood", 0);
    let before = Process::now();
    // Thirty calls of a step with 15 MiB of writes each.
    (0..30).for_each(|_| drop(plugin.shape(&batch(false)).unwrap()));
    let grown = Process::now().resident_kib.saturating_sub(before.resident_kib);
    assert!(grown < 160 << 10, "{grown} KiB");
    plugin.end_step();
    let warnings: Vec<_> = neighbour.lines.take_lines().into_iter().map(|line| line.message).collect();
    assert_eq!(warnings[0], "`kv` writes, metrics and states of a step take more than 64 MiB: those of 26 calls are lost");
    assert!(plugin.save_state().unwrap().unwrap().len() <= 2 * plumb_host::limits::KV_BYTES);
    assert!(plugin.shape(&batch(false)).is_ok(), "the next step goes on");
    neighbour.is_well("kv-flood");
}

#[test]
fn attacks_of_a_filter_are_refused_as_a_whole_or_mean_what_they_say() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    let select = |mode: &str| -> Result<Decision, String> {
        let loaded = neighbour.host.load(request(PluginKind::Filter, "filter-misbehaves", json!({ "mode": mode })));
        let filter: Arc<dyn Filter> = loaded.unwrap().into_filter().unwrap();
        filter.select(&batch(false)).map_err(|error| error.fault.code().to_owned())
    };
    for (mode, code) in [
        ("trap", "trap"),
        ("wrong-count", "wrong_count"),
        ("nan-weight", "non_finite"),
        ("negative-weight", "bad_output"),
        ("huge-weight", "bad_output"),
        ("group-out-of-range", "bad_output"),
        ("regenerate-flood", "bad_output"),
        ("pair-out-of-range", "bad_output"),
        ("pair-probability", "bad_output"),
        ("pair-lengths", "wrong_count"),
        ("pair-flood", "bad_output"),
        ("relabel-numbers", "bad_output"),
        ("relabel-broken", "bad_output"),
        ("relabel-ends", "bad_output"),
        ("reason-out-of-range", "bad_output"),
    ] {
        assert_eq!(select(mode).unwrap_err(), code, "{mode}");
        neighbour.is_well(mode);
    }
    assert_eq!(select("regenerate-all").unwrap().regenerate.len(), ROWS / 4);
    assert!(select("relabel-all").unwrap().relabels[0].rows.iter().all(|(_, text)| text.is_empty()));
    let reasons = select("reason-flood").unwrap().reasons;
    assert!(reasons.len() == 1 && reasons[0].1.len() <= plumb_host::limits::MESSAGE_BYTES + 3);
    assert!(select("drop-all").unwrap().keep.iter().all(|keep| !keep));
}

#[test]
fn trap_on_a_later_call_leaves_the_calls_before_it_valid() {
    let _alone = alone();
    let neighbour = Neighbour::new(1);
    let plugin = shaper(&neighbour, "trap-later", 5);
    let answers: Vec<_> = (0..7).map(|_| first(plugin.shape(&batch(false)))).collect();
    let trap = || Err("trap".to_owned());
    assert_eq!(answers, [Ok(1.0), Ok(2.0), Ok(3.0), Ok(4.0), trap(), trap(), trap()]);
}
