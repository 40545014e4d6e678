//! The command line. Libraries below return typed errors and know nothing of terminals; here are words, colors and exit codes.
//!
//! Reading order: [`args`] (what can be typed), [`commands`] (a file for each), [`recipe_file`] with [`schema`] and [`validate`]
//! (from a TOML file to a checked recipe), [`plugin_path`] (from a name to a file), [`trust`] and [`lock`] (to a file that may be
//! used) and [`plugins`] (to a sandboxed component) with [`services`] (what it may ask on the command line) and [`plugin_log`] (what
//! it says), [`rows`] and [`columns`] (what goes in), [`diagnostic`], [`output`] and [`exit`] (what comes out). [`oci`] packs plugins for registries.

pub mod args;
pub mod columns;
pub mod commands;
pub mod diagnostic;
pub mod exit;
pub mod lock;
pub mod oci;
pub mod output;
pub mod plugin_log;
pub mod plugin_path;
pub mod plugins;
pub mod recipe_file;
pub mod rows;
pub mod schema;
pub mod services;
pub mod system;
pub mod trust;
pub mod validate;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use diagnostic::Diagnostic;
use exit::ExitStatus;
use output::Output;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = Output::new(cli.global.json, cli.global.quiet, cli.global.no_progress);
    let result = cli.global.start_threads().map_err(anyhow::Error::from).and_then(|()| commands::run(cli, output));
    match result {
        Ok(status) => status.into(),
        // `plumb score ... | head` ends when head does, and that is what the user wanted.
        Err(error) if diagnostic::is_broken_pipe(&error) => ExitStatus::Success.into(),
        Err(error) => {
            let diagnostic = Diagnostic::from(error);
            diagnostic.emit(output);
            diagnostic.exit.into()
        }
    }
}

/// Help and version go to stdout; a mistyped command line is an error, as JSON if the user asked for that.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nobody is left to tell when stdout is closed.
        let _ = error.print();
        return ExitStatus::Success.into();
    }
    if std::env::args_os().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let first: Vec<&str> =
            text.trim_start_matches("error: ").lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        Diagnostic::usage("usage", first.join(" ")).hint("see `plumb --help`").emit(Output::new(true, false, true));
    } else {
        let _ = error.print();
    }
    ExitStatus::Usage.into()
}
