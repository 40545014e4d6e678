//! Many calls, one row in twenty of them hostile, and between them judges and tools that attack: what is taken is given back.

use std::sync::Arc;
use std::time::Instant;

use plumb_core::recipe::LimitsUse;
use plumb_core::{Batch, Column, Outcome, PluginKind, RewardFn};
use plumb_host::limits;
use serde_json::json;

use crate::support::{Neighbour, Process, alone, request};
use crate::{judges, tools};

/// Attacks that take turns.
const ATTACKS: [&str; 16] = [
    "spin",
    "recurse",
    "grow-big",
    "nan",
    "too-few",
    "two-faults",
    "long-message",
    "control-characters",
    "broken-message",
    "many-parts",
    "many-spans",
    "log-flood",
    "metric-names",
    "kv-flood",
    "slow-drip",
    "long-panic",
];
/// Attacks of judges and of tools that take turns after every so many calls.
const JUDGES: [&str; 8] =
    ["honest", "spin-later", "trap-later", "growing-memo", "grow-every-turn", "pair-flood", "broken-prompt", "log-flood"];
const TOOLS: [&str; 8] = ["none", "spin", "trap", "grow-small", "megabytes", "broken", "too-many", "log-flood"];
const OTHERS_EVERY: u64 = 32;
const ROWS: u64 = 8;

/// Rows of call `call`; one in twenty of all rows is poisoned.
fn batch(call: u64) -> (Batch, Vec<bool>) {
    let ids: Vec<u64> = (call * ROWS..(call + 1) * ROWS).collect();
    // Fibonacci hashing spreads the poison over calls and places.
    let poisoned: Vec<bool> = ids.iter().map(|id| id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0xffff < 0xffff / 20).collect();
    let mut batch = Batch::new(call / 64, ids, vec![ROWS as u32 / 2, ROWS as u32]);
    let text = |(row, poisoned): (usize, &bool)| if *poisoned { "POISON".to_owned() } else { "x".repeat(row) };
    batch.insert("completion", Column::Text(poisoned.iter().enumerate().map(text).collect()));
    (batch, poisoned)
}

/// Makes `calls` calls of rewards, besides those that search for poison, and compares the process at a tenth and at the end.
fn soak(calls: u64) {
    let _alone = alone();
    let neighbour = Neighbour::new(2);
    let load = |attack: &str| -> Arc<dyn RewardFn> {
        let mut request = request(PluginKind::Reward, "reward-hostile", json!({ "attack": attack }));
        request.limits =
            LimitsUse { fuel: Some(2_000_000), fuel_per_row: Some(50_000), memory_mib: Some(64), ..LimitsUse::default() };
        neighbour.host.load(request).unwrap().into_reward().unwrap()
    };
    let mut plugins: Vec<_> = ATTACKS.iter().map(|attack| load(attack)).collect();
    let judging: Vec<_> = JUDGES.iter().map(|attack| (*attack, judges::judge(&neighbour, attack))).collect();
    let tool = tools::tool(&neighbour, crate::support::limits());
    let start = Instant::now();
    let (mut warm, mut hostile) = (None, 0u64);
    for call in 0..calls {
        let turn = call as usize % plugins.len();
        let (batch, poisoned) = batch(call);
        let answer = plugins[turn].score(batch).unwrap();
        for (row, outcome) in answer.outcomes.iter().enumerate().filter(|(row, _)| !poisoned[*row]) {
            assert_eq!(*outcome, Outcome::Scored(row as f64), "call {call}, {}", ATTACKS[turn]);
        }
        hostile += poisoned.iter().filter(|poisoned| **poisoned).count() as u64;
        if call % OTHERS_EVERY == 0 {
            let turn = (call / OTHERS_EVERY) as usize;
            let (attack, judge) = &judging[turn % JUDGES.len()];
            let honest = ["honest", "log-flood", "grow-every-turn"].contains(attack);
            assert_eq!(judges::sit(&**judge, attack).is_ok(), honest, "call {call}, {attack}");
            judge.end_step();
            drop(judge.take_metrics());
            let attack = TOOLS[turn % TOOLS.len()];
            let scored = ["none", "grow-small", "log-flood"].contains(&attack);
            assert_eq!(tools::call(&tool, attack).is_ok(), scored, "call {call}, {attack}");
        }
        if call % 64 == 63 {
            plugins.iter().for_each(|plugin| plugin.end_step());
            plugins.iter().for_each(|plugin| drop(plugin.take_metrics()));
            drop(neighbour.lines.take_lines());
        }
        if call % 1000 == 999 {
            plugins[turn] = load(ATTACKS[turn]);
            neighbour.is_well("a thousand calls");
        }
        if call == calls / 10 {
            warm = Some(Process::now());
        }
    }
    let (warm, end) = (warm.unwrap(), Process::now());
    let guest_calls: u64 = neighbour.host.stats().iter().map(|(_, stats)| stats.counts.calls).sum();
    eprintln!(
        "{calls} calls with {hostile} hostile of {} rows, {guest_calls} guest calls in {:.1} s: resident {} KiB after a tenth, {} KiB at the end; {} threads, then {}",
        calls * ROWS,
        start.elapsed().as_secs_f64(),
        warm.resident_kib,
        end.resident_kib,
        warm.threads,
        end.threads
    );
    let share = hostile as f64 / (calls * ROWS) as f64;
    assert!((0.04..0.06).contains(&share), "{share}");
    // Up to 18 slots of instances keep 2 MiB each, and plugins that are loaded later come by those that were not used yet.
    end.has_not_grown_since(warm, (18 * 2 + 16) << 10);
    for (_, stats) in neighbour.host.stats() {
        assert!(stats.counts.call_faults.len() <= limits::CODES + 1 && stats.counts.row_faults.len() <= limits::CODES + 1);
    }
}

#[test]
fn two_thousand_calls_with_hostile_rows_leave_nothing_behind() {
    soak(2_000);
}

#[test]
#[ignore = "minutes: `cargo xtask soak`"]
fn a_hundred_thousand_calls_with_hostile_rows_leave_nothing_behind() {
    soak(100_000);
}
