//! `cargo xtask golden DIR`: runs reference numbers through this project's formulas.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use plumb_golden::{Counts, Outcome, by_method, run};

#[derive(Parser)]
#[command(name = "cargo xtask golden", about = "Runs reference numbers of published methods through this project's formulas")]
struct Args {
    /// Folder with one JSON file a method
    folder: PathBuf,
    /// Prints a table by method
    #[arg(long)]
    table: bool,
    /// Runs the cases, and says nothing of missing ones but their number
    #[arg(long)]
    quiet: bool,
}

#[expect(clippy::print_stdout, reason = "its output is what it is for")]
fn main() -> ExitCode {
    let args = Args::parse();
    // The message of an operation that panics is part of its line.
    std::panic::set_hook(Box::new(|_| {}));
    let lines = match run(&args.folder) {
        Ok(lines) => lines,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(2);
        }
    };
    for line in &lines {
        let (method, operation, index) = (&line.method, &line.operation, line.index);
        match &line.outcome {
            Outcome::Passed => {}
            Outcome::Failed(why) => println!("FAILED  {method} {operation} (case {index}): {why}"),
            Outcome::Missing if args.quiet => {}
            Outcome::Missing => println!("missing {method} {operation} (case {index})"),
        }
    }
    if args.table {
        println!("| Method | Passed | Failed | Missing |\n|---|---:|---:|---:|");
        for (method, Counts { passed, failed, missing }) in by_method(&lines) {
            println!("| {method} | {passed} | {failed} | {missing} |");
        }
    }
    let counts = Counts::of(&lines);
    println!("{counts}");
    if counts.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
