//! What a plugin says about itself when it runs.

use crate::bindings::lifecycle;

/// Answer of `lifecycle.describe`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Descriptor {
    /// Name of the plugin; its name in the run may be another.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// JSON schema of the configuration.
    pub config_schema: String,
    /// Columns without which the plugin cannot work.
    pub needs_columns: Vec<String>,
    /// Names of the parts it may return.
    pub outputs: Vec<String>,
    /// Version of what `state.save` writes; 0 without state.
    pub state_version: u32,
    /// Whatever later versions of the interface add.
    pub extra: Vec<(String, String)>,
}

impl From<lifecycle::Descriptor> for Descriptor {
    fn from(descriptor: lifecycle::Descriptor) -> Self {
        let lifecycle::Descriptor { name, version, config_schema, needs_columns, outputs, state_version, extra } = descriptor;
        Descriptor { name, version, config_schema, needs_columns, outputs, state_version, extra }
    }
}
