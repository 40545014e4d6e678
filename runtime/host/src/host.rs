//! The host: an engine, its workers, and how plugins get in.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use plumb_core::recipe::{Grants, LimitsUse, ToolUse};
use plumb_core::services::{Models, NoModels, Tools};
use plumb_core::{
    Batch, Decision, Filter, Judge, PluginError, PluginFault, PluginId, PluginKind, RewardFn, Rewards, Shaped, Shaper,
};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::answer;
use crate::bindings::types::Fault;
use crate::cache::Cache;
use crate::context::Identity;
use crate::descriptor::Descriptor;
use crate::engine::{self, Ticker};
use crate::error::{Error, Result};
use crate::inspect::{Inspection, inspect};
use crate::instance::{CallError, Code, Instance};
use crate::kv;
use crate::limits::{self, EffectiveLimits};
use crate::manifest::Manifest;
use crate::plugin::WasmPlugin;
use crate::pool::Pool;
use crate::runner::{Memory, Runner, lock};
use crate::schema::{self, Refusal};
use crate::services::Services;
use crate::sink::{Discard, LogLevel, LogLine, Sink};
use crate::stats::PluginStats;
use crate::tools::{self, PluginTool, Toolbox};
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
    /// Answers the questions of plugins that are granted models.
    pub models: Arc<dyn Models>,
}

impl Default for HostOptions {
    fn default() -> Self {
        HostOptions { threads: 1, cache_dir: None, seed: 0, sink: Arc::new(Discard), models: Arc::new(NoModels) }
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
    /// Models and tools that it may ask.
    pub grants: Grants,
}

impl LoadRequest {
    /// The plugin in a file, with its own name, no configuration, its own limits and no grants.
    pub fn new(kind: PluginKind, path: impl Into<PathBuf>) -> Self {
        LoadRequest {
            source: Source::Path(path.into()),
            kind,
            name: None,
            config: serde_json::Map::new(),
            limits: LimitsUse::default(),
            grants: Grants::default(),
        }
    }
}

/// What plugins need as long as they live; its threads end with the last of them.
pub struct Shared {
    pub pool: Pool,
    ticker: Arc<Ticker>,
}

/// Runs plugins.
pub struct Host {
    shared: Arc<Shared>,
    engine: Engine,
    cache: Option<Cache>,
    seed: u64,
    sink: Arc<dyn Sink>,
    models: Arc<dyn Models>,
    tools: Arc<dyn Tools>,
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
        let shared = Arc::new(Shared { pool: Pool::start(threads)?, ticker: Arc::new(Ticker::start(&engine)?) });
        Ok(Host {
            shared,
            engine,
            cache,
            seed: options.seed,
            sink: options.sink,
            models: options.models,
            tools: Arc::new(Toolbox::default()),
            stats: Mutex::default(),
        })
    }

    /// Sets up the tools that plugins loaded from now on may be granted. Paths in the tools' configurations start at `folder`;
    /// `resolve` finds a tool plugin.
    ///
    /// # Errors
    /// [`Error::Tool`] for a tool that is neither built in nor a plugin, or both, or whose configuration is wrong; those of
    /// [`Host::load`] and of `resolve`.
    pub fn load_tools<E: From<Error>>(
        &mut self,
        tools: &BTreeMap<String, ToolUse>,
        folder: &Path,
        resolve: impl Fn(&str) -> Result<Source, E>,
    ) -> Result<(), E> {
        let mut toolbox = Toolbox::default();
        for (name, given) in tools {
            let tool = match (given.builtin, &given.plugin) {
                (Some(builtin), None) => tools::builtin(name, builtin, given, folder)?,
                (None, Some(plugin)) => {
                    let request = LoadRequest {
                        source: resolve(plugin)?,
                        kind: PluginKind::Tool,
                        name: Some(name.clone()),
                        config: given.config.clone(),
                        limits: given.limits.clone(),
                        grants: Grants::default(),
                    };
                    Box::new(self.load(request)?.into_tool()?)
                }
                _ => {
                    let message = "exactly one of `builtin` and `plugin` must be there".into();
                    return Err(Error::Tool { tool: name.clone(), message }.into());
                }
            };
            toolbox.insert(name.clone(), tool);
        }
        self.tools = Arc::new(toolbox);
        Ok(())
    }

