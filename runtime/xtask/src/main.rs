//! `cargo xtask`: everything a fresh machine needs, in Rust and without other tools than cargo.
//!
//! `quickstart` and `test` are the two commands of the README; the others are their parts. Each may be repeated and then
//! only does what is missing.

mod checks;
mod conformance;
mod model;
mod quickstart;
mod sdk_python;
mod templates;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use plumb_xtask::guest;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, builds, tests and shows plumb")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Sets up, builds, and aligns a tiny model on the spot: the main job in a few minutes
    Quickstart,
    /// Sets up and runs all tests; what CI runs
    Test {
        /// Leaves out formatting, lints and the quickstart: for the hour in which you run it often
        #[arg(long)]
        fast: bool,
    },
    /// Builds the plugins into target/plugins
    Plugins,
    /// Builds the misbehaving plugins that tests use into target/guests
    Guests,
    /// Builds the plugins of the conformance suite, in every language, into target/conformance
    Conformance,
    /// Starts a plugin of every kind in every language with `plumb plugin new`, and tests all of them: minutes
    Templates,
    /// A hundred thousand plugin calls with hostile rows, which must leave nothing behind: minutes
    Soak,
    /// Runs reference numbers of published methods through this project's formulas
    Golden {
        /// Folder with one JSON file a method, and the options of the runner (`--table`, `--quiet`)
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Tests the Python SDK and builds the components of it that tests use into target/guests
    Python,
    /// Fetches SmolLM2-135M-Instruct (98 MB) into target/models, for the parity tests and the recipes that name it
    Model,
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Quickstart => quickstart::run(),
        Task::Test { fast } => checks::run(fast),
        Task::Plugins => plugins(),
        Task::Guests => guests(),
        Task::Conformance => conformance::build(),
        Task::Templates => build_plumb().and_then(|plumb| templates::check(&plumb, false)),
        Task::Soak => soak(),
        Task::Golden { arguments } => return golden(&arguments),
        Task::Python => sdk_python::run(),
        Task::Model => model::fetch().map(drop),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate lies two folders below the root").to_path_buf()
}

/// Where cargo puts things: `CARGO_TARGET_DIR`, else `target` in the root.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Says what is done, on stderr.
fn say(what: &str) {
    eprintln!("\u{25b8} {what}");
}

fn plugins() -> Result<()> {
    say("plugins: Rust to WebAssembly components, in target/plugins");
    guest::build_workspace(&root().join("plugins"), &target().join("plugins")).context("the plugins did not build").map(drop)
}

fn guests() -> Result<()> {
    say("guests: misbehaving plugins for the tests, in target/guests");
    guest::build_workspace(&root().join("tests/guests"), &target().join("guests")).context("the guests did not build").map(drop)
}

fn soak() -> Result<()> {
    guests()?;
    say("soak: a hundred thousand plugin calls, one row in twenty hostile");
    let test = ["test", "--release", "--package", "plumb-host", "--test", "hostile", "--", "--ignored", "--nocapture", "soak"];
    cargo(&root(), &test)
}

/// Builds the runner of reference numbers and hands over to it: its exit code says whether all passed.
fn golden(arguments: &[String]) -> ExitCode {
    // The whole workspace is selected so that its dependencies are those of every other build.
    let built = cargo(&root(), &["build", "--release", "--quiet", "--workspace", "--bin", "plumb-golden"]);
    let status = built.and_then(|()| {
        let runner = target().join("release/plumb-golden");
        Command::new(&runner).args(arguments).status().with_context(|| format!("cannot start {}", runner.display()))
    });
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs cargo in `folder` with the profile that all of this repository uses.
fn cargo(folder: &Path, arguments: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(arguments).current_dir(folder).status().context("cannot start cargo")?;
    ensure!(status.success(), "`cargo {}` failed in {}", arguments.join(" "), folder.display());
    Ok(())
}

/// Builds the `plumb` binary and returns its path.
fn build_plumb() -> Result<PathBuf> {
    say("plumb: the runtime and its command line (the first build compiles wasmtime and candle: about 8 minutes on 2 cores)");
    cargo(&root(), &["build", "--release", "--package", "plumb", "--bin", "plumb"])?;
    Ok(target().join("release/plumb"))
}
