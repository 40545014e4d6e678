//! `plumb run export`: a run's completions and preferences for other programs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use plumb_train::archive::Archive;
use plumb_train::export;
use serde_json::json;

use super::options::SelectArgs;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::{Output, Sink, count};

/// Write a run's completions or preference pairs for other programs.
///
/// `--format trl` has the columns that TRL's trainers read: `prompt`, `completion` and `reward`, or `prompt`, `chosen` and
/// `rejected`. `--format jsonl` has all that is known of each row. Prompts are the texts that the model read. Completions without a
/// raw reward are in no file of format `trl`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb run export runs/quickstart --what pairs --margin 0.5 --out pairs.jsonl
  plumb run export runs/quickstart --format jsonl --what completions --steps 50..60")]
pub struct ExportArgs {
    /// The run's folder
    pub run: PathBuf,
    /// Which columns
    #[arg(long, value_enum, default_value = "trl")]
    pub format: Format,
    /// Which rows
    #[arg(long, value_enum)]
    pub what: What,
    /// By how much the chosen completion must be better than the rejected one
    #[arg(long, default_value_t = 0.0)]
    pub margin: f64,
    /// Which steps
    #[command(flatten)]
    pub select: SelectArgs,
    /// Where to write; stdout when absent
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Columns of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// What TRL's trainers read
    Trl,
    /// All that is known
    Jsonl,
}

/// Which rows.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum What {
    /// Every completion with its rewards
    Completions,
    /// The pairs that filters made; where there are none, each prompt's best and worst completion by raw reward
    Pairs,
}

/// Runs the command.
pub fn run(args: &ExportArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let ending = args.out.as_deref().and_then(Path::extension).and_then(|ending| ending.to_str()).unwrap_or_default();
    if ["csv", "tsv", "parquet"].contains(&ending) {
        let error = Diagnostic::usage("usage", format!("the rows are JSON lines, and the file would be called .{ending}"));
        return Err(error.hint("name it .jsonl").into());
    }
    let archive = Archive::open(&args.run)?;
    let mut rows = 0;
    let (selection, trl) = (args.select.selection(), args.format == Format::Trl);
    let mut sink = Sink::open(args.out.as_deref())?;
    match args.what {
        What::Completions => {
            for step in export::completions(&archive, &selection)? {
                for row in step?.into_iter().filter(|row| !trl || row.raw.is_some()) {
                    rows += 1;
                    sink.line(&if trl {
                        json!({ "prompt": row.prompt, "completion": row.completion, "reward": row.raw }).to_string()
                    } else {
                        serde_json::to_string(&row)?
                    })?;
                }
            }
        }
        What::Pairs => {
            for step in export::pairs(&archive, &selection, args.margin)? {
                for pair in step? {
                    rows += 1;
                    sink.line(&if trl {
                        json!({ "prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected }).to_string()
                    } else {
                        serde_json::to_string(&pair)?
                    })?;
                }
            }
        }
    }
    sink.finish()?;
    if let Some(out) = &args.out {
        output.note(format!("{} in `{}`", count(rows, "row"), out.display()));
    }
    Ok(ExitStatus::Success)
}
