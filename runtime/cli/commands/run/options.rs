//! What several subcommands take: steps, stages, a plugin with its configuration.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::Args;
use plumb_core::recipe::PluginUse;
use plumb_host::Inspection;
use plumb_train::archive::Selection;
use serde_json::{Map, Value};

use crate::commands::plugin::subject::Subject;
use crate::diagnostic::Diagnostic;
use crate::output::Output;

/// Which steps of a run.
#[derive(Clone, Debug, Args)]
pub struct SelectArgs {
    /// Only the steps of this stage
    #[arg(long, value_name = "NAME")]
    pub stage: Option<String>,
    /// Only these steps of the run, both ends included: `7`, `5..9`, `5..` or `..9`
    #[arg(long, value_name = "A..B", value_parser = steps)]
    pub steps: Option<RangeInclusive<u64>>,
}

impl SelectArgs {
    /// For the library.
    pub fn selection(&self) -> Selection {
        Selection { stage: self.stage.clone(), steps: self.steps.clone() }
    }
}

fn steps(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str, otherwise: u64| match text.trim() {
        "" => Ok(otherwise),
        text => text.parse::<u64>().map_err(|e| format!("`{text}`: {e}")),
    };
    let range = match text.split_once("..") {
        None => number(text, 0).map(|step| step..=step)?,
        Some((from, to)) => number(from, 0)?..=number(to.strip_prefix('=').unwrap_or(to), u64::MAX)?,
    };
    if range.is_empty() { Err("the range is empty".into()) } else { Ok(range) }
}

/// A plugin's configuration.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The plugin's configuration: a JSON object, or `@FILE` with one
    #[arg(long, value_name = "JSON|@FILE")]
    pub config: Option<String>,
    /// Sets one key of the configuration; a value is JSON, else text
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

impl ConfigArgs {
    /// The configuration, which `otherwise` is where nothing is given; `--set` changes it in any case.
    pub fn read(&self, otherwise: Map<String, Value>) -> Result<Map<String, Value>, Diagnostic> {
        let wrong = |reason: String| Diagnostic::usage("usage.config", format!("`--config` is not a JSON object: {reason}"));
        let mut config = match self.config.as_deref() {
            None => otherwise,
            Some(text) => {
                let file = text.strip_prefix('@').map(Path::new);
                let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Diagnostic::io("read", path, &e));
                let text = file.map_or_else(|| Ok(text.to_owned()), read)?;
                match serde_json::from_str(&text) {
                    Ok(Value::Object(config)) => config,
                    Ok(other) => return Err(wrong(format!("it is `{other}`"))),
                    Err(e) => return Err(wrong(e.to_string())),
                }
            }
        };
        for set in &self.sets {
            let (key, value) = set.split_once('=').ok_or_else(|| {
                Diagnostic::usage("usage.config", format!("`--set {set}`: there is no `=`")).hint("write `--set key=value`")
            })?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            config.insert(key.trim().to_owned(), value);
        }
        Ok(config)
    }
}

/// A plugin's file (a folder is built first) and what it is.
pub fn component(plugin: &str, output: Output) -> anyhow::Result<(PathBuf, Inspection)> {
    let subject = Subject::find(plugin, output)?;
    let inspection = subject.inspect()?;
    let file = std::path::absolute(&subject.file).map_err(|e| Diagnostic::io("find", &subject.file, &e))?;
    Ok((file, inspection))
}

/// A plugin in a file, for a factory.
pub fn plugin_use(file: &Path, name: Option<String>, config: Map<String, Value>) -> PluginUse {
    PluginUse {
        plugin: file.to_string_lossy().into_owned(),
        name,
        config,
        limits: plumb_core::recipe::LimitsUse::default(),
        grants: plumb_core::recipe::Grants::default(),
    }
}

/// `NAME=PLUGIN` in its parts.
pub fn named_plugin(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, plugin)) if !name.trim().is_empty() && !plugin.trim().is_empty() => Ok((name.trim().into(), plugin.trim().into())),
        _ => Err("write NAME=PLUGIN: the name that the plugin has in the run, and a .wasm file, a folder or the name of an installed plugin".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ranges_of_steps_include_both_ends() {
        assert_eq!(steps("7"), Ok(7..=7));
        assert_eq!(steps("5..9"), Ok(5..=9));
        assert_eq!(steps("5..=9"), Ok(5..=9));
        assert_eq!(steps("5.."), Ok(5..=u64::MAX));
        assert_eq!(steps("..9"), Ok(0..=9));
        assert_eq!(steps("9..5").unwrap_err(), "the range is empty");
        assert!(steps("a..5").unwrap_err().starts_with("`a`"));
    }

    #[test]
    fn configuration_is_given_read_from_a_file_or_taken_over_and_then_set() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, r#"{"a": 1}"#).unwrap();
        let read = |config: Option<String>, sets: &[&str]| {
            let args = ConfigArgs { config, sets: sets.iter().map(|set| (*set).to_owned()).collect() };
            args.read(json!({"old": true}).as_object().unwrap().clone()).map(Value::Object)
        };
        assert_eq!(read(None, &["a=[1]", "b=text", "old=false"]).unwrap(), json!({"old": false, "a": [1], "b": "text"}));
        assert_eq!(read(Some(format!("@{}", file.display())), &[]).unwrap(), json!({"a": 1}));
        assert_eq!(read(Some("{}".into()), &["a=1=2"]).unwrap(), json!({"a": "1=2"}));
        assert_eq!(read(Some("[]".into()), &[]).unwrap_err().code, "usage.config");
        assert!(read(None, &["a"]).unwrap_err().message.contains("no `=`"));
    }

    #[test]
    fn plugin_that_takes_a_place_names_it() {
        assert_eq!(named_plugin("exact=a/b=c.wasm"), Ok(("exact".into(), "a/b=c.wasm".into())));
        assert!(named_plugin("exact").unwrap_err().starts_with("write NAME=PLUGIN"));
        assert!(named_plugin("=x.wasm").is_err());
    }
}
