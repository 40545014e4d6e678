//! `cargo xtask test`: all of CI, on any machine.

use anyhow::Result;

use crate::{build_plumb, cargo, guests, model, plugins, quickstart, root, say};

/// Sets up and runs every test; `fast` leaves out formatting, lints and the quickstart.
pub fn run(fast: bool) -> Result<()> {
    let (root, plugin_root) = (root(), root().join("plugins"));
    if !fast {
        say("formatting");
        cargo(&root, &["fmt", "--all", "--check"])?;
        cargo(&plugin_root, &["fmt", "--all", "--check"])?;
    }
    plugins()?;
    guests()?;
    model::fetch()?;
    build_plumb()?;
    say("tests: runtime, SDK, command line");
    cargo(&root, &["test", "--release", "--workspace"])?;
    say("tests: plugins, natively");
    cargo(&plugin_root, &["test", "--release", "--workspace", "--target-dir", "../target"])?;
    if !fast {
        say("lints");
        cargo(&root, &["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
        cargo(
            &plugin_root,
            &["clippy", "--release", "--workspace", "--all-targets", "--target-dir", "../target", "--", "--deny", "warnings"],
        )?;
        // Twice: the same seed must give the same accuracy to the digit.
        let outcomes = (quickstart::train()?, quickstart::train()?);
        anyhow::ensure!(outcomes.0 == outcomes.1, "the quickstart gave {:?}, then {:?}, with one seed", outcomes.0, outcomes.1);
        say(&format!("quickstart: {:?}", outcomes.0));
    }
    say("all tests passed");
    Ok(())
}
