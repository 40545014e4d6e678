//! Why a plugin could not be inspected or loaded. What goes wrong in a call is [`plumb_core::PluginError`].

use std::io;
use std::path::PathBuf;

use plumb_core::{PluginError, PluginKind};

/// An error of the plugin host. `plugin` is what the caller named: a path, or the name given with the bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the plugin file `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no WebAssembly component.
    #[error("`{plugin}` is not a WebAssembly component: {found}")]
    NotAComponent {
        /// Which plugin.
        plugin: String,
        /// What it is instead.
        found: String,
    },
    /// The file begins as a component, but its bytes break off or make no sense.
    #[error("`{plugin}` is damaged at byte {offset} of {size}: {message}")]
    Malformed {
        /// Which plugin.
        plugin: String,
        /// Where reading stopped.
        offset: u64,
        /// Length of the file in bytes.
        size: u64,
        /// What the parser says.
        message: String,
    },
    /// Compiling hostile or huge code takes unbounded time, so that the size is bounded first.
    #[error("`{plugin}` has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Which plugin.
        plugin: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Components within the component, or core modules, are instantiated beyond reason.
    #[error("`{plugin}` becomes more than {limit} instances when it is instantiated; no toolchain makes such a component")]
    TooManyInstances {
        /// Which plugin.
        plugin: String,
        /// The limit.
        limit: u64,
    },
    /// A component, but not one that exports an interface of `plumb:align`.
    #[error(
        "`{plugin}` exports none of plumb:align's interfaces rewarding, shaping, judging, filtering and tooling; its exports are: {}",
        list(exports)
    )]
    NotAPlugin {
        /// Which plugin.
        plugin: String,
        /// Names of its exports.
        exports: Vec<String>,
    },
    /// The component exports the interfaces of several kinds.
    #[error("`{plugin}` exports {}; a plugin has exactly one kind", list(interfaces))]
    SeveralKinds {
        /// Which plugin.
        plugin: String,
        /// The interfaces.
        interfaces: Vec<String>,
    },
    /// The component was built against another version of the interface.
    #[error("`{plugin}` is built for `{interface}`, this host speaks plumb:align {supported}")]
    WitVersion {
        /// Which plugin.
        plugin: String,
        /// The interface with the version that does not fit.
        interface: String,
        /// The host's version.
        supported: &'static str,
    },
    /// A plugin, but not of the kind that was asked for.
    #[error("`{plugin}` is a {found} plugin, a {expected} plugin is needed here")]
    WrongKind {
        /// Which plugin.
        plugin: String,
        /// Kind that the caller needs.
        expected: PluginKind,
        /// Kind of the component.
        found: PluginKind,
    },
    /// The component imports what no plugin may have.
    #[error("`{plugin}` imports `{import}`, which plugins do not get: {meaning}; {fix}")]
    UnknownImport {
        /// Which plugin.
        plugin: String,
        /// Name of the import.
        import: String,
        /// What it would give the plugin.
        meaning: &'static str,
        /// What the author can do.
        fix: &'static str,
    },
    /// The plugin asks models or tools, which it is not granted.
    #[error("`{plugin}` asks {capability}, which it is not granted: {fix}")]
    NotGranted {
        /// Which plugin.
        plugin: String,
        /// The capability: `models` or `tools`.
        capability: &'static str,
        /// The lines to add, and where.
        fix: String,
    },
    /// A tool of the recipe cannot be set up.
    #[error("tool `{tool}` cannot be set up: {message}")]
    Tool {
        /// Its name in the recipe.
        tool: String,
        /// Why.
        message: String,
    },
    /// The plugin's own JSON schema of its configuration is none.
    #[error("what `{plugin}` describes as the JSON schema of its configuration is none: {message}")]
    Schema {
        /// Which plugin.
        plugin: String,
        /// What is wrong.
        message: String,
    },
    /// The embedded `plugin.toml` cannot be read or contradicts the component.
    #[error("the manifest (plugin.toml) of `{plugin}` is wrong: {message}")]
    Manifest {
        /// Which plugin.
        plugin: String,
        /// What is wrong.
        message: String,
    },
    /// A plugin exports `state` whose kind cannot have one.
    #[error(
        "{kind} plugin `{plugin}` exports `state`, but calls of its kind are made side by side and have no order; {}",
        match kind {
            PluginKind::Reward => "export `merging` too, which makes one state of those after each call, or keep values in `kv`",
            PluginKind::Tool => "a tool keeps nothing",
            _ => "keep values in `kv`",
        }
    )]
    Stateful {
        /// Which plugin.
        plugin: String,
        /// Its kind.
        kind: PluginKind,
    },
    /// A limit in the recipe or the manifest is out of range.
    #[error("limit `{limit}` of `{plugin}` is {value}, it must be {allowed}")]
    Limit {
        /// Which plugin.
        plugin: String,
        /// Name of the limit.
        limit: &'static str,
        /// The value given.
        value: u64,
        /// The range.
        allowed: &'static str,
    },
    /// A manifest asks for more than a plugin may grant itself.
    #[error(
        "the manifest (plugin.toml) of `{plugin}` asks for `{limit}` = {value}, a plugin may ask for at most {ceiling}; to allow more, set it in the recipe (`limits`)"
    )]
    ManifestLimit {
        /// Which plugin.
        plugin: String,
        /// Name of the limit.
        limit: &'static str,
        /// The value asked for.
        value: u64,
        /// The most that a manifest can have.
        ceiling: u64,
    },
    /// The plugin does not accept its configuration.
    #[error("`{plugin}` does not accept its configuration (`{code}`): {message}")]
    Config {
        /// Which plugin.
        plugin: String,
        /// The plugin's code.
        code: String,
        /// The plugin's message.
        message: String,
        /// The JSON schema of its configurations; empty where it describes none.
        schema: String,
    },
    /// The compiler refuses the component, or it does not fit the interface's types.
    #[error("cannot compile `{plugin}`: {message}")]
    Compile {
        /// Which plugin.
        plugin: String,
        /// wasmtime's words.
        message: String,
    },
    /// The plugin failed in `describe` or `init`.
    #[error("`{plugin}` does not start")]
    Start {
        /// Which plugin.
        plugin: String,
        /// The failed call.
        #[source]
        source: PluginError,
    },
    /// wasmtime or the operating system refuses what the host needs.
    #[error("the plugin host does not start: {message}")]
    Host {
        /// What happened.
        message: String,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Stable code for `--json` and tests.
    pub fn code(&self) -> String {
        match self {
            Error::Read { .. } => "plugin.read",
            Error::NotAComponent { .. } => "plugin.not_a_component",
            Error::Malformed { .. } => "plugin.malformed",
            Error::TooLarge { .. } => "plugin.too_large",
            Error::TooManyInstances { .. } => "plugin.too_many_instances",
            Error::NotAPlugin { .. } => "plugin.not_a_plugin",
            Error::SeveralKinds { .. } => "plugin.several_kinds",
            Error::WitVersion { .. } => "plugin.wit_version",
            Error::WrongKind { .. } => "plugin.wrong_kind",
            Error::UnknownImport { .. } => "plugin.unknown_import",
            Error::NotGranted { .. } => "plugin.not_granted",
            Error::Manifest { .. } => "plugin.manifest",
            Error::Tool { .. } => "tool.config",
            Error::Schema { .. } => "plugin.schema",
            Error::Stateful { .. } => "plugin.stateful",
            Error::Limit { .. } => "plugin.limit",
            Error::ManifestLimit { .. } => "plugin.manifest_limit",
            Error::Config { .. } => "plugin.config",
            Error::Compile { .. } => "plugin.compile",
            Error::Start { source, .. } => return format!("plugin.{}", source.fault.code()),
            Error::Host { .. } => "plugin.host",
        }
        .to_owned()
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ") }
}
