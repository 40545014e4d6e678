//! `plugins.lock`: exactly which plugins a run used.

use std::path::Path;

use plumb_core::feedback::PluginId;
use serde::{Deserialize, Serialize};

use super::error::{Error, IoContext, Result};

/// One plugin of a run.
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
    /// What it may call: the imports of the component.
    pub grants: Vec<String>,
    /// SHA-256 of its configuration as JSON.
    pub config_sha256: String,
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
            config_sha256: super::ledger::hash(serde_json::Value::Object(config.clone()).to_string().as_bytes()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    #[serde(default)]
    plugin: Vec<LockedPlugin>,
}

/// Writes `plugins.lock` into a run's folder.
pub fn write_plugins_lock(run_dir: &Path, plugins: &[LockedPlugin]) -> Result<()> {
    let path = run_dir.join("plugins.lock");
    let text = toml::to_string(&File { version: 1, plugin: plugins.to_vec() }).expect("a lock holds only strings");
    std::fs::write(&path, text).at("write", &path)
}

/// Reads a run's `plugins.lock`; without one there are no plugins.
pub fn read_plugins_lock(run_dir: &Path) -> Result<Vec<LockedPlugin>> {
    let path = run_dir.join("plugins.lock");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path).at("read", &path)?;
    let file: File = toml::from_str(&text).map_err(|e| Error::Malformed { path, reason: e.message().to_owned() })?;
    Ok(file.plugin)
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
        write_plugins_lock(folder.path(), std::slice::from_ref(&plugin)).unwrap();
        assert_eq!(read_plugins_lock(folder.path()).unwrap(), [plugin]);
    }
}
