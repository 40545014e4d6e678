//! The plugins of the conformance suite: one per kind and language (see `tests/conformance`).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use plumb_xtask::{guest, javascript};

use crate::{root, say, target};

/// The kinds; each language has a folder for every one.
pub const KINDS: [&str; 5] = ["reward", "shaper", "filter", "judge", "tool"];

/// Builds all of them. What did not change is left alone.
pub fn build() -> Result<()> {
    say("conformance: one plugin per kind in Rust and JavaScript (Python's are built with its SDK), in target/conformance");
    let (sources, out) = (root().join("tests/conformance"), target().join("conformance"));
    guest::build_workspace(&sources.join("rust"), &out.join("rust")).context("the Rust guests did not build")?;
    let (sdk, cache) = (javascript::sdk_in(&root()), target().join("tools"));
    let setup = javascript::Setup { sdk: Some(&sdk), cache: &cache, say: &|what| say(what) };
    for kind in KINDS {
        let file = out.join("javascript").join(format!("conformance-{kind}.wasm"));
        javascript::build_folder(&sources.join("javascript").join(kind), &file, &setup)
            .map_err(hinted)
            .with_context(|| format!("the {kind} in JavaScript did not build"))?;
    }
    Ok(())
}

/// Tests of the SDKs in languages that cargo does not run.
pub fn sdk_tests() -> Result<()> {
    say("tests: JavaScript SDK");
    run(Command::new("node").args(["--test", "--test-reporter=dot", "test/"]).current_dir(javascript::sdk_in(&root())))
}

/// Puts what an error advises behind what it says.
fn hinted(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<javascript::Error>().map(javascript::Error::hint) {
        Some(hint) => error.context(hint),
        None => error,
    }
}

fn run(command: &mut Command) -> Result<()> {
    let name = Path::new(command.get_program()).display().to_string();
    let status = command.status().with_context(|| format!("cannot start `{name}`"))?;
    ensure!(status.success(), "`{name}` failed ({status})");
    Ok(())
}
