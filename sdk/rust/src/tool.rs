//! Tools: arguments to results, for other plugins.

use serde::de::DeserializeOwned;

pub use crate::batch::Texts;
pub use crate::descriptor::Descriptor;
pub use crate::fault::{Fault, RowFault};

/// A tool that other plugins may be granted. It is a function of its arguments: it keeps nothing, and asks nobody.
pub trait Tool: Sized {
    /// The configuration, read from the recipe's JSON. `#[serde(default, deny_unknown_fields)]` makes a typo an error.
    type Config: DeserializeOwned;
    /// What it is called with: the JSON of each row is read as this. `serde_json::Value` takes anything.
    type Arguments: DeserializeOwned;
    /// What the plugin says about itself.
    const DESCRIPTOR: Descriptor;

    /// Takes a configuration and checks it.
    ///
    /// # Errors
    /// [`Fault::bad_config`] for values that make no sense; the run does not start then.
    fn new(config: Self::Config) -> Result<Self, Fault>;

    /// The answer to one row: JSON or plain text, as the tool says.
    ///
    /// # Errors
    /// Whatever keeps the row from having one.
    fn call(&self, arguments: Self::Arguments) -> Result<String, Fault>;
}

/// Answers of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// One text per row; empty for rows with a fault.
    pub output: Texts,
    /// Rows without an answer.
    pub faults: Vec<RowFault>,
}

/// Calls the tool for each row, as an exported tool does.
pub fn call_rows<T: Tool>(tool: &T, arguments: &Texts) -> Outputs {
    let mut outputs = Outputs::default();
    for (row, json) in arguments.iter().enumerate() {
        let read = serde_json::from_str(json).map_err(|error| Fault::new(Fault::BAD_ARGUMENTS, error.to_string()));
        match read.and_then(|arguments| tool.call(arguments)) {
            Ok(text) => outputs.output.push(text),
            Err(fault) => {
                outputs.output.push("");
                outputs.faults.push(RowFault { row: row as u32, fault });
            }
        }
    }
    outputs
}

/// Exports a [`Tool`] as this crate's plugin.
#[macro_export]
macro_rules! export_tool {
    ($plugin:ty) => {
        $crate::__export!(tool, $plugin);
    };
}
