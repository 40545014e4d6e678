//! `RUN/plugins/<sha256>.wasm`: the bytes of every plugin that a run used, so that resuming and replaying it need no file elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_core::recipe::PluginUse;
use plumb_core::{Filter, Judge, Plugin, PluginId, RewardFn, Shaper};

use super::control::Refusal;
use super::history::Source;
use crate::error::{Error, Result};
use crate::plugins::{LoadError, PluginFactory};
use crate::run::append::write_whole;
use crate::run::{IoContext, LockedPlugin, config_sha256, read_plugins_lock, write_plugins_lock};

/// Where a run keeps the plugin with that digest.
pub fn path(run_dir: &Path, digest: &str) -> PathBuf {
    run_dir.join("plugins").join(format!("{digest}.wasm"))
}

/// Where the signature of a plugin file is: its name with `.sig` behind. It goes where the plugin goes.
pub(super) fn signature(plugin: &Path) -> PathBuf {
    let mut path = plugin.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}

/// Keeps a plugin's bytes, and puts it into `plugins.lock`.
pub fn keep(run_dir: &Path, factory: &dyn PluginFactory, id: &PluginId, locked: LockedPlugin) -> Result<()> {
    let path = path(run_dir, &id.digest);
    if !path.exists()
        && let Some(file) = factory.file(id)
    {
        let bytes = std::fs::read(&file).at("read", &file)?;
        let found = crate::run::ledger::hash(&bytes);
        if found != id.digest {
            let reason = format!("its file changed while the run began: SHA-256 {} before, {found} now", id.digest);
            return Err(Error::LoadPlugin { kind: id.kind, plugin: id.name.clone(), source: reason.into() });
        }
        let folder = run_dir.join("plugins");
        std::fs::create_dir_all(&folder).at("create", &folder)?;
        let signature = signature(&file);
        if signature.exists() {
            let bytes = std::fs::read(&signature).at("read", &signature)?;
            write_whole(&self::signature(&path), &bytes)?;
        }
        write_whole(&path, &bytes)?;
    }
    let mut all = read_plugins_lock(run_dir)?;
    if !all.contains(&locked) {
        all.push(locked);
        write_plugins_lock(run_dir, &all)?;
    }
    Ok(())
}

/// Loads plugins as another factory does, and from a run's own copies where files elsewhere are gone, or were rebuilt in place and
/// swapped in: the recipe still means what the run began with.
pub struct OrKept<'a> {
    factory: &'a dyn PluginFactory,
    run_dir: PathBuf,
    locked: Vec<LockedPlugin>,
}

impl<'a> OrKept<'a> {
    /// With the copies of the run in `run_dir`.
    pub fn new(factory: &'a dyn PluginFactory, run_dir: &Path) -> Result<Self> {
        Ok(OrKept { factory, run_dir: run_dir.to_owned(), locked: read_plugins_lock(run_dir)? })
    }

    fn load<T: Plugin + ?Sized>(
        &self,
        plugin: &PluginUse,
        load: impl Fn(&PluginUse) -> Result<Arc<T>, LoadError>,
    ) -> Result<Arc<T>, LoadError> {
        let loaded = load(plugin);
        let config = config_sha256(&plugin.config);
        let same = |locked: &&LockedPlugin| locked.source == plugin.plugin && locked.config_sha256 == config;
        let Some(began_with) = self.locked.iter().find(same) else { return loaded };
        // What a swap brought has no source in the lock file.
        let swapped_in = |id: &PluginId| {
            let brought =
                |locked: &LockedPlugin| locked.source.is_empty() && (&locked.name, &locked.sha256) == (&id.name, &id.digest);
            id.digest != began_with.sha256 && self.locked.iter().any(brought)
        };
        if loaded.as_ref().is_ok_and(|loaded| !swapped_in(loaded.id())) {
            return loaded;
        }
        let kept = path(&self.run_dir, &began_with.sha256);
        if !kept.exists() {
            return loaded;
        }
        let kept = std::path::absolute(kept)?.to_string_lossy().into_owned();
        // What was wrong with the recipe's own file is what the user can mend.
        load(&PluginUse { plugin: kept, ..plugin.clone() }).or(loaded)
    }
}

impl PluginFactory for OrKept<'_> {
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError> {
        self.load(plugin, |plugin| self.factory.reward(plugin))
    }

    fn judge(&self, plugin: &PluginUse) -> Result<Arc<dyn Judge>, LoadError> {
        self.load(plugin, |plugin| self.factory.judge(plugin))
    }

    fn shaper(&self, plugin: &PluginUse) -> Result<Arc<dyn Shaper>, LoadError> {
        self.load(plugin, |plugin| self.factory.shaper(plugin))
    }

    fn filter(&self, plugin: &PluginUse) -> Result<Arc<dyn Filter>, LoadError> {
        self.load(plugin, |plugin| self.factory.filter(plugin))
    }

    fn tools(&self) -> Vec<(PluginId, PluginUse)> {
        self.factory.tools()
    }

    fn file(&self, id: &PluginId) -> Option<PathBuf> {
        self.factory.file(id)
    }

    fn explain(&self, error: Error) -> Refusal {
        self.factory.explain(error)
    }

    fn locked(&self, id: &PluginId, plugin: &PluginUse) -> LockedPlugin {
        self.factory.locked(id, plugin)
    }
}

impl Source {
    /// Forgets where a plugin came from that the run keeps: its file may be gone by the next time.
    pub fn settle(&mut self, run_dir: &Path) {
        if path(run_dir, &self.digest).exists() {
            self.used.plugin = format!("plugins/{}.wasm", self.digest);
        }
        self.used.name = None;
    }

    /// What loads it again, under the name `name`: the run's own copy where there is one.
    pub fn to_use(&self, run_dir: &Path, name: &str) -> Result<PluginUse> {
        let mut used = self.used.clone();
        used.name = Some(name.to_owned());
        let kept = path(run_dir, &self.digest);
        if kept.exists() {
            used.plugin = std::path::absolute(&kept).at("find", &kept)?.to_string_lossy().into_owned();
        }
        Ok(used)
    }
}
