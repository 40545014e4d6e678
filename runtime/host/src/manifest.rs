//! `plugin.toml`, which travels in the component's custom section `plumb:manifest`.

use plumb_core::PluginKind;
use plumb_core::recipe::LimitsUse;

use crate::error::{Error, Result};

/// Custom section of a component that holds its `plugin.toml`.
pub const SECTION: &str = "plumb:manifest";

/// What an author says about a plugin without running it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the plugin and, unless the recipe gives another, its name in the run.
    pub name: String,
    /// What it is for.
    pub kind: PluginKind,
    /// Semantic version.
    pub version: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// Limits that the plugin needs beyond the defaults; the recipe's win.
    #[serde(default)]
    pub limits: LimitsUse,
    /// What its batches must have.
    #[serde(default)]
    pub needs: Needs,
}

/// What a plugin's batches must have.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Columns, besides those that `describe` names.
    pub columns: Vec<String>,
}

impl Manifest {
    /// Reads the text of a `plugin.toml`; `plugin` names it in errors.
    pub fn parse(plugin: &str, text: &[u8]) -> Result<Self> {
        let wrong = |message: String| Error::Manifest { plugin: plugin.to_owned(), message };
        let text = std::str::from_utf8(text).map_err(|error| wrong(format!("not UTF-8: {error}")))?;
        toml::from_str(text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_reads_what_an_author_writes() {
        let text = "name = \"reward-x\"\nkind = \"reward\"\nversion = \"1.2.0\"\n\n[limits]\nmemory_mib = 128\n\n[needs]\ncolumns = [\"answer\"]\n";
        let manifest = Manifest::parse("x.wasm", text.as_bytes()).unwrap();
        assert_eq!((manifest.kind, manifest.limits.memory_mib), (PluginKind::Reward, Some(128)));
        assert_eq!(manifest.needs.columns, ["answer"]);
    }

    #[test]
    fn manifest_with_an_unknown_key_is_refused_with_the_key() {
        let error = Manifest::parse("x.wasm", b"name = \"x\"\nkind = \"reward\"\nversion = \"1\"\nfule = 3\n").unwrap_err();
        assert_eq!(error.code(), "plugin.manifest");
        assert!(error.to_string().contains("fule"), "{error}");
    }
}
