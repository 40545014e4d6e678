//! What a plugin says about itself when it runs.

use plumb_core::PluginFault;

use crate::bindings::lifecycle;
use crate::limits;
use crate::manifest::is_plain_name;

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

impl Descriptor {
    /// Checks sizes, and that the name can stand in metrics, logs and file names. Nothing else of it is believed: columns are looked
    /// for in each batch, answers are checked against what they answer.
    ///
    /// # Errors
    /// [`PluginFault::BadOutput`] with the first field that is wrong.
    pub(crate) fn check(&self) -> Result<(), PluginFault> {
        let bad = |message: String| Err(PluginFault::BadOutput { message });
        if !self.name.is_empty() && !is_plain_name(&self.name) {
            let shown: String = self.name.chars().take(limits::NAME_BYTES).collect();
            return bad(format!("the name {shown:?} in `describe`: it must have {}", limits::NAME_RULE));
        }
        if self.config_schema.len() > limits::SCHEMA_BYTES {
            let (bytes, limit) = (self.config_schema.len(), limits::SCHEMA_BYTES);
            return bad(format!("a config-schema of {bytes} bytes in `describe`, limit {limit}"));
        }
        let names = self.needs_columns.iter().chain(&self.outputs).map(|name| name.len() + 1);
        let extra = self.extra.iter().map(|(name, value)| name.len() + value.len() + 1);
        let bytes = self.version.len() + names.chain(extra).sum::<usize>();
        if bytes > limits::DESCRIPTION_BYTES {
            return bad(format!("{bytes} bytes in `describe` besides the config-schema, limit {}", limits::DESCRIPTION_BYTES));
        }
        Ok(())
    }
}

impl From<lifecycle::Descriptor> for Descriptor {
    fn from(descriptor: lifecycle::Descriptor) -> Self {
        let lifecycle::Descriptor { name, version, config_schema, needs_columns, outputs, state_version, extra } = descriptor;
        Descriptor { name, version, config_schema, needs_columns, outputs, state_version, extra }
    }
}
