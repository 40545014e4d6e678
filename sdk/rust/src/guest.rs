//! The SDK inside a component: bindings to `plumb:align`, and the way from an exported function to a plugin's trait.
//!
//! Each exported interface has a world of its own, so that a plugin's exports are put together from the parts it has (the
//! lifecycle, its kind, state), and the shared types are generated once.

use std::marker::PhantomData;

use crate::batch::{Batch, Ragged, Source, Texts};
use crate::descriptor::{Descriptor, Part};
use crate::fault::{Fault, RowFault};

pub mod capabilities;
mod exports;

/// Imports, shared types and the lifecycle.
pub mod base {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "plumb:align/base",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export",
    });
}

/// Bindings of one exported interface, on top of the types in [`base`].
macro_rules! exported_interface {
    ($module:ident, $world:literal, $inline:literal, { $($with:tt)* }) => {
        #[doc = concat!("The export of `", $world, "`.")]
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                inline: $inline,
                world: $world,
                with: { $($with)* },
                pub_export_macro: true,
                export_macro_name: "export",
            });
        }
    };
}

exported_interface!(reward, "plumb:sdk/only-rewarding", "package plumb:sdk; world only-rewarding { export plumb:align/rewarding@0.1.1; }", {
    "plumb:align/types@0.1.1": crate::guest::base::plumb::align::types,
    "plumb:align/data@0.1.1": crate::guest::base::plumb::align::data,
});
exported_interface!(shaper, "plumb:sdk/only-shaping", "package plumb:sdk; world only-shaping { export plumb:align/shaping@0.1.1; }", {
    "plumb:align/types@0.1.1": crate::guest::base::plumb::align::types,
    "plumb:align/data@0.1.1": crate::guest::base::plumb::align::data,
});
exported_interface!(judge, "plumb:sdk/only-judging", "package plumb:sdk; world only-judging { export plumb:align/judging@0.1.1; }", {
    "plumb:align/types@0.1.1": crate::guest::base::plumb::align::types,
    "plumb:align/data@0.1.1": crate::guest::base::plumb::align::data,
});
exported_interface!(filter, "plumb:sdk/only-filtering", "package plumb:sdk; world only-filtering { export plumb:align/filtering@0.1.1; }", {
    "plumb:align/types@0.1.1": crate::guest::base::plumb::align::types,
    "plumb:align/data@0.1.1": crate::guest::base::plumb::align::data,
});
exported_interface!(tool, "plumb:sdk/only-tooling", "package plumb:sdk; world only-tooling { export plumb:align/tooling@0.1.1; }", {
    "plumb:align/types@0.1.1": crate::guest::base::plumb::align::types,
});
exported_interface!(merging, "plumb:sdk/only-merging", "package plumb:sdk; world only-merging { export plumb:align/merging@0.1.1; }", {
    "plumb:align/types@0.1.1": crate::guest::base::plumb::align::types,
});
exported_interface!(state, "plumb:sdk/only-state", "package plumb:sdk; world only-state { export plumb:align/state@0.1.1; }", {
    "plumb:align/types@0.1.1": crate::guest::base::plumb::align::types,
});

use base::plumb::align::{data, types};

/// A crate's plugin: `export_*!` says where its one instance lives.
pub trait Exported: Sized + 'static {
    /// What the plugin says about itself.
    const DESCRIPTOR: Descriptor;

    /// Builds the plugin from the configuration's JSON.
    fn configure(json: &str) -> Result<Self, Fault>;

    /// Takes note of what a reward with state answered; others have nothing to note.
    fn observe(&mut self, _: &Batch, _: &crate::reward::Rewards) -> Result<(), Fault> {
        Ok(())
    }

    /// Gives access to the instance, None before `init`.
    fn with<R>(use_it: impl FnOnce(&mut Option<Self>) -> R) -> R;
}

/// Implements the interfaces for a plugin.
pub struct Component<T>(PhantomData<T>);

