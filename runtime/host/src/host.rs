//! The host: an engine, its workers, and how plugins get in.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use plumb_core::recipe::LimitsUse;
use plumb_core::{Batch, Decision, Filter, PluginError, PluginFault, PluginId, PluginKind, RewardFn, Rewards, Shaped, Shaper};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::bindings::types::Fault;
use crate::cache::Cache;
use crate::context::Identity;
use crate::descriptor::Descriptor;
use crate::engine::{self, Ticker};
use crate::error::{Error, Result};
use crate::inspect::{Inspection, inspect};
use crate::instance::{CallError, Code, Instance};
use crate::kv;
use crate::limits::EffectiveLimits;
use crate::manifest::Manifest;
use crate::plugin::WasmPlugin;
use crate::pool::Pool;
use crate::runner::{Memory, Runner, lock};
use crate::sink::{Discard, LogLevel, LogLine, Sink};
use crate::stats::PluginStats;
use crate::view::BatchView;

/// How to set up a [`Host`].
pub struct HostOptions {
    /// Worker threads, at least 1. Results do not depend on it.
    pub threads: usize,
    /// Folder for compiled components; None compiles at every load. See [`crate::default_cache_dir`].
    pub cache_dir: Option<PathBuf>,
    /// Seed of the run, for plugins' random streams.
    pub seed: u64,
    /// Takes log lines.
    pub sink: Arc<dyn Sink>,
}

impl Default for HostOptions {
    fn default() -> Self {
        HostOptions { threads: 1, cache_dir: None, seed: 0, sink: Arc::new(Discard) }
    }
}

/// Where a plugin's bytes come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    Path(PathBuf),
    /// Bytes, and what to call them in errors.
    Bytes(String, Vec<u8>),
}

/// A plugin to load.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The component.
    pub source: Source,
    /// Kind that is needed.
    pub kind: PluginKind,
    /// Name in the run; the plugin's own when None.
    pub name: Option<String>,
    /// Configuration.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Limits that replace those of the manifest.
    pub limits: LimitsUse,
}

impl LoadRequest {
    /// The plugin in a file, with its own name, no configuration and its own limits.
    pub fn new(kind: PluginKind, path: impl Into<PathBuf>) -> Self {
        LoadRequest {
            source: Source::Path(path.into()),
            kind,
            name: None,
            config: serde_json::Map::new(),
            limits: LimitsUse::default(),
        }
    }
}

/// What plugins need as long as they live; its threads end with the last of them.
pub struct Shared {
    pub pool: Pool,
    _ticker: Ticker,
}

/// Runs plugins.
pub struct Host {
    shared: Arc<Shared>,
    engine: Engine,
    cache: Option<Cache>,
    seed: u64,
    sink: Arc<dyn Sink>,
    stats: Mutex<Vec<(PluginId, Arc<Mutex<PluginStats>>)>>,
}

impl Host {
    /// Starts an engine and its threads.
    ///
    /// # Errors
    /// [`Error::Host`] when the system refuses threads or memory. A cache folder that cannot be used is a warning in the log.
    pub fn new(options: HostOptions) -> Result<Self> {
        let threads = options.threads.max(1);
        let engine = engine::engine(threads)?;
        let cache = options.cache_dir.and_then(|dir| match Cache::open(&dir) {
            Ok(cache) => Some(cache),
            Err(error) => {
                let message = format!("compiled plugins are not kept in `{}`: {error}", dir.display());
                options.sink.log(LogLine { plugin: "host".into(), step: 0, level: LogLevel::Warn, message, fields: Vec::new() });
                None
            }
        });
        let shared = Arc::new(Shared { pool: Pool::start(threads)?, _ticker: Ticker::start(&engine)? });
        Ok(Host { shared, engine, cache, seed: options.seed, sink: options.sink, stats: Mutex::default() })
    }

