//! What a run was started with, besides its recipe: a run goes on only with the same.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::ledger::{self, Record};
use super::lock::{LockedPlugin, read_plugins_lock};

/// A data file of a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// As the recipe has it.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// Plugins and data files of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Each plugin once.
    pub plugins: Vec<LockedPlugin>,
    /// Each file once.
    pub data: Vec<DataFile>,
}

impl Inputs {
    /// Refuses inputs that are not those of the run in `run_dir`, of which `ledger` is the ledger.
    ///
    /// # Errors
    /// [`Error::InputChanged`] for the first plugin or data file with other bytes, or a plugin with another configuration.
    pub(crate) fn check(&self, run_dir: &Path, ledger: &Path) -> Result<()> {
        let changed = |what: String, before: &str, now: &str| {
            let (path, before, now) = (run_dir.to_owned(), before.to_owned(), now.to_owned());
            Err(Error::InputChanged { path, what, before, now })
        };
        let locked = read_plugins_lock(run_dir)?;
        for now in &self.plugins {
            // What a swap brought has no source: it is in the lock file, but the run did not begin with it.
            let of_recipe = |old: &&LockedPlugin| (&old.name, old.kind, &old.source) == (&now.name, now.kind, &now.source);
            let mut namesakes = locked.iter().filter(of_recipe).peekable();
            let Some(&first) = namesakes.peek() else { continue };
            if namesakes.any(|old| (&old.sha256, &old.config_sha256) == (&now.sha256, &now.config_sha256)) {
                continue;
            }
            let name = &now.name;
            if first.sha256 != now.sha256 {
                return changed(format!("plugin `{name}`"), &first.sha256, &now.sha256);
            }
            return changed(format!("the configuration of plugin `{name}`"), &first.config_sha256, &now.config_sha256);
        }
        let Some(Record::RunStart { data, .. }) = ledger::first(ledger)? else { return Ok(()) };
        for now in &self.data {
            match data.iter().find(|old| old.path == now.path) {
                Some(old) if old.sha256 != now.sha256 => {
                    return changed(format!("data file `{}`", now.path.display()), &old.sha256, &now.sha256);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use plumb_core::{PluginId, PluginKind};

    use super::*;
    use crate::run::ledger::LedgerWriter;
    use crate::run::lock::write_plugins_lock;

    fn plugin(name: &str, digest: &str, config: &str) -> LockedPlugin {
        let id = PluginId { name: name.into(), kind: PluginKind::Reward, digest: digest.into() };
        LockedPlugin::new(&id, &serde_json::from_str(config).unwrap())
    }

    #[test]
    fn other_bytes_of_a_plugin_or_data_file_are_refused_with_both_digests() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.jsonl");
        let file = |sha256: &str| DataFile { path: "a.jsonl".into(), sha256: sha256.into() };
        // One name in two stages, with two configurations.
        let plugins = vec![plugin("a", "11", "{}"), plugin("a", "11", "{\"x\": 1}"), plugin("b", "22", "{}")];
        let inputs = Inputs { plugins, data: vec![file("33")] };
        write_plugins_lock(folder.path(), &inputs.plugins).unwrap();
        let data = inputs.data.clone();
        let start = Record::RunStart { build: String::new(), recipe_sha256: String::new(), seed: 0, data };
        LedgerWriter::open(&ledger, 0).unwrap().append(&start).unwrap();
        inputs.check(folder.path(), &ledger).unwrap();

        let refused = |inputs: Inputs| match inputs.check(folder.path(), &ledger) {
            Err(Error::InputChanged { what, before, now, .. }) => [what, before, now],
            other => panic!("{other:?}"),
        };
        let mut other = inputs.clone();
        other.plugins[2].sha256 = "44".into();
        assert_eq!(refused(other), ["plugin `b`", "22", "44"]);
        let mut other = inputs.clone();
        other.plugins[1] = plugin("a", "11", "{\"x\": 2}");
        assert_eq!(refused(other)[0], "the configuration of plugin `a`");
        assert_eq!(refused(Inputs { data: vec![file("55")], ..inputs }), ["data file `a.jsonl`", "33", "55"]);
    }

    #[test]
    fn bytes_that_a_swap_brought_are_not_those_that_the_run_began_with() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.jsonl");
        let of_recipe = |digest: &str| LockedPlugin { source: "a.wasm".into(), ..plugin("a", digest, "{}") };
        write_plugins_lock(folder.path(), &[of_recipe("11"), plugin("a", "22", "{}")]).unwrap();
        let check = |digest: &str| {
            let inputs = Inputs { plugins: vec![of_recipe(digest)], ..Inputs::default() };
            inputs.check(folder.path(), &ledger)
        };
        assert!(matches!(check("22"), Err(Error::InputChanged { before, now, .. }) if (&*before, &*now) == ("11", "22")));
        check("11").unwrap();
    }
}
