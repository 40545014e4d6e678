//! `plumb plugin`: everything a plugin's author does, from a new folder to a measured component.

mod bench;
mod build;
mod cases;
mod check;
mod componentize;
mod fuzz;
mod inspect;
mod language;
mod lock;
mod new;
mod oci;
mod sign;
mod source;
pub(super) mod subject;
mod test;
mod verdicts;
mod watch;
mod wrap;

use clap::Subcommand;

use crate::args::GlobalArgs;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Write, build, check and measure plugins.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  plumb plugin new reward-brevity && plumb plugin test reward-brevity
  plumb plugin inspect reward-exact-match --json")]
pub enum PluginCommand {
    /// Start a plugin: a folder that builds at once, with a test and example cases
    New(new::NewArgs),
    /// Build a plugin's folder into a component
    Build(build::BuildArgs),
    /// Make a component of a core module, with a plugin.toml inside
    Componentize(componentize::ComponentizeArgs),
    /// Make a plugin of a Python reward function, as TRL and verl take them
    Wrap(wrap::WrapArgs),
    /// Load a plugin and report what is wrong with it
    Check(check::CheckArgs),
    /// Print what a plugin is, without running it
    Inspect(inspect::InspectArgs),
    /// Run a plugin on cases with expected answers
    Test(test::TestArgs),
    /// Measure time and fuel per row
    Bench(bench::BenchArgs),
    /// Attack a reward with completions that only look right
    Fuzz(fuzz::FuzzArgs),
    /// Make a key to sign plugins with
    Keygen(sign::KeygenArgs),
    /// Sign a plugin
    Sign(sign::SignArgs),
    /// Check a plugin's signature
    Verify(sign::VerifyArgs),
    /// Write which plugins a recipe means, byte for byte
    Lock(lock::LockArgs),
    /// Write a plugin as an OCI image layout
    Export(oci::ExportArgs),
    /// Read a plugin from an OCI image layout
    Import(oci::ImportArgs),
}

/// Runs the command.
pub fn run(command: &PluginCommand, global: &GlobalArgs, output: Output) -> anyhow::Result<ExitStatus> {
    match command {
        PluginCommand::New(args) => new::run(args, output),
        PluginCommand::Build(args) => build::run(args, output),
        PluginCommand::Componentize(args) => componentize::run(args, output),
        PluginCommand::Wrap(args) => wrap::run(args, output),
        PluginCommand::Check(args) => check::run(args, output),
        PluginCommand::Inspect(args) => inspect::run(args, output),
        PluginCommand::Test(args) => test::run(args, global, output),
        PluginCommand::Bench(args) => bench::run(args, output),
        PluginCommand::Fuzz(args) => fuzz::run(args, output),
        PluginCommand::Keygen(args) => sign::keygen(args, output),
        PluginCommand::Sign(args) => sign::sign(args, output),
        PluginCommand::Verify(args) => sign::verify(args, output),
        PluginCommand::Lock(args) => lock::run(args, output),
        PluginCommand::Export(args) => oci::export(args, output),
        PluginCommand::Import(args) => oci::import(args, output),
    }
}