    /// Loads a plugin: checks what it is, compiles it, and lets it read its configuration.
    ///
    /// # Errors
    /// Every variant of [`Error`]; nothing of the plugin stays behind.
    pub fn load(&self, request: LoadRequest) -> Result<LoadedPlugin> {
        let (label, bytes) = match request.source {
            Source::Bytes(label, bytes) => (label, bytes),
            Source::Path(path) => match std::fs::read(&path) {
                Ok(bytes) => (path.display().to_string(), bytes),
                Err(source) => return Err(Error::Read { path, source }),
            },
        };
        let inspection = inspect(&label, &bytes)?;
        let found = inspection.kind;
        if found != request.kind {
            return Err(Error::WrongKind { plugin: label, expected: request.kind, found });
        }
        inspection.refuse_imports(&label)?;
        if inspection.stateful && found == PluginKind::Reward {
            return Err(Error::StatefulReward { plugin: label });
        }
        let manifest = inspection.manifest.clone();
        let wanted = manifest.as_ref().map(|manifest| manifest.limits.clone()).unwrap_or_default();
        EffectiveLimits::check_manifest(&label, &request.limits, &wanted)?;
        let limits = EffectiveLimits::resolve(&label, &request.limits, &wanted)?;
        let compile = |error: wasmtime::Error| Error::Compile { plugin: label.clone(), message: format!("{error:#}") };
        let component = match &self.cache {
            Some(cache) => cache.load(&self.engine, &inspection.digest, &bytes),
            None => Component::from_binary(&self.engine, &bytes),
        };
        let code = Arc::new(Code::link(&self.engine, &component.map_err(compile)?, found, inspection.stateful).map_err(compile)?);

        let config = serde_json::Value::Object(request.config).to_string();
        let name = request.name.or_else(|| manifest.as_ref().map(|manifest| manifest.name.clone()));
        let start = Start { code: Arc::clone(&code), name, config, seed: self.seed, limits };
        let digest = inspection.digest.clone();
        let started = self.shared.pool.run(move || start.run());
        let started =
            started.recv().map_err(|_| Error::Host { message: format!("a worker panicked while starting `{label}`") })?;
        let (identity, descriptor) = started.map_err(|(export, name, error)| match error.fault {
            PluginFault::Fault { code, message } if export == "init" => Error::Config { plugin: label.clone(), code, message },
            fault => {
                let plugin = PluginId { name: name.unwrap_or_else(|| label.clone()), kind: found, digest: digest.clone() };
                Error::Start { plugin: label.clone(), source: PluginError { plugin, export, fault } }
            }
        })?;

        let mut needs = descriptor.needs_columns.clone();
        needs.extend(manifest.iter().flat_map(|manifest| manifest.needs.columns.clone()));
        let id = PluginId { name: identity.name.clone(), kind: found, digest };
        let stats = Arc::new(Mutex::new(PluginStats::default()));
        lock(&self.stats).push((id.clone(), Arc::clone(&stats)));
        let runner = Runner {
            id,
            code,
            identity,
            limits,
            descriptor,
            needs,
            stateful: inspection.stateful,
            asks_models: inspection.imports_interface("models"),
            sink: Arc::clone(&self.sink),
            stats,
            memory: Mutex::new(Memory::default()),
            tickets: std::sync::atomic::AtomicU64::new(0),
        };
        Ok(LoadedPlugin { runner: Arc::new(runner), shared: Arc::clone(&self.shared), inspection })
    }

    /// Counts of every plugin loaded so far, in the order of loading.
    pub fn stats(&self) -> Vec<(PluginId, PluginStats)> {
        lock(&self.stats).iter().map(|(id, stats)| (id.clone(), lock(stats).clone())).collect()
    }
}

/// A plugin's first calls, on a worker.
struct Start {
    code: Arc<Code>,
    name: Option<String>,
    config: String,
    seed: u64,
    limits: EffectiveLimits,
}

