//! `plumb completions`: a script that completes commands and flags in a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::ExitStatus;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb completions bash > ~/.local/share/bash-completion/completions/plumb
  plumb completions zsh > ~/.zfunc/_plumb")]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

/// Runs the command.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitStatus> {
    clap_complete::generate(args.shell, &mut Cli::command(), "plumb", &mut std::io::stdout());
    Ok(ExitStatus::Success)
}
