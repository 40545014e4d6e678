//! What can be typed. Each command's own arguments stand beside its code in [`crate::commands`].

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::diagnostic::Diagnostic;

/// Align language models with rewards, shapers and filters that are sandboxed WebAssembly components.
#[derive(Debug, Parser)]
#[command(
    name = "plumb",
    version,
    after_help = "Examples:
  plumb train recipes/quickstart.toml
  plumb score --plugin reward-exact-match --input answers.jsonl"
)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all commands.
#[derive(Clone, Debug, Args)]
pub struct GlobalArgs {
    /// Print JSON Lines, errors included
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Show no progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Threads to compute with; results do not depend on it [default: all cores]
    #[arg(long, global = true, value_name = "N", env = "PLUMB_THREADS")]
    pub threads: Option<usize>,
}

impl GlobalArgs {
    /// Sets the size of the thread pool that all computations share.
    pub fn start_threads(&self) -> Result<(), Diagnostic> {
        let threads = self.threads.unwrap_or(0);
        if self.threads == Some(0) {
            return Err(Diagnostic::usage("usage", "`--threads` must be at least 1"));
        }
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|e| Diagnostic::resource("threads", "cannot start threads").because(e.to_string()))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a recipe
    Train(commands::train::TrainArgs),
    /// Sample completions
    Rollout(commands::rollout::RolloutArgs),
    /// Score completions with a reward plugin
    Score(commands::score::ScoreArgs),
    /// Let a judge plugin decide about completions and preference pairs
    Judge(commands::judge::JudgeArgs),
    /// Serve reward plugins over HTTP, in the protocols of other frameworks
    Serve(commands::serve::ServeArgs),
    /// Compute log-probabilities of completions
    Logprobs(commands::logprobs::LogprobsArgs),
    /// Look at models and convert them
    #[command(subcommand)]
    Model(commands::model::ModelCommand),
    /// Show recipes and what they may contain
    #[command(subcommand)]
    Config(commands::config::ConfigCommand),
    /// Write, build, check and measure plugins
    #[command(subcommand)]
    Plugin(commands::plugin::PluginCommand),
    /// Look at runs
    #[command(subcommand)]
    Run(commands::run::RunCommand),
    /// Measure rollouts, training and rewards on this machine
    #[command(subcommand)]
    Bench(commands::bench::BenchCommand),
    /// Report what this machine and this build offer
    Doctor(commands::doctor::DoctorArgs),
    /// Print a completion script for a shell
    Completions(commands::completions::CompletionsArgs),
}