type Started = std::result::Result<(Arc<Identity>, Descriptor), (&'static str, Option<String>, CallError)>;

impl Start {
    /// `describe` first, as it may give the name; then `init` under that name, in a fresh instance like every call.
    fn run(self) -> Started {
        let Start { code, name, config, seed, limits } = self;
        let instance = |identity: &Arc<Identity>| {
            Instance::new(Arc::clone(&code), Arc::clone(identity), limits, 1, 0, kv::Values::default())
        };
        let unnamed = Arc::new(Identity { name: name.clone().unwrap_or_default(), config, seed });
        let mut first = instance(&unnamed);
        first.start().and_then(|()| first.check_exports()).map_err(|error| ("instantiate", name.clone(), error))?;
        let descriptor = Descriptor::from(first.describe().map_err(|error| ("describe", name.clone(), error))?);
        drop(first);
        descriptor.check().map_err(|fault| ("describe", name.clone(), fault.into()))?;
        let own = name.unwrap_or_else(|| descriptor.name.clone());
        if own.is_empty() {
            let fault = Fault {
                code: "no-name".into(),
                message: "the plugin has no name, neither its own nor one in the run".into(),
                retryable: false,
            };
            return Err(("describe", None, CallError::from(fault)));
        }
        let identity = Arc::new(Identity { name: own, config: unnamed.config.clone(), seed });
        let mut second = instance(&identity);
        let init = second.start().and_then(|()| second.init());
        init.map_err(|error| ("init", Some(identity.name.clone()), error))?;
        Ok((identity, descriptor))
    }
}

/// A plugin that is ready to be called.
pub struct LoadedPlugin {
    runner: Arc<Runner>,
    shared: Arc<Shared>,
    inspection: Inspection,
}

impl std::fmt::Debug for LoadedPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedPlugin").field("id", &self.runner.id).field("limits", &self.runner.limits).finish_non_exhaustive()
    }
}

impl LoadedPlugin {
    /// Which plugin.
    pub fn id(&self) -> &PluginId {
        &self.runner.id
    }

    /// What the plugin says about itself.
    pub fn descriptor(&self) -> &Descriptor {
        &self.runner.descriptor
    }

    /// Its `plugin.toml`, if it carries one.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.inspection.manifest.as_ref()
    }

    /// What its file says.
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// The limits of its calls.
    pub fn limits(&self) -> EffectiveLimits {
        self.runner.limits
    }

    /// Counts since it was loaded.
    pub fn stats(&self) -> PluginStats {
        lock(&self.runner.stats).clone()
    }

    /// The reward function. Its batches are cut into calls of at most 256 rows or 4 MiB.
    pub fn into_reward(self) -> Result<Arc<dyn RewardFn>> {
        Ok(self.expect(PluginKind::Reward)?)
    }

    /// The shaper.
    pub fn into_shaper(self) -> Result<Arc<dyn Shaper>> {
        Ok(self.expect(PluginKind::Shaper)?)
    }

    /// The filter.
    pub fn into_filter(self) -> Result<Arc<dyn Filter>> {
        Ok(self.expect(PluginKind::Filter)?)
    }

    /// One instance by itself, started and initialised, on the caller's thread: for measuring what a call costs without the
    /// pool and without instantiation.
    pub fn instance(&self) -> std::result::Result<DirectInstance, PluginFault> {
        let mut instance = self.runner.instance(1, 0, kv::Values::default());
        instance.start().and_then(|()| instance.init()).map_err(|error| error.fault)?;
        Ok(DirectInstance { instance })
    }

    fn expect(self, expected: PluginKind) -> Result<Arc<WasmPlugin>> {
        if self.runner.id.kind == expected {
            return Ok(Arc::new(WasmPlugin { runner: self.runner, shared: self.shared }));
        }
        Err(Error::WrongKind { plugin: self.runner.id.name.clone(), expected, found: self.runner.id.kind })
    }
}

/// An instance that its caller keeps; see [`LoadedPlugin::instance`].
pub struct DirectInstance {
    instance: Instance,
}

impl DirectInstance {
    /// Calls `score` with the whole batch and checks the answer.
    pub fn score(&mut self, batch: &Arc<Batch>) -> std::result::Result<Rewards, PluginFault> {
        self.instance.score(&BatchView::new(Arc::clone(batch))).map_err(|error| error.fault)
    }

    /// Calls `shape` and checks the answer.
    pub fn shape(&mut self, batch: &Arc<Batch>) -> std::result::Result<Shaped, PluginFault> {
        self.instance.shape(&BatchView::new(Arc::clone(batch))).map_err(|error| error.fault)
    }

    /// Calls `select` and checks the answer.
    pub fn select(&mut self, batch: &Arc<Batch>) -> std::result::Result<Decision, PluginFault> {
        self.instance.select(&BatchView::new(Arc::clone(batch))).map_err(|error| error.fault)
    }
}
