//! `plumb-host`: runs plugins, which are WebAssembly components, within bounds and with results that repeat.
//!
//! Reading order: [`limits`] (what a plugin may use), [`inspect`](mod@inspect) and [`manifest`] (what a file is), `engine` (wasmtime's
//! settings), `bindings` and `context` (what guests see), `instance` (one guest), `answer` (checks of what it says), `runner`
//! (calls, effects and state), `reward`, `step` and `judge` (the kinds), `services` and `tools` (what guests may ask), `host` (loading).
//!
//! Every call runs in a fresh instance, and nothing in it depends on other calls of the same step: random numbers are keyed by
//! what they are for, `kv` and state are read as of the step's begin, limits are counted in fuel. So results do not depend on the number
//! of threads or on retries. How batches are cut is a constant of the runtime, and part of what repeats: the rows of a call share its fuel,
//! so that a row which takes more than its share passes in company and fails alone.

mod answer;
mod bindings;
mod cache;
mod context;
mod descriptor;
mod effects;
mod engine;
mod error;
mod expand;
#[doc(hidden)]
pub mod fuzzing;
mod host;
pub mod inspect;
mod instance;
mod judge;
mod kv;
pub mod limits;
pub mod manifest;
mod meter;
mod plugin;
mod pool;
mod reward;
mod runner;
mod schema;
mod services;
pub mod signature;
mod sink;
mod snapshot;
pub mod stats;
mod step;
mod tally;
mod tools;
mod view;

pub use bindings::WIT_VERSION;
pub use cache::default_dir as default_cache_dir;
pub use descriptor::Descriptor;
pub use error::{Error, Result};
pub use host::{DirectInstance, Host, HostOptions, LoadRequest, LoadedPlugin, Source};
pub use inspect::{Import, Inspection, inspect};
pub use limits::EffectiveLimits;
pub use manifest::{Capability, Manifest, Needs};
pub use signature::{PrivateKey, PublicKey, Signature};
pub use sink::{Collector, Discard, LogLevel, LogLine, Sink};
pub use stats::PluginStats;
pub use tools::PluginTool;