/// Calls `use_it` on the configured plugin.
fn with_plugin<T: Exported, R>(use_it: impl FnOnce(&mut T) -> Result<R, Fault>) -> Result<R, types::Fault> {
    T::with(|plugin| match plugin {
        Some(plugin) => use_it(plugin),
        None => Err(Fault::new("not-initialized", "called before `init` succeeded")),
    })
    .map_err(Into::into)
}

/// Sends panic messages to the run's log, as the trap that follows carries none.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        base::plumb::align::log::write(base::plumb::align::log::Level::Error, &info.to_string(), &[]);
    }));
}

impl<T: Exported> base::exports::plumb::align::lifecycle::Guest for Component<T> {
    fn describe() -> base::exports::plumb::align::lifecycle::Descriptor {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let descriptor = T::DESCRIPTOR;
        base::exports::plumb::align::lifecycle::Descriptor {
            name: descriptor.name.to_owned(),
            version: descriptor.version.to_owned(),
            config_schema: descriptor.config_schema.to_owned(),
            needs_columns: owned(descriptor.needs_columns),
            outputs: owned(descriptor.outputs),
            state_version: descriptor.state_version,
            extra: Vec::new(),
        }
    }

    fn init() -> Result<(), types::Fault> {
        log_panics();
        let plugin = T::configure(&base::plumb::align::config::json())?;
        T::with(|slot| *slot = Some(plugin));
        Ok(())
    }
}

/// A batch of the host's.
struct HostBatch<'a>(&'a data::Batch);

impl Source for HostBatch<'_> {
    fn rows(&self) -> usize {
        self.0.rows() as usize
    }
    fn step(&self) -> u64 {
        self.0.step()
    }
    fn row_ids(&self) -> Vec<u64> {
        self.0.row_ids()
    }
    fn group_ends(&self) -> Vec<u32> {
        self.0.group_ends()
    }
    fn columns(&self) -> Vec<String> {
        self.0.columns()
    }
    fn attr(&self, name: &str) -> Option<String> {
        self.0.attr(name)
    }
    fn text(&self, column: &str) -> Option<Texts> {
        self.0.text(column).map(Into::into)
    }
    fn f64s(&self, column: &str) -> Option<Vec<f64>> {
        self.0.f64s(column)
    }
    fn u32s(&self, column: &str) -> Option<Vec<u32>> {
        self.0.u32s(column)
    }
    fn tokens(&self, column: &str) -> Option<Ragged<u32>> {
        self.0.tokens(column).map(Into::into)
    }
    fn token_f32s(&self, column: &str) -> Option<Ragged<f32>> {
        self.0.token_f32s(column).map(Into::into)
    }
    fn f64_lists(&self, column: &str) -> Option<Ragged<f64>> {
        self.0.f64_lists(column).map(|ragged| Ragged { values: ragged.values, ends: ragged.ends })
    }
    fn bytes(&self, column: &str) -> Option<Texts> {
        self.0.bytes(column).map(Into::into)
    }
}

impl From<types::Texts> for Texts {
    fn from(texts: types::Texts) -> Self {
        Texts { bytes: texts.bytes, ends: texts.ends }
    }
}

impl From<Texts> for types::Texts {
    fn from(texts: Texts) -> Self {
        types::Texts { bytes: texts.bytes, ends: texts.ends }
    }
}

impl From<Ragged<u32>> for types::RaggedU32 {
    fn from(ragged: Ragged<u32>) -> Self {
        types::RaggedU32 { values: ragged.values, ends: ragged.ends }
    }
}

impl From<types::RaggedU32> for Ragged<u32> {
    fn from(ragged: types::RaggedU32) -> Self {
        Ragged { values: ragged.values, ends: ragged.ends }
    }
}

impl From<types::RaggedF32> for Ragged<f32> {
    fn from(ragged: types::RaggedF32) -> Self {
        Ragged { values: ragged.values, ends: ragged.ends }
    }
}

