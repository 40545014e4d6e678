//! Write plugins for the `plumb` alignment runtime: a struct, a trait, one macro.
//!
//! A plugin is one of [`reward`], [`shaper`], [`judge`], [`filter`] and [`tool`]. It compiles to a sandboxed WebAssembly component
//! (`plumb plugin build`), and natively for its unit tests, where [`testing`] stands in for the runtime.
//!
//! ```
//! use plumb_sdk::reward::{Descriptor, Fault, Reward, Row, Score};
//! use plumb_sdk::testing::BatchBuilder;
//!
//! /// What a recipe may set.
//! #[derive(serde::Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Config {
//!     max_words: usize,
//! }
//!
//! impl Default for Config {
//!     fn default() -> Self {
//!         Config { max_words: 50 }
//!     }
//! }
//!
//! /// 1 for an answer of at most `max_words` words, else 0. An empty answer has no reward at all.
//! struct Brevity {
//!     config: Config,
//! }
//!
//! impl Reward for Brevity {
//!     type Config = Config;
//!     const DESCRIPTOR: Descriptor = plumb_sdk::descriptor!().needs_columns(&["completion"]).outputs(&["words"]);
//!
//!     fn new(config: Config) -> Result<Self, Fault> {
//!         if config.max_words == 0 {
//!             return Err(Fault::bad_config("`max_words` must be at least 1"));
//!         }
//!         Ok(Brevity { config })
//!     }
//!
//!     fn score_row(&self, row: &Row) -> Result<Score, Fault> {
//!         let words = row.text("completion")?.split_whitespace().count();
//!         if words == 0 {
//!             return Err(Fault::abstain("the completion is empty"));
//!         }
//!         Ok(Score::new(f64::from(words <= self.config.max_words)).part("words", words as f64))
//!     }
//! }
//!
//! plumb_sdk::export_reward!(Brevity);
//!
//! // A unit test, without WebAssembly:
//! # fn main() {
//! use plumb_sdk::reward::BatchReward;
//! let brevity: Brevity = plumb_sdk::testing::reward(r#"{"max_words": 2}"#).unwrap();
//! let data = BatchBuilder::new().text("completion", ["two words", "three words here", ""]).build();
//! let rewards = brevity.score(&data.batch()).unwrap();
//! assert_eq!(rewards.values[..2], [1.0, 0.0]);
//! assert_eq!((rewards.faults[0].row, rewards.faults[0].fault.code.as_str()), (2, Fault::ABSTAIN));
//! # }
//! ```
//!
//! # Rules of the sandbox
//! - What a plugin may ask besides its batch, [`models`] and [`tools`], it declares in `plugin.toml`, and a recipe grants it.
//! - There is no clock, file, network or environment. Random numbers come from [`random`], which is a pure function.
//! - A call has limits in fuel, memory and time (`[limits]` in `plugin.toml`). A panic is logged and fails the call.
//! - An instance may be dropped between any two calls. What must last goes to [`kv`], or to the [`State`] of a
//!   [`shaper`](export_stateful_shaper) or a [`reward`](reward::StatefulReward).

mod batch;
mod descriptor;
mod fault;
mod runtime;
mod state;

pub mod filter;
pub mod judge;
pub mod models;
pub mod reward;
pub mod shaper;
pub mod tool;
pub mod tools;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[allow(missing_docs, clippy::pedantic)]
pub mod guest;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use batch::{Batch, Ragged, Row, Texts};
pub use descriptor::{Descriptor, Part};
pub use fault::{Fault, RowFault};
pub use runtime::{kv, log, metrics, random};
pub use state::State;

/// For `export_*!`: reads the configuration's JSON.
///
/// # Errors
/// `bad-config` with the place and the reason.
#[doc(hidden)]
pub fn parse_config<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Fault> {
    fault::parse_config(json)
}

/// Checks the plugin's type; there is nothing to export natively.
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    (reward, $plugin:ty) => {
        const _: $crate::Descriptor = <$plugin as $crate::reward::BatchReward>::DESCRIPTOR;
    };
    (stateful_reward, $plugin:ty) => {
        const _: $crate::Descriptor = <$plugin as $crate::reward::BatchReward>::DESCRIPTOR;
        const _: fn(&mut $plugin, &[::std::vec::Vec<u8>]) -> ::core::result::Result<(), $crate::Fault> =
            <$plugin as $crate::reward::StatefulReward>::merge;
    };
    (shaper, $plugin:ty) => {
        const _: $crate::Descriptor = <$plugin as $crate::shaper::Shaper>::DESCRIPTOR;
    };
    (stateful_shaper, $plugin:ty) => {
        const _: $crate::Descriptor = <$plugin as $crate::shaper::Shaper>::DESCRIPTOR;
        const _: fn(&$plugin) -> ::core::result::Result<::std::vec::Vec<u8>, $crate::Fault> = <$plugin as $crate::State>::save;
    };
    (filter, $plugin:ty) => {
        const _: $crate::Descriptor = <$plugin as $crate::filter::Filter>::DESCRIPTOR;
    };
    (judge, $plugin:ty) => {
        const _: $crate::Descriptor = <$plugin as $crate::judge::Judge>::DESCRIPTOR;
    };
    (tool, $plugin:ty) => {
        const _: $crate::Descriptor = <$plugin as $crate::tool::Tool>::DESCRIPTOR;
    };
}
