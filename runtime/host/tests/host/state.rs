//! What plugins keep from call to call and from step to step.

use std::sync::Arc;

use plumb_core::{Batch, Column, Outcome, PluginError, PluginKind, RewardFn, Rewards, Shaper};
use plumb_host::{Collector, Host};
use serde_json::json;

use super::{batch, host, request};

fn shaper(host: &Host) -> Arc<dyn Shaper> {
    host.load(request(PluginKind::Shaper, "shaper-counts", json!({}))).unwrap().into_shaper().unwrap()
}

fn first(shaped: &plumb_core::Shaped) -> f64 {
    shaped.values.as_ref().unwrap()[0]
}

#[test]
fn state_is_carried_from_call_to_call_and_a_failed_call_leaves_it() {
    let plugin = shaper(&host(1).0);
    assert_eq!(first(&plugin.shape(&batch(2, &[])).unwrap()), 1.0);
    for fail in ["fault", "trap"] {
        let mut failing = batch(2, &[]);
        failing.attrs.insert("fail".into(), fail.into());
        let error: PluginError = plugin.shape(&failing).unwrap_err();
        assert_eq!(error.export, "shape");
        assert_eq!(error.fault.code(), if fail == "fault" { "told-to" } else { "trap" });
    }
    let second = plugin.shape(&batch(2, &[])).unwrap();
    assert_eq!(first(&second), 2.0);
    assert_eq!(second.parts[0].1, [1.0; 2], "a call sees its own writes to kv");
}

#[test]
fn shaper_is_asked_again_after_a_trap_and_not_after_its_own_fault() {
    let (host, _) = host(1);
    let plugin = shaper(&host);
    let mut counts = (0, 0);
    for (fail, calls, retries) in [("fault", 1, 0), ("trap", 2, 1)] {
        let mut failing = batch(2, &[]);
        failing.attrs.insert("fail".into(), fail.into());
        plugin.shape(&failing).unwrap_err();
        counts = (counts.0 + calls, counts.1 + retries);
        let seen = &host.stats()[0].1.counts;
        assert_eq!((seen.calls, seen.retries), counts, "{fail}");
    }
}

#[test]
fn state_of_a_step_is_saved_only_once_the_step_ends() {
    let (host, _) = host(1);
    let plugin = shaper(&host);
    plugin.shape(&batch(2, &[])).unwrap();
    plugin.end_step();
    let state = plugin.save_state().unwrap();
    plugin.shape(&batch(2, &[])).unwrap();
    assert_eq!(plugin.save_state().unwrap(), state, "half a step is in no checkpoint");
    plugin.end_step();
    assert_ne!(plugin.save_state().unwrap(), state);
}

#[test]
fn state_survives_saving_and_loading() {
    let (host, _) = host(1);
    let plugin = shaper(&host);
    plugin.shape(&batch(2, &[])).unwrap();
    plugin.end_step();
    let state = plugin.save_state().unwrap().unwrap();
    let other = shaper(&host);
    other.load_state(&state).unwrap();
    assert_eq!(first(&other.shape(&batch(2, &[])).unwrap()), 2.0);
}

#[test]
fn state_that_the_guest_refuses_leaves_the_old_one() {
    let (host, _) = host(1);
    let plugin = shaper(&host);
    plugin.shape(&batch(2, &[])).unwrap();
    plugin.end_step();
    let mut state = plugin.save_state().unwrap().unwrap();
    // The version field, behind the magic: the guest knows version 1 alone.
    state[8] = 9;
    let error = plugin.load_state(&state).unwrap_err();
    assert_eq!(error.fault.code(), "bad-state");
    assert_eq!(first(&plugin.shape(&batch(2, &[])).unwrap()), 2.0);
}

/// A reward whose state counts what earlier steps held, and a step of it: 600 rows, which are three calls, of five texts.
fn counting(threads: usize, config: serde_json::Value) -> (Host, Arc<Collector>, Arc<dyn RewardFn>) {
    let (host, sink) = host(threads);
    let plugin = host.load(request(PluginKind::Reward, "reward-counts", config)).unwrap().into_reward().unwrap();
    (host, sink, plugin)
}

fn texts(step: u64, broken: Option<usize>) -> Batch {
    let mut batch = Batch::new(step, (0..600).collect(), vec![600]);
    let text = |row: usize| if broken == Some(row) { "PANIC".to_owned() } else { format!("text {}", row % 5) };
    batch.insert("completion", Column::Text((0..600).map(text).collect()));
    batch
}

fn values(rewards: &Rewards) -> Vec<Option<f64>> {
    rewards.outcomes.iter().map(|outcome| if let Outcome::Scored(value) = outcome { Some(*value) } else { None }).collect()
}

