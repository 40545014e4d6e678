//! `plumb plugin check`: loads a plugin and reports what is wrong with it.

use clap::Args;
use plumb_core::PluginError;
use plumb_host::LoadedPlugin;
use serde_json::{Map, Value, json};

use super::subject::{self, Subject};
use crate::diagnostic::raise;
use crate::exit::ExitStatus;
use crate::output::Output;

/// Load a plugin, print which configuration it takes, and report what is wrong with it, and how to mend it. Exits with 1 when
/// something is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  plumb plugin check plugins/reward-format --config '{\"json\": {}}'
  plumb plugin check mine.wasm --json")]
pub struct CheckArgs {
    /// A plugin's crate, a .wasm file, or the name of an installed plugin
    #[arg(default_value = ".")]
    plugin: String,
    /// Configuration to load it with
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,
}

/// Something that is wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct Problem {
    code: String,
    message: String,
    fix: String,
}

impl Problem {
    fn new(code: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Problem { code: code.to_owned(), message: message.into(), fix: fix.into() }
    }
}

/// Runs the command.
pub fn run(args: &CheckArgs, output: Output) -> anyhow::Result<ExitStatus> {
    let config = subject::config(&args.config)?;
    let subject = Subject::find(&args.plugin, output)?;
    let (host, sink) = subject::host(1)?;
    let loaded = subject.load(&host, &config);
    let problems = loaded.as_ref().map_or_else(|error| vec![refused(error)], descriptions);
    let schema = match &loaded {
        Ok(plugin) => &plugin.descriptor().config_schema,
        Err(plumb_host::Error::Config { schema, .. }) => schema,
        Err(_) => "",
    };
    for line in sink.take_lines() {
        output.note(format!("log ({:?}): {}", line.level, line.message));
    }
    for problem in &problems {
        output.data(if output.json {
            json!({"type": "problem", "v": 1, "data": problem}).to_string()
        } else {
            format!("problem: {}\n    fix: {}", problem.message, problem.fix)
        })?;
    }
    if let Ok(Value::Object(schema)) = serde_json::from_str(schema) {
        output.data(if output.json {
            json!({"type": "configuration", "v": 1, "data": schema}).to_string()
        } else {
            configuration(&schema)
        })?;
    }
    if let (Ok(plugin), true, false) = (&loaded, problems.is_empty(), output.json) {
        let needs = plugin.descriptor().needs_columns.join(", ");
        output.data(format!("columns it needs: {}", if needs.is_empty() { "none" } else { &needs }))?;
        output.data(format!("`{}` loads as a {} plugin; nothing is wrong with it", subject.label(), plugin.id().kind))?;
    }
    Ok(if problems.is_empty() { ExitStatus::Success } else { ExitStatus::No })
}

/// The keys of a configuration, each with its part of the JSON schema.
fn configuration(schema: &Map<String, Value>) -> String {
    let keys = schema.get("properties").and_then(Value::as_object).filter(|keys| !keys.is_empty());
    let Some(keys) = keys else { return format!("configuration: {}", Value::Object(schema.clone())) };
    let lines = keys.iter().map(|(key, part)| format!("  {key:<20} {part}"));
    ["configuration, by key".to_owned()].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

/// Why the host does not load it.
fn refused(error: &plumb_host::Error) -> Problem {
    use plumb_core::PluginFault;
    use plumb_host::Error;
    let too_small;
    let fix = match error {
        Error::Config { .. } => "give a configuration that it accepts: `--config JSON`; its keys are below",
        Error::NotAComponent { .. } | Error::NotAPlugin { .. } => {
            "build it with `plumb plugin build`, from a folder that `plumb plugin new` made or one like it"
        }
        Error::Malformed { .. } => "build it again, or fetch it again: the file is cut short or damaged",
        Error::WitVersion { .. } => "build it again with the SDK of this host's version",
        Error::UnknownImport { fix, .. } => fix,
        Error::NotGranted { fix, .. } => fix,
        Error::Manifest { .. } => "mend `plugin.toml` and build it again",
        Error::Limit { .. } => "mend `[limits]` in `plugin.toml` and build it again",
        Error::Stateful { .. } => "keep what must last in `kv`, and export it without `state`",
        Error::Schema { .. } => "mend `config_schema` of its descriptor",
        Error::Start { source: PluginError { fault, plugin, .. }, .. } => {
            let limit = match fault {
                PluginFault::OutOfFuel { .. } => Some("fuel"),
                PluginFault::OutOfMemory { .. } => Some("memory_mib"),
                PluginFault::DeadlineMissed { .. } => Some("deadline_ms"),
                _ => None,
            };
            too_small = limit.map(|limit| raise(limit, &plugin.name));
            too_small.as_deref().unwrap_or("see the log above for its last words, and run its unit tests")
        }
        _ => "see the message",
    };
    let mut message = error.to_string();
    // Some say the fix themselves; it is told once.
    if let Some(rest) = message.strip_suffix(fix) {
        message.truncate(rest.trim_end_matches([';', ':', ' ']).len());
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Problem { code: error.code(), message, fix: fix.to_owned() }
}

/// Contradictions between what the plugin says and what its file says.
fn descriptions(plugin: &LoadedPlugin) -> Vec<Problem> {
    let (said, mut problems) = (plugin.descriptor(), Vec::new());
    match plugin.manifest() {
        None => problems.push(Problem::new(
            "plugin.no_manifest",
            "the file carries no plugin.toml",
            "build it with `plumb plugin build`, which embeds it",
        )),
        Some(manifest) => {
            for (what, told, stands) in [("name", &said.name, &manifest.name), ("version", &said.version, &manifest.version)] {
                if told != stands {
                    problems.push(Problem::new(
                        "plugin.contradiction",
                        format!("`describe` says {what} `{told}`, plugin.toml says `{stands}`"),
                        format!("let both say the same {what}; `descriptor!()` takes it from Cargo.toml"),
                    ));
                }
            }
        }
    }
    match serde_json::from_str::<serde_json::Value>(&said.config_schema) {
        Ok(serde_json::Value::Object(_)) => {}
        Ok(_) => problems.push(schema("it is no object")),
        Err(error) => problems.push(schema(&error.to_string())),
    }
    if plugin.inspection().stateful && said.state_version == 0 {
        problems.push(Problem::new(
            "plugin.state_version",
            "it exports `state`, but its state version is 0",
            "set `.state_version(1)` in its descriptor, and raise it when the saved bytes change",
        ));
    }
    problems
}

fn schema(reason: &str) -> Problem {
    Problem::new(
        "plugin.schema",
        format!("`config-schema` is no JSON schema: {reason}"),
        "give a JSON object, `{\"type\": \"object\"}` at least",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_errors_point_to_the_option() {
        let error = subject::config("[1]").unwrap_err();
        assert_eq!(error.message, "`--config` must be a JSON object");
        let (plugin, message) = ("p".to_owned(), "no key".to_owned());
        let problem = refused(&plumb_host::Error::Config { plugin, code: "bad-config".into(), message, schema: String::new() });
        assert_eq!(problem.code, "plugin.config");
        assert!(problem.fix.contains("--config"));
        let fix = "do without it";
        let problem = refused(&plumb_host::Error::UnknownImport { plugin: "p".into(), import: "i".into(), meaning: "time", fix });
        assert_eq!((problem.message.as_str(), problem.fix.as_str()), ("`p` imports `i`, which plugins do not get: time", fix));
    }
}
