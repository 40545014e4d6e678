//! `plugin.toml`, which travels in the component's custom section `plumb:manifest`.

use plumb_core::PluginKind;
use plumb_core::recipe::LimitsUse;

use crate::error::{Error, Result};
use crate::limits;

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
    /// What its batches must have, and what it asks.
    #[serde(default)]
    pub needs: Needs,
}

/// What a plugin needs.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Columns, besides those that `describe` names.
    pub columns: Vec<String>,
    /// What it wants to ask besides its batch. The recipe grants it.
    pub capabilities: Vec<Capability>,
}

/// What a plugin may ask besides its batch: an interface that it imports in its own world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Questions to the run's models.
    Models,
    /// Calls of tools.
    Tools,
}

impl Capability {
    /// As in `plugin.toml`, in `grants`, and as the interface of `plumb:align`.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Models => "models",
            Capability::Tools => "tools",
        }
    }
}

impl Manifest {
    /// Reads the text of a `plugin.toml`; `plugin` names it in errors.
    pub fn parse(plugin: &str, text: &[u8]) -> Result<Self> {
        let wrong = |message: String| Error::Manifest { plugin: plugin.to_owned(), message };
        if text.len() > limits::DESCRIPTION_BYTES {
            return Err(wrong(format!("it has {} bytes, limit {}", text.len(), limits::DESCRIPTION_BYTES)));
        }
        let text = std::str::from_utf8(text).map_err(|error| wrong(format!("not UTF-8: {error}")))?;
        let manifest: Self = toml::from_str(text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        if !is_plain_name(&manifest.name) {
            let shown: String = manifest.name.chars().take(limits::NAME_BYTES).collect();
            return Err(wrong(format!("the name {shown:?}: it must have {}", limits::NAME_RULE)));
        }
        let texts = [("version", &manifest.version), ("description", &manifest.description)];
        let columns = manifest.needs.columns.iter().map(|column| ("a column", column));
        if let Some((what, text)) = texts.into_iter().chain(columns).find(|(_, text)| text.chars().any(char::is_control)) {
            return Err(wrong(format!("{what} {text:?}: control characters, line breaks too, are not allowed there")));
        }
        Ok(manifest)
    }
}

/// Whether a plugin can be called that: names stand in metrics, log lines and on the terminal.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=limits::NAME_BYTES).contains(&name.len()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_reads_what_an_author_writes() {
        let text = "name = \"reward-x\"\nkind = \"reward\"\nversion = \"1.2.0\"\n\n[limits]\nmemory_mib = 128\n\n[needs]\ncolumns = [\"answer\"]\ncapabilities = [\"models\"]\n";
        let manifest = Manifest::parse("x.wasm", text.as_bytes()).unwrap();
        assert_eq!((manifest.kind, manifest.limits.memory_mib), (PluginKind::Reward, Some(128)));
        assert_eq!((manifest.needs.columns, manifest.needs.capabilities), (vec!["answer".to_owned()], vec![Capability::Models]));
    }

    #[test]
    fn manifest_of_a_name_that_cannot_be_shown_or_of_a_size_that_nobody_writes_is_refused() {
        let named = |name: &str| format!("name = {name:?}\nkind = \"reward\"\nversion = \"1\"\n");
        for name in ["", "a/b", "a b", "\u{7}", &"n".repeat(129)] {
            assert!(Manifest::parse("x.wasm", named(name).as_bytes()).is_err(), "{name}");
        }
        for line in ["description = \"a\\nsignature  by you\"", "version = \"\\u001b[2J\"", "[needs]\ncolumns = [\"a\\tb\"]"] {
            let text = if line.starts_with("version") { named("x").replace("version = \"1\"", line) } else { named("x") + line };
            assert!(Manifest::parse("x.wasm", text.as_bytes()).unwrap_err().to_string().contains("control characters"), "{line}");
        }
        let long = named("x") + &"#".repeat(limits::DESCRIPTION_BYTES);
        assert!(Manifest::parse("x.wasm", long.as_bytes()).unwrap_err().to_string().contains("limit 65536"));
    }

    #[test]
    fn manifest_with_an_unknown_key_is_refused_with_the_key() {
        let error = Manifest::parse("x.wasm", b"name = \"x\"\nkind = \"reward\"\nversion = \"1\"\nfule = 3\n").unwrap_err();
        assert_eq!(error.code(), "plugin.manifest");
        assert!(error.to_string().contains("fule"), "{error}");
    }
}
