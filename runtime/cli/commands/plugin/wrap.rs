//! `plumb plugin wrap`: a Python reward function of another trainer to a plugin.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use plumb_xtask::python;
use serde_json::json;

use super::language;
use super::new::is_plugin_name;
use crate::diagnostic::Diagnostic;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Make a plugin of a Python reward function, as TRL and verl take them.
#[derive(Debug, Args)]
#[command(
    after_help = "The function's parameters are the columns it gets. None is an abstention, an exception a fault of its row. The function runs as
it is, in a sandbox: without files, network or native packages.

Examples:
  plumb plugin wrap rewards.py:accuracy --dependency math-verify
  plumb plugin wrap score.py:compute_score --column ground_truth=answer --out reward-mine.wasm"
)]
pub struct WrapArgs {
    /// The file and the function: FILE.py:FUNCTION
    function: String,
    /// The component's file [default: NAME.wasm]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The plugin's name [default: `reward-` and the function's]
    #[arg(long)]
    name: Option<String>,
    /// How the function is called [default: read off its parameters]
    #[arg(long)]
    style: Option<Style>,
    /// A package of pure Python that it needs; may be given several times
    #[arg(long = "dependency", value_name = "PACKAGE")]
    dependencies: Vec<String>,
    /// The column of a parameter that is called otherwise; may be given several times
    #[arg(long = "column", value_name = "PARAMETER=COLUMN")]
    columns: Vec<String>,
    /// A module that it imports late by a name that its code does not show; may be given several times
    #[arg(long = "import", value_name = "MODULE")]
    imports: Vec<String>,
    /// JSONL file of cases to call it with while it is built, for what they import and what stays behind in caches
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
}

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Style {
    /// `f(prompts, completions, **columns) -> list[float | None]`, once per batch
    Trl,
    /// `f(data_source, solution_str, ground_truth, extra_info) -> float | dict`, once per row
    Verl,
}

/// Runs the command.
pub fn run(args: &WrapArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let wrap = request(args)?;
    let file = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.wasm", wrap.name)));
    output.note(format!("wrapping `{}` as `{}`", wrap.function, wrap.name));
    let built = language::with_python(output, |setup| python::wrap(&wrap, &file, setup));
    built.map_err(|error| language::build_failure(&wrap.name, &error))?;
    if output.json {
        output.data(json!({"type": "plugin", "v": 1, "data": {"file": file}}).to_string())?;
    } else {
        output.data(file.display().to_string())?;
    }
    Ok(ExitStatus::Success)
}

fn request(args: &WrapArgs) -> Result<python::Wrap, Diagnostic> {
    let usage = |message: String| Diagnostic::usage("usage", message);
    let (file, function) = args.function.rsplit_once(':').filter(|(file, _)| !file.is_empty()).ok_or_else(|| {
        usage(format!("`{}` does not name a function", args.function))
            .hint("give the file and the function: `rewards.py:accuracy`")
    })?;
    let name = args.name.clone().unwrap_or_else(|| format!("reward-{}", function.to_lowercase().replace('_', "-")));
    if !is_plugin_name(&name) {
        return Err(Diagnostic::usage("plugin.name", format!("`{name}` is no name for a plugin"))
            .hint("give one with `--name`: lower-case letters, digits and `-`, beginning with a letter"));
    }
    let column = |text: &String| {
        let (parameter, column) = text.split_once('=').ok_or_else(|| {
            usage(format!("`--column {text}` has no `=`"))
                .hint("give the parameter and its column: `--column ground_truth=answer`")
        })?;
        Ok((parameter.to_owned(), column.to_owned()))
    };
    Ok(python::Wrap {
        file: file.into(),
        function: function.to_owned(),
        name,
        style: args.style.and_then(|style| style.to_possible_value()).map(|value| value.get_name().to_owned()),
        columns: args.columns.iter().map(column).collect::<Result<_, Diagnostic>>()?,
        dependencies: args.dependencies.clone(),
        imports: args.imports.clone(),
        cases: args.cases.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(function: &str, columns: &[&str]) -> WrapArgs {
        WrapArgs {
            function: function.to_owned(),
            out: None,
            name: None,
            style: Some(Style::Verl),
            dependencies: Vec::new(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            imports: Vec::new(),
            cases: None,
        }
    }

    #[test]
    fn request_names_the_plugin_after_the_function() {
        let request = request(&args("dir/score.py:compute_score", &["ground_truth=answer"])).unwrap();
        assert_eq!((request.name.as_str(), request.style.as_deref()), ("reward-compute-score", Some("verl")));
        assert_eq!(request.file, PathBuf::from("dir/score.py"));
        assert_eq!(request.columns, [("ground_truth".to_owned(), "answer".to_owned())]);
    }

    #[test]
    fn request_without_a_function_or_a_column_says_how_to_give_it() {
        assert!(request(&args("rewards.py", &[])).unwrap_err().hint.unwrap().contains("rewards.py:accuracy"));
        assert!(request(&args("rewards.py:f", &["answer"])).unwrap_err().hint.unwrap().contains("ground_truth=answer"));
    }
}