    /// Loads a plugin: checks what it is, compiles it, and lets it read its configuration.
    ///
    /// # Errors
    /// Every variant of [`Error`]; nothing of the plugin stays behind.
    pub fn load(&self, request: LoadRequest) -> Result<LoadedPlugin> {
        let (label, bytes) = match request.source {
            Source::Bytes(label, bytes) => (label, bytes),
            Source::Path(path) => match read_at_most(&path, limits::COMPONENT_BYTES + 1) {
                Ok(bytes) => (path.display().to_string(), bytes),
                Err(source) => return Err(Error::Read { path, source }),
            },
        };
        let inspection = inspect(&label, &bytes)?;
        let found = inspection.kind;
        if found != request.kind {
            return Err(Error::WrongKind { plugin: label, expected: request.kind, found });
        }
        inspection.refuse_imports(&label, &request.grants)?;
        let keeps_state = match found {
            PluginKind::Shaper | PluginKind::Filter => true,
            PluginKind::Reward => inspection.merges,
            PluginKind::Judge | PluginKind::Tool => false,
        };
        if inspection.stateful && !keeps_state {
            return Err(Error::Stateful { plugin: label, kind: found });
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
        let services = Arc::new(Services::new(Arc::clone(&self.models), Arc::clone(&self.tools), request.grants));
        let code =
            Code::link(&self.engine, &component.map_err(compile)?, found, inspection.stateful, &services).map_err(compile)?;
        let code = Arc::new(code);

        let config = serde_json::Value::Object(request.config);
        let name = request.name.or_else(|| manifest.as_ref().map(|manifest| manifest.name.clone()));
        let start = Start { code: Arc::clone(&code), services: Arc::clone(&services), name, config, seed: self.seed, limits };
        let digest = inspection.digest.clone();
        let started = self.shared.pool.run(move || start.run());
        let started =
            started.recv().map_err(|_| Error::Host { message: format!("a worker panicked while starting `{label}`") })?;
        let (identity, descriptor) = started.map_err(|failed| failed.told(&label, found, &digest))?;

        let mut needs = descriptor.needs_columns.clone();
        needs.extend(manifest.iter().flat_map(|manifest| manifest.needs.columns.clone()));
        let id = PluginId { name: identity.name.clone(), kind: found, digest };
        let stats = Arc::new(Mutex::new(PluginStats::default()));
        lock(&self.stats).push((id.clone(), Arc::clone(&stats)));
        let runner = Runner {
            id,
            code,
            identity,
            services,
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

/// The beginning of a file, or all of it: what is longer than any component is refused by [`inspect`], however long it is.
fn read_at_most(path: &Path, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    std::fs::File::open(path)?.take(bytes).read_to_end(&mut read)?;
    Ok(read)
}

/// A plugin's first calls, on a worker.
struct Start {
    code: Arc<Code>,
    services: Arc<Services>,
    name: Option<String>,
    config: serde_json::Value,
    seed: u64,
    limits: EffectiveLimits,
}

/// Why a plugin did not start.
enum NotStarted {
    /// A call failed: which, under which name, and why.
    Call(&'static str, Option<String>, CallError),
    /// What it describes as the schema of its configuration is none.
    Schema(String),
    /// It does not accept the configuration, or the configuration does not fit its schema.
    Config { code: String, message: String, schema: String },
}

impl NotStarted {
    fn told(self, label: &str, kind: PluginKind, digest: &str) -> Error {
        let plugin = label.to_owned();
        match self {
            NotStarted::Schema(message) => Error::Schema { plugin, message: answer::clip(message) },
            NotStarted::Config { code, message, schema } => Error::Config { plugin, code, message, schema },
            NotStarted::Call(export, name, CallError { mut fault, .. }) => {
                if let PluginFault::OutOfFuel { rows, .. } = &mut fault {
                    // It was not asked about any.
                    *rows = 0;
                }
                let id = PluginId { name: name.unwrap_or_else(|| plugin.clone()), kind, digest: digest.to_owned() };
                Error::Start { plugin, source: PluginError { plugin: id, export, fault } }
            }
        }
    }
}

impl Start {
    /// `describe` first, as it may give the name, and the schema of the configuration; then `init` under that name, in a fresh
    /// instance like every call.
    fn run(self) -> std::result::Result<(Arc<Identity>, Descriptor), NotStarted> {
        let Start { code, services, name, config, seed, limits } = self;
        let instance = |identity: &Arc<Identity>| {
            let (code, identity, services) = (Arc::clone(&code), Arc::clone(identity), Arc::clone(&services));
            Instance::new(code, identity, services, limits, 1, 0, kv::Values::default())
        };
        let unnamed = Arc::new(Identity { name: name.clone().unwrap_or_default(), config: config.to_string(), seed });
        let mut first = instance(&unnamed);
        let started = first.start().and_then(|()| first.check_exports());
        started.map_err(|error| NotStarted::Call("instantiate", name.clone(), error))?;
        let descriptor = first.describe().map_err(|error| NotStarted::Call("describe", name.clone(), error))?;
        let descriptor = Descriptor::from(descriptor);
        drop(first);
        descriptor.check().map_err(|fault| NotStarted::Call("describe", name.clone(), fault.into()))?;
        let own = name.unwrap_or_else(|| descriptor.name.clone());
        if own.is_empty() {
            let fault = Fault {
                code: "no-name".into(),
                message: "the plugin has no name, neither its own nor one in the run".into(),
                retryable: false,
            };
            return Err(NotStarted::Call("describe", None, CallError::from(fault)));
        }
        let schema = || descriptor.config_schema.clone();
        schema::check(&descriptor.config_schema, &config).map_err(|refusal| match refusal {
            Refusal::Schema(message) => NotStarted::Schema(message),
            Refusal::Config(message) => NotStarted::Config { code: "schema".into(), message, schema: schema() },
        })?;
        let identity = Arc::new(Identity { name: own, config: unnamed.config.clone(), seed });
        let mut second = instance(&identity);
        let init = second.start().and_then(|()| second.init());
        init.map_err(|error| match error.fault {
            PluginFault::Fault { code, message } => NotStarted::Config { code, message, schema: schema() },
            _ => NotStarted::Call("init", Some(identity.name.clone()), error),
        })?;
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

    /// The judge. Its turns may ask the models that it was granted; whoever drives it puts the questions.
    pub fn into_judge(self) -> Result<Arc<dyn Judge>> {
        Ok(self.expect(PluginKind::Judge)?)
    }

    /// The tool.
    pub fn into_tool(self) -> Result<PluginTool> {
        let WasmPlugin { runner, shared } = &*self.expect(PluginKind::Tool)?;
        Ok(PluginTool { runner: Arc::clone(runner), _ticker: Arc::clone(&shared.ticker) })
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
