//! What a plugin says about itself.

/// What a plugin says about itself before it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its name.
    pub name: &'static str,
    /// Its semantic version.
    pub version: &'static str,
    /// JSON schema of its configuration.
    pub config_schema: &'static str,
    /// Columns without which it cannot work whatever its configuration.
    pub needs_columns: &'static [&'static str],
    /// Names of the parts it may return.
    pub outputs: &'static [&'static str],
    /// Version of what [`State::save`](crate::shaper::State::save) writes; 0 without state.
    pub state_version: u32,
}

impl Descriptor {
    /// A descriptor without needs, outputs or state, for a configuration that is any object.
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        Descriptor { name, version, config_schema: r#"{"type":"object"}"#, needs_columns: &[], outputs: &[], state_version: 0 }
    }

    /// Sets the JSON schema of the configuration.
    #[must_use]
    pub const fn config_schema(mut self, schema: &'static str) -> Self {
        self.config_schema = schema;
        self
    }

    /// Sets the columns without which the plugin cannot work.
    #[must_use]
    pub const fn needs_columns(mut self, columns: &'static [&'static str]) -> Self {
        self.needs_columns = columns;
        self
    }

    /// Sets the names of the parts the plugin may return.
    #[must_use]
    pub const fn outputs(mut self, parts: &'static [&'static str]) -> Self {
        self.outputs = parts;
        self
    }

    /// Sets the version of the saved state.
    #[must_use]
    pub const fn state_version(mut self, version: u32) -> Self {
        self.state_version = version;
        self
    }
}

/// A [`Descriptor`] with the name and version of the crate it stands in.
#[macro_export]
macro_rules! descriptor {
    () => {
        $crate::Descriptor::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
    };
}

/// A named component, one value per row, for the metrics and for later plugins.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its name, one of [`Descriptor::outputs`].
    pub name: String,
    /// One value per row.
    pub values: Vec<f64>,
}

impl Part {
    /// A part of that name.
    pub fn new(name: impl Into<String>, values: Vec<f64>) -> Self {
        Part { name: name.into(), values }
    }
}
