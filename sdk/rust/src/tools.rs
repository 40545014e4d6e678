//! Capability: the tools named in the recipe. They are other plugins, or tools of the host.
//!
//! A plugin that calls a function of this module imports `plumb:align/tools`; one that does not, does not. Its `plugin.toml` says so
//! with `[needs] capabilities = ["tools"]`, and the recipe grants it with `grants = { tools = ["calculator"] }`. Natively, in tests,
//! [`testing::tools`](crate::testing::tools) answers.

#[cfg(target_arch = "wasm32")]
use crate::guest::capabilities as backend;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::capabilities as backend;

use crate::batch::Texts;
use crate::fault::Fault;

/// Calls a tool once per row of `arguments`, which are JSON texts. One call with many rows is faster than many calls.
///
/// # Errors
/// What concerns all rows: `denied` for a tool that is not granted. Each row has an answer or a fault of its own.
pub fn call(tool: &str, arguments: &Texts) -> Result<Vec<Result<String, Fault>>, Fault> {
    backend::call_tool(tool, arguments)
}

/// Calls a tool once.
///
/// # Errors
/// As for [`call`], and the row's own.
pub fn call_one(tool: &str, arguments: &serde_json::Value) -> Result<String, Fault> {
    let answers = call(tool, &[arguments.to_string()].into_iter().collect())?;
    answers.into_iter().next().unwrap_or_else(|| Err(Fault::new("bad-answer", format!("tool `{tool}` gave no answer"))))
}
