//! Memory of the host around Python components. A file of its own, since it measures the whole process.
#![cfg(target_os = "linux")]

use std::path::PathBuf;

use plumb_core::{Batch, Column, Outcome, PluginKind};
use plumb_host::{Host, HostOptions, LoadRequest};

/// Resident memory of this process in MiB.
fn resident_mib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    (pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096) >> 20
}

#[test]
fn memory_is_given_back_after_calls_that_fill_it() {
    let guest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/guests/python-probe.wasm");
    assert!(guest.is_file(), "`{}` is missing, run `cargo xtask python`", guest.display());
    let cache_dir = Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-python"));
    let host = Host::new(HostOptions { threads: 1, cache_dir, ..HostOptions::default() }).unwrap();
    let plugin = host.load(LoadRequest::new(PluginKind::Reward, guest)).unwrap().into_reward().unwrap();
    let call = || {
        let mut batch = Batch::new(0, vec![1, 2], vec![2]);
        batch.insert("completion", Column::Text(["fill", "length"].map(str::to_owned).into_iter().collect()));
        let outcomes = plugin.score(batch).unwrap().outcomes;
        assert!(matches!(&outcomes[0], Outcome::Failed(fault) if fault.code == "out_of_memory"), "{outcomes:?}");
        assert_eq!(outcomes[1], Outcome::Scored(6.0));
    };
    call();
    let before = resident_mib();
    (0..5).for_each(|_| call());
    let after = resident_mib();
    assert!(after < before + 64, "five calls that fill 128 MiB each left {before} MiB at {after} MiB");
}
