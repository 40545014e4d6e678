//! Connects training to the plugin host: names in a recipe to sandboxed components.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use plumb_core::recipe::PluginUse;
use plumb_core::{Filter, Judge, PluginId, PluginKind, RewardFn, Shaper};
use plumb_host::{Host, HostOptions, Inspection, LoadRequest, LoadedPlugin, Sink, Source};
use plumb_train::run::LockedPlugin;
use plumb_train::{LoadError, PluginFactory};

use crate::plugin_path;

/// Starts a plugin host with as many threads as everything else uses.
pub fn host(seed: u64, sink: Arc<dyn Sink>) -> Result<Host, plumb_host::Error> {
    Host::new(HostOptions { threads: rayon::current_num_threads(), cache_dir: plumb_host::default_cache_dir(), seed, sink })
}

/// Loads the plugins of a recipe.
pub struct Plugins {
    host: Host,
    recipe_folder: PathBuf,
    loaded: Mutex<Vec<(PluginId, Inspection, String)>>,
}

impl Plugins {
    /// A factory for a recipe in that folder.
    pub fn new(host: Host, recipe_folder: PathBuf) -> Self {
        Plugins { host, recipe_folder, loaded: Mutex::default() }
    }

    fn load(&self, kind: PluginKind, plugin: &PluginUse) -> Result<LoadedPlugin, LoadError> {
        let loaded = self.host.load(LoadRequest {
            source: Source::Path(plugin_path::resolve(&plugin.plugin, Some(&self.recipe_folder))?),
            kind,
            name: plugin.name.clone(),
            config: plugin.config.clone(),
            limits: plugin.limits.clone(),
        })?;
        let version = loaded.descriptor().version.clone();
        let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((loaded.id().clone(), loaded.inspection().clone(), version));
        drop(all);
        Ok(loaded)
    }
}

impl PluginFactory for Plugins {
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError> {
        Ok(self.load(PluginKind::Reward, plugin)?.into_reward()?)
    }

    fn judge(&self, plugin: &PluginUse) -> Result<Arc<dyn Judge>, LoadError> {
        self.load(PluginKind::Judge, plugin)?;
        Err("judges cannot be run by this build".into())
    }

    fn shaper(&self, plugin: &PluginUse) -> Result<Arc<dyn Shaper>, LoadError> {
        Ok(self.load(PluginKind::Shaper, plugin)?.into_shaper()?)
    }

    fn filter(&self, plugin: &PluginUse) -> Result<Arc<dyn Filter>, LoadError> {
        Ok(self.load(PluginKind::Filter, plugin)?.into_filter()?)
    }

    fn locked(&self, id: &PluginId, plugin: &PluginUse) -> LockedPlugin {
        let mut locked = LockedPlugin::new(id, &plugin.config);
        let all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, inspection, version)) = all.iter().find(|(have, ..)| have == id) {
            locked.version.clone_from(version);
            locked.wit.clone_from(&inspection.wit_version);
            locked.grants = inspection.imports.iter().map(|import| import.name.clone()).collect();
        }
        locked
    }
}
