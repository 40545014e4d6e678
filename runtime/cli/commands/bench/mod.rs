//! `plumb bench`: how fast this machine does a recipe's work, held against what the machine can do at most.
//!
//! Each command does a fixed amount of work some times over, after a round that warms up, and reports medians with the lowest and highest
//! round. Reading order: [`model`] (what is measured on), [`cost`] (how much work that is), [`ceilings`] (what the machine can do),
//! [`report`] (what is printed), then a file per command.

mod ceilings;
mod cost;
mod decode;
mod grpo_step;
mod model;
mod plugins;
mod prefill;
mod report;
mod reward;
mod train_step;

use clap::{Args, Subcommand};

use crate::commands::precision::MatmulPrecision;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Measure rollouts, training and rewards against what this machine can do at most.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Sampling completions: tokens per second by batch
    Decode(decode::DecodeArgs),
    /// Reading prompts: tokens per second
    Prefill(prefill::PrefillArgs),
    /// A training step over given tokens: forward, backward, optimizer
    TrainStep(train_step::TrainStepArgs),
    /// Reward plugins: rows per second
    Reward(reward::RewardArgs),
    /// A whole GRPO step as `plumb train` does it, and where its time goes
    GrpoStep(grpo_step::GrpoStepArgs),
}

/// Options of all these commands.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Rounds that count; one more warms up
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub rounds: usize,
    /// Array that the machine's read bandwidth is measured over [default: 4 times the last-level cache, at most 1024]
    #[arg(long, value_name = "MIB")]
    pub ceiling_mib: Option<usize>,
    /// What matrix products are made of
    #[arg(long, value_enum, default_value_t, value_name = "PRECISION")]
    pub precision: MatmulPrecision,
}

impl CommonArgs {
    /// Refuses numbers that measure nothing.
    fn check(&self) -> Result<(), Diagnostic> {
        at_least("--rounds", self.rounds, 1)?;
        at_least("--ceiling-mib", self.ceiling_mib.unwrap_or(1), 1)
    }
}

/// Refuses a number of an option that is too small.
fn at_least(option: &str, value: usize, least: usize) -> Result<(), Diagnostic> {
    if value >= least {
        return Ok(());
    }
    Err(Diagnostic::usage("usage", format!("`{option}` must be at least {least}, not {value}"))
        .hint(format!("give `{option} {least}` or more")))
}

/// Runs the command.
pub fn run(command: &BenchCommand, output: Output) -> anyhow::Result<ExitStatus> {
    let report = match command {
        BenchCommand::Decode(args) => decode::run(args)?,
        BenchCommand::Prefill(args) => prefill::run(args)?,
        BenchCommand::TrainStep(args) => train_step::run(args)?,
        BenchCommand::Reward(args) => reward::run(args, output)?,
        BenchCommand::GrpoStep(args) => grpo_step::run(args, output)?,
    };
    output.data(if output.json { report.json() } else { report.text() })?;
    Ok(ExitStatus::Success)
}