impl From<Ragged<f32>> for types::RaggedF32 {
    fn from(ragged: Ragged<f32>) -> Self {
        types::RaggedF32 { values: ragged.values, ends: ragged.ends }
    }
}

impl From<Part> for types::NamedF64 {
    fn from(part: Part) -> Self {
        types::NamedF64 { name: part.name, values: part.values }
    }
}

impl From<Fault> for types::Fault {
    fn from(fault: Fault) -> Self {
        types::Fault { code: fault.code, message: fault.message, retryable: fault.retryable }
    }
}

impl From<types::Fault> for Fault {
    fn from(fault: types::Fault) -> Self {
        Fault { code: fault.code, message: fault.message, retryable: fault.retryable }
    }
}

impl From<RowFault> for types::RowFault {
    fn from(fault: RowFault) -> Self {
        types::RowFault { row: fault.row, fault: fault.fault.into() }
    }
}

/// Converts each element.
fn each<A: Into<B>, B>(list: Vec<A>) -> Vec<B> {
    list.into_iter().map(Into::into).collect()
}

/// Puts a plugin's exports together.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    (@part $bindings:ident) => {
        $crate::guest::$bindings::export!(Component with_types_in $crate::guest::$bindings);
    };
    (@slot $plugin:ty, $trait:path $(, $more:item)*) => {
        type Component = $crate::guest::Component<$plugin>;
        impl $crate::guest::Exported for $plugin {
            const DESCRIPTOR: $crate::Descriptor = <$plugin as $trait>::DESCRIPTOR;

            fn configure(json: &str) -> ::core::result::Result<Self, $crate::Fault> {
                <$plugin as $trait>::new($crate::parse_config(json)?)
            }

            $($more)*

            fn with<R>(use_it: impl FnOnce(&mut ::core::option::Option<Self>) -> R) -> R {
                ::std::thread_local! {
                    static PLUGIN: ::core::cell::RefCell<::core::option::Option<$plugin>> = const { ::core::cell::RefCell::new(None) };
                }
                PLUGIN.with_borrow_mut(use_it)
            }
        }
        $crate::__export!(@part base);
    };
    (reward, $plugin:ty) => {
        const _: () = {
            $crate::__export!(@slot $plugin, $crate::reward::BatchReward);
            $crate::__export!(@part reward);
        };
    };
    (stateful_reward, $plugin:ty) => {
        const _: () = {
            $crate::__export!(@slot $plugin, $crate::reward::BatchReward,
                fn observe(&mut self, batch: &$crate::Batch, rewards: &$crate::reward::Rewards) -> ::core::result::Result<(), $crate::Fault> {
                    $crate::reward::StatefulReward::observe(self, batch, rewards)
                });
            $crate::__export!(@part reward);
            $crate::__export!(@part state);
            $crate::__export!(@part merging);
        };
    };
    (shaper, $plugin:ty) => {
        const _: () = {
            $crate::__export!(@slot $plugin, $crate::shaper::Shaper);
            $crate::__export!(@part shaper);
        };
    };
    (stateful_shaper, $plugin:ty) => {
        const _: () = {
            $crate::__export!(@slot $plugin, $crate::shaper::Shaper);
            $crate::__export!(@part shaper);
            $crate::__export!(@part state);
        };
    };
    (filter, $plugin:ty) => {
        const _: () = {
            $crate::__export!(@slot $plugin, $crate::filter::Filter);
            $crate::__export!(@part filter);
        };
    };
    (judge, $plugin:ty) => {
        const _: () = {
            $crate::__export!(@slot $plugin, $crate::judge::Judge);
            $crate::__export!(@part judge);
        };
    };
    (tool, $plugin:ty) => {
        const _: () = {
            $crate::__export!(@slot $plugin, $crate::tool::Tool);
            $crate::__export!(@part tool);
        };
    };
}
