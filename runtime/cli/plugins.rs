//! Connects training to the plugin host: names in a recipe to sandboxed components.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use plumb_core::recipe::{Grants, PluginUse, ToolUse};
use plumb_core::services::{Models, NoModels};
use plumb_core::{Filter, Judge, PluginId, PluginKind, RewardFn, Shaper};
use plumb_host::{Host, HostOptions, Inspection, LoadRequest, LoadedPlugin, Sink, Source};
use plumb_train::control::Refusal;
use plumb_train::run::LockedPlugin;
use plumb_train::{LoadError, PluginFactory};

use crate::diagnostic::Diagnostic;
use crate::plugin_path;
use crate::trust::{Trust, Vouched};

/// Starts a plugin host with as many threads as everything else uses, and without models.
pub fn host(seed: u64, sink: Arc<dyn Sink>) -> Result<Host, plumb_host::Error> {
    host_with_models(seed, sink, Arc::new(NoModels))
}

/// As [`host`]; `models` answers the questions of plugins that are granted models.
pub fn host_with_models(seed: u64, sink: Arc<dyn Sink>, models: Arc<dyn Models>) -> Result<Host, plumb_host::Error> {
    let threads = rayon::current_num_threads();
    Host::new(HostOptions { threads, cache_dir: plumb_host::default_cache_dir(), seed, sink, models })
}

/// Sets up a recipe's tools, before the plugins that may be granted them are loaded. `trust` holds for tool plugins too.
pub fn load_tools(host: &mut Host, tools: &BTreeMap<String, ToolUse>, recipe_folder: &Path, trust: &Trust) -> anyhow::Result<()> {
    host.load_tools(tools, recipe_folder, |plugin| {
        let path = plugin_path::resolve(plugin, Some(recipe_folder))?;
        Ok(Source::Bytes(path.display().to_string(), trust.open(&path)?.bytes))
    })
}

/// A plugin that was loaded.
struct Loaded {
    id: PluginId,
    inspection: Inspection,
    version: String,
    signer: Option<String>,
    path: PathBuf,
}

/// Loads the plugins of a recipe.
pub struct Plugins {
    host: Host,
    recipe_folder: PathBuf,
    trust: Trust,
    loaded: Mutex<Vec<Loaded>>,
}

impl Plugins {
    /// A factory for a recipe in that folder, which loads nothing but what `trust` accepts.
    pub fn new(host: Host, recipe_folder: PathBuf, trust: Trust) -> Self {
        Plugins { host, recipe_folder, trust, loaded: Mutex::default() }
    }

    fn load(&self, kind: PluginKind, plugin: &PluginUse) -> Result<LoadedPlugin, LoadError> {
        let path = plugin_path::resolve(&plugin.plugin, Some(&self.recipe_folder))?;
        let Vouched { bytes, signer } = self.trust.open(&path)?;
        let loaded = self.host.load(LoadRequest {
            source: Source::Bytes(path.display().to_string(), bytes),
            kind,
            name: plugin.name.clone(),
            config: plugin.config.clone(),
            limits: plugin.limits.clone(),
            grants: plugin.grants.clone(),
        })?;
        let noted = Loaded {
            id: loaded.id().clone(),
            inspection: loaded.inspection().clone(),
            version: loaded.descriptor().version.clone(),
            path,
            signer: signer.map(|key| key.to_string()),
        };
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).push(noted);
        Ok(loaded)
    }
}

impl PluginFactory for Plugins {
    fn reward(&self, plugin: &PluginUse) -> Result<Arc<dyn RewardFn>, LoadError> {
        Ok(self.load(PluginKind::Reward, plugin)?.into_reward()?)
    }

    fn judge(&self, plugin: &PluginUse) -> Result<Arc<dyn Judge>, LoadError> {
        Ok(self.load(PluginKind::Judge, plugin)?.into_judge()?)
    }

    fn shaper(&self, plugin: &PluginUse) -> Result<Arc<dyn Shaper>, LoadError> {
        Ok(self.load(PluginKind::Shaper, plugin)?.into_shaper()?)
    }

    fn filter(&self, plugin: &PluginUse) -> Result<Arc<dyn Filter>, LoadError> {
        Ok(self.load(PluginKind::Filter, plugin)?.into_filter()?)
    }

    fn file(&self, id: &PluginId) -> Option<PathBuf> {
        let all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest: the file that an earlier one came from may be gone.
        all.iter().rfind(|loaded| loaded.id.digest == id.digest).map(|loaded| loaded.path.clone())
    }

    fn explain(&self, error: plumb_train::Error) -> Refusal {
        let Diagnostic { code, message, causes, hint, .. } = Diagnostic::from(anyhow::Error::from(error));
        Refusal { code, message, causes, hint }
    }

    fn locked(&self, id: &PluginId, plugin: &PluginUse) -> LockedPlugin {
        let mut locked = LockedPlugin::new(id, &plugin.config);
        let all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = all.iter().find(|loaded| loaded.id == *id) {
            locked.version.clone_from(&loaded.version);
            locked.wit.clone_from(&loaded.inspection.wit_version);
            locked.grants = grants(&loaded.inspection, &plugin.grants);
            locked.signer.clone_from(&loaded.signer);
        }
        locked
    }
}

/// What a plugin may call: its imports, and the models and tools that the recipe grants.
pub fn grants(inspection: &Inspection, granted: &Grants) -> Vec<String> {
    let imports = inspection.imports.iter().map(|import| import.name.clone());
    let models = granted.models.iter().map(|model| format!("model:{model}"));
    let tools = granted.tools.iter().map(|tool| format!("tool:{tool}"));
    imports.chain(models).chain(tools).collect()
}
