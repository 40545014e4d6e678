//! What a guest may look at to tell two runs apart.

use plumb_core::PluginKind;
use serde_json::json;

use crate::support::{Neighbour, alone, batch, bits, request};

#[test]
fn nothing_a_guest_can_look_at_differs_between_calls_threads_and_hosts() {
    let _alone = alone();
    let look = |threads: usize, probe: &str| {
        let neighbour = Neighbour::new(threads);
        let plugin = neighbour.host.load(request(PluginKind::Reward, "reward-hostile", json!({ "probe": probe }))).unwrap();
        let plugin = plugin.into_reward().unwrap();
        let all = batch(false);
        // Many calls of a step, some at once, each of them twice, on instances that were used before.
        let calls = (0..2 * CALLS).map(|call| 4 * (call % CALLS));
        let pending: Vec<_> = calls.map(|row| plugin.submit(all.slice(row, row + 4))).collect();
        pending.into_iter().map(|pending| bits(&pending.wait().unwrap())).collect::<Vec<_>>()
    };
    for probe in [
        "unwritten-memory",
        "addresses",
        "hash-order",
        "nan-bits",
        "memory-limits",
        "stack-addresses",
        "read-after-write",
        "unkeyed-random",
    ] {
        let one = look(1, probe);
        assert!(one.iter().flatten().all(Result::is_ok), "{probe}: {one:?}");
        assert_eq!(one[..CALLS], one[CALLS..], "{probe}: the same call twice");
        assert_eq!(look(3, probe), one, "{probe}: threads and hosts");
        // Where the heap's blocks lie follows from the length of the texts, which is the guest's to know; hashes are seeded with it.
        let of_addresses = ["addresses", "hash-order", "stack-addresses"].contains(&probe);
        assert!(of_addresses || one.iter().all(|bits| *bits == one[0]), "{probe}: calls of a step: {one:?}");
        if probe == "unwritten-memory" || probe == "read-after-write" {
            assert_eq!(one[0][0], Ok(0.0f64.to_bits()), "{probe}");
        }
    }
}

/// Different calls of the step.
const CALLS: usize = 12;
