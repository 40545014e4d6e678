//! Lock files: exactly which plugins a run used (`plugins.lock` in its folder), or a recipe may use (beside the recipe).

use std::path::Path;

use plumb_core::feedback::PluginId;
use serde::{Deserialize, Serialize};

use super::error::{Error, IoContext, Result};

/// One plugin of a run or a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedPlugin {
    /// Name in the run.
    pub name: String,
    /// `reward`, `shaper`, `judge` or `filter`.
    pub kind: plumb_core::PluginKind,
    /// The plugin's own version.
    pub version: String,
    /// SHA-256 of the component.
    pub sha256: String,
    /// Version of the interface it was built for.
    pub wit: String,
    /// What it may call: the imports of the component, and `model:NAME` and `tool:NAME` for what the recipe grants.
    pub grants: Vec<String>,
    /// SHA-256 of its configuration as JSON.
    pub config_sha256: String,
    /// Public key that signed the component; None when nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// What the recipe calls it: a name or a path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

impl LockedPlugin {
    /// What is known of a plugin by its id and configuration alone.
    pub fn new(id: &PluginId, config: &serde_json::Map<String, serde_json::Value>) -> Self {
        LockedPlugin {
            name: id.name.clone(),
            kind: id.kind,
            version: String::new(),
            sha256: id.digest.clone(),
            wit: String::new(),
            grants: Vec::new(),
            config_sha256: config_sha256(config),
            signer: None,
            source: String::new(),
        }
    }
}

/// SHA-256 of a configuration as JSON.
pub(crate) fn config_sha256(config: &serde_json::Map<String, serde_json::Value>) -> String {
    super::ledger::hash(serde_json::Value::Object(config.clone()).to_string().as_bytes())
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    #[serde(default)]
    plugin: Vec<LockedPlugin>,
}

/// Writes `plugins.lock` into a run's folder.
pub fn write_plugins_lock(run_dir: &Path, plugins: &[LockedPlugin]) -> Result<()> {
    write_lock(&run_dir.join("plugins.lock"), plugins)
}

/// Reads a run's `plugins.lock`; without one there are no plugins.
pub fn read_plugins_lock(run_dir: &Path) -> Result<Vec<LockedPlugin>> {
    Ok(read_lock(&run_dir.join("plugins.lock"))?.unwrap_or_default())
}

/// Writes a lock file.
pub fn write_lock(path: &Path, plugins: &[LockedPlugin]) -> Result<()> {
    let text = toml::to_string(&File { version: 1, plugin: plugins.to_vec() }).expect("a lock holds only strings");
    super::append::write_whole(path, text.as_bytes())
}

/// Reads a lock file; None when there is none.
pub fn read_lock(path: &Path) -> Result<Option<Vec<LockedPlugin>>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).at("read", path)?;
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    let file: File = toml::from_str(&text).map_err(|e| malformed(e.message().to_owned()))?;
    if file.version != 1 {
        return Err(malformed(format!("it is of version {}, known is 1", file.version)));
    }
    Ok(Some(file.plugin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_plugins_lock(folder.path()).unwrap(), []);
        let id = PluginId { name: "exact".into(), kind: plumb_core::PluginKind::Reward, digest: "ab".repeat(32) };
        let mut plugin = LockedPlugin::new(&id, &serde_json::Map::new());
        plugin.grants = vec!["plumb:align/data@0.1.0".into()];
        plugin.signer = Some("cd".repeat(32));
        write_plugins_lock(folder.path(), std::slice::from_ref(&plugin)).unwrap();
        assert_eq!(read_plugins_lock(folder.path()).unwrap(), [plugin]);
    }
}
