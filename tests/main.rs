//! Tests of the program as its users meet it: the real binary, real files, plugins as components.
//!
//! They need the plugins in `target/plugins` and the guests in `target/guests`, which `cargo xtask test` builds first.

mod support; // temporary folders, a tiny model and recipe, running the binary

mod bench; // what `bench` measures, by its shape: no test waits for a clock
mod cli_errors; // every mistake has a code, a place and a next step
mod command_contracts; // what `score`, `rollout`, `logprobs`, `config` and `model` print
mod determinism; // threads, SIGKILL and full disks change nothing
mod docs; // the book's code and links are there
mod fuzz_corpora; // what the fuzz targets have seen, replayed
mod hostile_training; // plugins that attack a run
mod judge; // verdicts about files, and what a plugin may ask on the command line
mod replay; // a run on record: replayed, rescored, exported
mod run_control; // changing the plugins of a run under way
mod serve; // the protocols of other frameworks, spoken over TCP
mod swap; // plugins of a running run are replaced
mod train_loop; // a whole run: what it leaves behind
mod trust; // signatures, locks and packages of plugins
