//! `cargo xtask test`: all of CI, on any machine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;
use plumb_xtask::c;

use crate::{build_plumb, cargo, conformance, guests, model, plugins, quickstart, root, say, sdk_python, target, templates};

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
    conformance::build()?;
    conformance::sdk_tests()?;
    sdk_python::run()?;
    model::fetch()?;
    let plumb = build_plumb()?;
    say("tests: runtime, SDK, command line");
    cargo(&root, &["test", "--release", "--workspace"])?;
    cases(&plumb)?;
    templates::check(&plumb, fast)?;
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

/// Runs the cases of every plugin that ships, and of the example in C where there is a compiler for it.
fn cases(plumb: &Path) -> Result<()> {
    say("tests: cases of the plugins, in the sandbox");
    let mut folders: Vec<_> = fs::read_dir(root().join("plugins"))?.map(|item| Ok(item?.path())).collect::<Result<_>>()?;
    folders.retain(|folder| folder.join("plugin.toml").is_file() && folder.join("cases.jsonl").is_file());
    folders.sort();
    for folder in &folders {
        let name = folder.file_name().expect("an entry of a folder has a name");
        let component = target().join("plugins").join(name).with_extension("wasm");
        plugin_test(plumb, &[&component, Path::new("--cases"), &folder.join("cases.jsonl")])?;
    }
    match c::Compiler::find() {
        Ok(_) => plugin_test(plumb, &[&root().join("sdk/c/examples/reward-exact-match")]),
        Err(missing) => {
            say(&format!("SKIPPED: the plugin in C, since {missing}"));
            Ok(())
        }
    }
}

/// Runs `plumb plugin test`.
pub fn plugin_test(plumb: &Path, arguments: &[&Path]) -> Result<()> {
    let status = Command::new(plumb).args(["plugin", "test", "--quiet"]).args(arguments).stdout(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "`plumb plugin test {}` failed: run it to see why", arguments[0].display());
    Ok(())
}
