//! Rust types of the WIT package `plumb:align`, generated from the repository's `wit/` folder.

mod generated {
    // One world with everything: each export is looked up by itself, so that a component needs only those of its kind, and all
    // kinds share their types.
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package plumb:host;
            world everything {
                include plumb:align/reward@0.1.1;
                include plumb:align/shaper@0.1.1;
                include plumb:align/filter@0.1.1;
                include plumb:align/judge@0.1.1;
                include plumb:align/tool@0.1.1;
                include plumb:align/mergeable@0.1.1;
                import plumb:align/models@0.1.1;
                import plumb:align/tools@0.1.1;
            }
        ",
        world: "plumb:host/everything",
        imports: { default: trappable },
        with: { "plumb:align/data.batch": crate::view::BatchView },
    });
}

pub use generated::exports::plumb::align::{filtering, judging, lifecycle, merging, rewarding, shaping, state, tooling};
pub use generated::plumb::align::{config, data, kv, log, metrics, models, random, tools, types};

/// Version of `plumb:align` that this host speaks; it serves components built for any 0.1.x that use no more than this.
pub const WIT_VERSION: &str = "0.1.1";
