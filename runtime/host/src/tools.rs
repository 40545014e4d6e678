//! The tools of a run by name: those of the host, and tool plugins. All are pure functions of their arguments.

use std::collections::BTreeMap;
use std::path::Path;

use plumb_core::Texts;
use plumb_core::recipe::{BuiltinTool, ToolUse};
use plumb_core::services::{ServiceFault, ToolOutputs, Tools};
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

mod calculator;
mod plugin;
mod search;

pub use plugin::PluginTool;

/// Answers calls of one tool, each argument a JSON text.
pub trait Tool: Send + Sync {
    /// One answer per row.
    fn call(&self, arguments: &Texts) -> ToolOutputs;
}

/// Tools by the names that plugins call them by.
#[derive(Default)]
pub struct Toolbox {
    tools: BTreeMap<String, Box<dyn Tool>>,
}

impl Toolbox {
    /// Adds a tool.
    pub fn insert(&mut self, name: String, tool: Box<dyn Tool>) {
        self.tools.insert(name, tool);
    }
}

impl Tools for Toolbox {
    fn call(&self, tool: &str, arguments: &Texts) -> Result<ToolOutputs, ServiceFault> {
        match self.tools.get(tool) {
            Some(tool) => Ok(tool.call(arguments)),
            None => {
                let there = self.tools.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                let there = if there.is_empty() { "none".to_owned() } else { there };
                Err(ServiceFault::new("unknown-tool", format!("there is no tool `{tool}`; the recipe's `[tools]` has {there}")))
            }
        }
    }
}

/// A tool of the host, configured; paths in its configuration start at `folder`.
pub fn builtin(name: &str, tool: BuiltinTool, given: &ToolUse, folder: &Path) -> Result<Box<dyn Tool>> {
    let wrong = |message: String| Error::Tool { tool: name.to_owned(), message };
    if given.limits != plumb_core::recipe::LimitsUse::default() {
        return Err(wrong("`limits` are of tool plugins; tools of the host have their own".into()));
    }
    let config = serde_json::Value::Object(given.config.clone());
    match tool {
        BuiltinTool::Calculator => {
            let calculator::Config {} = serde_json::from_value(config).map_err(|error| wrong(error.to_string()))?;
            Ok(Box::new(calculator::Calculator))
        }
        BuiltinTool::Search => {
            let config: search::Config = serde_json::from_value(config).map_err(|error| wrong(error.to_string()))?;
            Ok(Box::new(search::Search::open(&config, folder).map_err(wrong)?))
        }
    }
}

/// Answers each row by itself, from its arguments as `A`.
fn each_row<A: DeserializeOwned>(arguments: &Texts, call: impl Fn(A) -> Result<String, ServiceFault>) -> ToolOutputs {
    let one = |row| {
        let read = serde_json::from_slice(arguments.bytes_at(row));
        call(read.map_err(|error| ServiceFault::new("bad-arguments", error.to_string()))?)
    };
    (0..arguments.len()).map(one).collect()
}
