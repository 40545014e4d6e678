//! The plugin that a command is about: an installed one, a file, or a crate that is built first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_core::recipe::{BuiltinTool, Grants, ToolUse};
use plumb_host::{Collector, Host, HostOptions, Inspection, LoadRequest, LoadedPlugin, Source};
use serde_json::{Map, Value};

use crate::diagnostic::Diagnostic;
use crate::output::Output;
use crate::plugin_path;
use crate::services::MODEL_KEY;

/// Name of the tool that every command of `plumb plugin` has.
const CALCULATOR: &str = "calculator";

/// A plugin's bytes and where they come from.
pub struct Subject {
    /// The component's file.
    pub file: PathBuf,
    /// The crate it was built from, if the command was given one.
    pub folder: Option<PathBuf>,
    bytes: Vec<u8>,
}

impl Subject {
    /// Finds `plugin`: a folder with a `plugin.toml` is built, anything else is a file or a name.
    pub fn find(plugin: &str, output: Output) -> anyhow::Result<Self> {
        let folder = Path::new(plugin);
        let (file, folder) = if folder.join("plugin.toml").is_file() {
            (super::build::build(folder, None, output)?, Some(folder.to_owned()))
        } else if folder.is_dir() {
            return Err(Diagnostic::usage("plugin.not_found", format!("`{plugin}` is a folder without a `plugin.toml`"))
                .hint("give a plugin's crate, a .wasm file, or the name of an installed plugin")
                .into());
        } else {
            (plugin_path::resolve(plugin, None)?, None)
        };
        let bytes = std::fs::read(&file).map_err(|e| Diagnostic::io("read", &file, &e))?;
        Ok(Subject { file, folder, bytes })
    }

    /// Its file's name in messages.
    pub fn label(&self) -> String {
        self.file.display().to_string()
    }

    /// The component.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the file is, without running it.
    pub fn inspect(&self) -> plumb_host::Result<Inspection> {
        plumb_host::inspect(&self.label(), &self.bytes)
    }

    /// Loads it with a configuration. It may ask the run's own models, the one that its configuration names, and the calculator: what
    /// models say is in a case, if anywhere.
    pub fn load(&self, host: &Host, config: &Map<String, Value>) -> plumb_host::Result<LoadedPlugin> {
        let named = config.get(MODEL_KEY).and_then(Value::as_str);
        let models = ["policy", "reference"].into_iter().chain(named).map(ToOwned::to_owned).collect();
        host.load(LoadRequest {
            source: Source::Bytes(self.label(), self.bytes.clone()),
            config: config.clone(),
            grants: Grants { models, tools: vec![CALCULATOR.into()], ..Grants::default() },
            ..LoadRequest::new(self.inspect()?.kind, "")
        })
    }
}

/// A host with a calculator, and what plugins write to it.
pub fn host(threads: usize) -> plumb_host::Result<(Host, Arc<Collector>)> {
    let sink = Arc::new(Collector::default());
    let options = HostOptions {
        threads,
        cache_dir: plumb_host::default_cache_dir(),
        sink: Arc::clone(&sink) as _,
        ..HostOptions::default()
    };
    let mut host = Host::new(options)?;
    let calculator = ToolUse { builtin: Some(BuiltinTool::Calculator), ..ToolUse::default() };
    let no_plugin = |name: &str| Err(plumb_host::Error::Host { message: format!("there is no tool plugin `{name}` here") });
    host.load_tools(&BTreeMap::from([(CALCULATOR.to_owned(), calculator)]), Path::new(""), no_plugin)?;
    Ok((host, sink))
}

/// A JSON object from the command line.
pub fn config(text: &str) -> Result<Map<String, Value>, Diagnostic> {
    let wrong = |reason: String| Diagnostic::usage("usage", "`--config` must be a JSON object").because(reason);
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(wrong(format!("it is {other}"))),
        Err(error) => Err(wrong(error.to_string())),
    }
}
