//! Connects training to the plugin host: names in a recipe to sandboxed components.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use plumb_core::recipe::{Grants, PluginUse, ToolUse};
use plumb_core::services::{Models, NoModels};
use plumb_core::{Filter, Judge, PluginId, PluginKind, RewardFn, Shaper};
use plumb_host::{Host, HostOptions, Inspection, LoadRequest, LoadedPlugin, Sink, Source};
use plumb_train::control::Refusal;
use plumb_train::generations::kept;
use plumb_train::run::LockedPlugin;
use plumb_train::{LoadError, PluginFactory};

use crate::diagnostic::Diagnostic;
use crate::lock::Lock;
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
    /// Where relative paths start, and `plugins` is looked into; None where there is no recipe.
    recipe_folder: Option<PathBuf>,
    trust: Trust,
    lock: Option<Lock>,
    tools: Vec<(PluginId, PluginUse)>,
    loaded: Mutex<Vec<Loaded>>,
}

impl Plugins {
    /// A factory for a recipe in that folder, which loads nothing but what `trust` accepts.
    pub fn new(host: Host, recipe_folder: impl Into<Option<PathBuf>>, trust: Trust) -> Self {
        Plugins { host, recipe_folder: recipe_folder.into(), trust, lock: None, tools: Vec::new(), loaded: Mutex::default() }
    }

    /// Also holds what it loads to a lock.
    #[must_use]
    pub fn held_to(self, lock: Option<Lock>) -> Self {
        Plugins { lock, ..self }
    }

    /// Sets up a recipe's tools, before the plugins that may be granted them are loaded. `kept` names files that stand for those of
    /// some tools, by the tools' names: a run's own copies.
    pub fn load_tools(&mut self, tools: &BTreeMap<String, ToolUse>, kept: &BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
        let mut from = tools.clone();
        for (name, path) in kept {
            from.entry(name.clone()).and_modify(|tool| tool.plugin = Some(path.to_string_lossy().into_owned()));
        }
        let folder = self.recipe_folder.clone();
        let found = RefCell::new(Vec::new());
        self.host.load_tools(&from, folder.as_deref().unwrap_or(Path::new("")), |plugin| -> anyhow::Result<Source> {
            let path = plugin_path::resolve(plugin, folder.as_deref())?;
            let Vouched { bytes, signer } = self.trust.open(&path)?;
            let label = path.display().to_string();
            let inspection = plumb_host::inspect(&label, &bytes)?;
            if let Some(lock) = &self.lock {
                lock.admit(&path, PluginKind::Tool, &inspection.digest)?;
            }
            found.borrow_mut().push((inspection, signer, path));
            Ok(Source::Bytes(label, bytes))
        })?;
        let found = found.into_inner();
        for (id, _) in self.host.stats() {
            let (inspection, signer, path) =
                found.iter().find(|(inspection, ..)| inspection.digest == id.digest).expect("just loaded");
            let (version, signer) = (version(inspection), signer.as_ref().map(ToString::to_string));
            let loaded = Loaded { id: id.clone(), inspection: inspection.clone(), version, signer, path: path.clone() };
            self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner).push(loaded);
            let ToolUse { plugin, config, limits, .. } = tools[&id.name].clone();
            let (plugin, name) = (plugin.unwrap_or_default(), Some(id.name.clone()));
            self.tools.push((id, PluginUse { plugin, name, config, limits, grants: Grants::default() }));
        }
        Ok(())
    }

    /// Loads a plugin of that kind.
    ///
    /// # Errors
    /// When there is no such file, nobody trusted signed it, it is not locked, or the host refuses it.
    pub fn load(&self, kind: PluginKind, plugin: &PluginUse) -> Result<LoadedPlugin, LoadError> {
        let path = plugin_path::resolve(&plugin.plugin, self.recipe_folder.as_deref())?;
        let Vouched { bytes, signer } = self.trust.open(&path)?;
        let label = path.display().to_string();
        if let Some(lock) = &self.lock {
            lock.admit(&path, kind, &plumb_host::inspect(&label, &bytes)?.digest)?;
        }
        let loaded = self.host.load(LoadRequest {
            source: Source::Bytes(label, bytes),
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

/// Why a plugin could not be loaded, as the kind of error that it is: in a box, nobody could tell.
pub fn unboxed(error: LoadError) -> anyhow::Error {
    let error = match error.downcast::<Diagnostic>() {
        Ok(diagnostic) => return (*diagnostic).into(),
        Err(error) => error,
    };
    error.downcast::<plumb_host::Error>().map_or_else(anyhow::Error::from_boxed, |error| (*error).into())
}

/// What the manifest says.
fn version(inspection: &Inspection) -> String {
    inspection.manifest.as_ref().map(|manifest| manifest.version.clone()).unwrap_or_default()
}

/// A run's own copies of its tools, by the tools' names; `tools` has the names and digests that the run has on record.
pub fn kept_tools(run_dir: &Path, tools: impl Iterator<Item = PluginId>) -> std::io::Result<BTreeMap<String, PathBuf>> {
    let kept = tools.map(|tool| (kept::path(run_dir, &tool.digest), tool.name)).filter(|(path, _)| path.exists());
    kept.map(|(path, name)| Ok((name, std::path::absolute(path)?))).collect()
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

    fn tools(&self) -> Vec<(PluginId, PluginUse)> {
        self.tools.clone()
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