#[test]
fn states_of_calls_side_by_side_become_one_when_the_step_ends_whatever_ran_first() {
    let saved = [1, 4].map(|threads| {
        let (_host, _, plugin) = counting(threads, json!({}));
        // Both batches of the first step begin with nothing.
        let pending = [plugin.submit(texts(0, None)), plugin.submit(texts(0, None))];
        for answer in pending {
            assert_eq!(values(&answer.wait().unwrap()), vec![Some(0.0); 600]);
        }
        plugin.end_step();
        assert_eq!(values(&plugin.score(texts(1, None)).unwrap()), vec![Some(240.0); 600]);
        plugin.retract();
        plugin.end_step();
        assert_eq!(values(&plugin.score(texts(1, None)).unwrap()), vec![Some(240.0); 600], "what was retracted was not learnt");
        plugin.save_state().unwrap().unwrap()
    });
    assert_eq!(saved[0], saved[1]);
    let (_host, _, other) = counting(2, json!({}));
    other.load_state(&saved[0]).unwrap();
    assert_eq!(values(&other.score(texts(2, None)).unwrap())[0], Some(240.0));
}

#[test]
fn a_broken_row_teaches_a_reward_nothing_and_the_others_still_do() {
    let (_host, _, plugin) = counting(2, json!({}));
    let rewards = plugin.score(texts(0, Some(300))).unwrap();
    assert_eq!(values(&rewards).iter().filter(|value| value.is_none()).count(), 1);
    plugin.end_step();
    // Row 300 would have been `text 0`.
    assert_eq!(values(&plugin.score(texts(1, None)).unwrap())[..2], [Some(119.0), Some(120.0)]);
}

#[test]
fn merging_that_fails_keeps_the_state_of_the_step_before_and_says_so() {
    for (how, why) in [("fault", "the test told it to fail"), ("trap", "told it to panic")] {
        let (host, sink, plugin) = counting(1, json!({ "merge": how }));
        plugin.score(texts(0, None)).unwrap();
        plugin.end_step();
        assert!(sink.take_lines().iter().any(|line| line.message.contains("`merge` failed") && line.message.contains(why)));
        assert_eq!(host.stats()[0].1.counts.call_faults.len(), 1);
        assert_eq!(values(&plugin.score(texts(1, None)).unwrap()), vec![Some(0.0); 600]);
    }
}

#[test]
fn retracted_calls_leave_neither_state_nor_kv_nor_metrics() {
    let (host, _) = host(1);
    let (once, twice) = (shaper(&host), shaper(&host));
    twice.shape(&batch(2, &[])).unwrap();
    twice.retract();
    let answers = [&once, &twice].map(|plugin| {
        let shaped = plugin.shape(&batch(2, &[])).unwrap();
        plugin.end_step();
        (shaped, plugin.take_metrics(), plugin.save_state().unwrap())
    });
    assert_eq!(first(&answers[0].0), 1.0);
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn retracting_keeps_what_earlier_steps_left() {
    let plugin = shaper(&host(1).0);
    plugin.shape(&batch(2, &[])).unwrap();
    plugin.end_step();
    plugin.shape(&batch(2, &[])).unwrap();
    plugin.retract();
    assert_eq!(first(&plugin.shape(&batch(2, &[])).unwrap()), 2.0);
}

#[test]
fn another_generation_adopts_state_and_kv_or_nothing() {
    let (host, _) = host(1);
    let old = shaper(&host);
    old.shape(&batch(2, &[])).unwrap();
    old.end_step();
    let state = old.save_state().unwrap().unwrap();
    let new = shaper(&host);
    new.adopt_state(&state).unwrap();
    assert_eq!(new.save_state().unwrap().unwrap(), state);
    assert_eq!(first(&new.shape(&batch(2, &[])).unwrap()), 2.0);
    // The version field, behind the magic: the guest knows version 1 alone.
    let mut refused = state.clone();
    refused[8] = 9;
    let other = shaper(&host);
    assert_eq!(other.adopt_state(&refused).unwrap_err().fault.code(), "bad-state");
    assert_eq!(other.save_state().unwrap(), None, "nothing of a refused state is taken over");
    assert_eq!(first(&other.shape(&batch(2, &[])).unwrap()), 1.0);
}

#[test]
fn generation_without_state_adopts_kv_alone() {
    let (host, _) = host(1);
    let old = shaper(&host);
    old.shape(&batch(2, &[])).unwrap();
    old.end_step();
    let state = old.save_state().unwrap().unwrap();
    let new = host.load(request(PluginKind::Shaper, "shaper-echo", json!({ "read": "numbers" }))).unwrap().into_shaper().unwrap();
    assert_eq!(new.load_state(&state).unwrap_err().fault.code(), "host", "the same generation cannot have lost its state");
    new.adopt_state(&state).unwrap();
    assert!(new.save_state().unwrap().unwrap().len() < state.len());
}
