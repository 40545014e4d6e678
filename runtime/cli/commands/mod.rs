//! One file per command: its arguments, and what it does.

pub mod bench;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod judge;
pub mod logprobs;
pub mod model;
pub mod plugin;
pub mod precision;
pub mod rollout;
pub mod run;
pub mod score;
pub mod serve;
pub mod train;

use crate::args::{Cli, Command};
use crate::exit::ExitStatus;
use crate::output::Output;

/// Runs the command that was typed.
pub fn run(cli: Cli, output: Output) -> anyhow::Result<ExitStatus> {
    match cli.command {
        Command::Train(args) => train::run(&args, &cli.global, output),
        Command::Rollout(args) => rollout::run(&args, output),
        Command::Score(args) => score::run(&args, output),
        Command::Judge(args) => judge::run(&args, output),
        Command::Serve(args) => serve::run(&args, output),
        Command::Logprobs(args) => logprobs::run(&args),
        Command::Model(command) => model::run(&command, output),
        Command::Config(command) => config::run(&command, output),
        Command::Plugin(command) => plugin::run(&command, &cli.global, output),
        Command::Run(command) => run::run(&command, output),
        Command::Bench(command) => bench::run(&command, output),
        Command::Doctor(_) => doctor::run(output),
        Command::Completions(args) => completions::run(&args),
    }
}
