//! The one place that configures wasmtime, so that every process runs plugins alike.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::error::{Error, Result};
use crate::limits;

/// Time between two epochs. Deadlines are multiples of it.
pub const TICK: Duration = Duration::from_millis(10);
/// Stack of a guest. Depth at overflow is part of a plugin's behaviour, so that it does not depend on the thread.
pub const GUEST_STACK_BYTES: usize = 1 << 20;

/// Instances of a worker: that of its call, and that of a tool which the call may be waiting for.
const WORKER_INSTANCES: usize = 2;
/// Instances beyond those of the workers: those that callers hold themselves.
const SPARE_INSTANCES: u32 = 16;
/// Core instances of a component: 6 for Rust, 57 for JavaScript, 115 for Python as their toolchains build them today.
pub const CORE_INSTANCES: u32 = 160;
/// Linear memories of a component: its own and one of an adapter; 3 for JavaScript.
pub const MEMORIES: u32 = 4;
/// Tables of a component: one a module, and those of adapters.
pub const TABLES: u32 = 16;

/// wasmtime's settings. Bit-reproducible results first: fuel for limits, canonical NaNs, deterministic relaxed SIMD, no threads.
fn config(pool: Option<PoolingAllocationConfig>) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .consume_fuel(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .shared_memory(false)
        // Epochs are a kill switch against hangs of the host's own making; fuel stops guests long before.
        .epoch_interruption(true)
        // Guests are called and answer; without tasks and streams a call is a plain call.
        .concurrency_support(false)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .memory_init_cow(true);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn pool(threads: usize) -> PoolingAllocationConfig {
    let instances = u32::try_from(threads.saturating_mul(WORKER_INSTANCES)).unwrap_or(u32::MAX).saturating_add(SPARE_INSTANCES);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .max_component_instance_size(10 << 20)
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .max_core_instance_size(10 << 20)
        .max_memories_per_component(MEMORIES)
        .total_memories(instances.saturating_mul(MEMORIES))
        .max_tables_per_component(TABLES)
        .total_tables(instances.saturating_mul(TABLES))
        .table_elements(limits::TABLE_ELEMENTS)
        // Each plugin is given a slot of its own until that many were used; then the slots of plugins that are gone are taken over.
        .max_unused_warm_slots(instances)
        // Memory of a slot that stays resident after a call: most Rust guests touch less, and then no page is faulted in.
        .linear_memory_keep_resident(2 << 20)
        // Of these, only the pages that a call wrote are cleared, where the kernel tells which (Linux 6.7).
        .pagemap_scan(Enabled::Auto)
        .table_keep_resident(64 << 10);
    pool
}

/// An engine for that many workers: pooled instances, or allocated one by one where address space for the pool is refused
/// (`ulimit -v`, small containers).
pub fn engine(threads: usize) -> Result<Engine> {
    Engine::new(&config(Some(pool(threads))))
        .or_else(|_| Engine::new(&config(None)))
        .map_err(|error| Error::Host { message: format!("{error:#}") })
}

/// Advances the engine's epoch until dropped.
pub struct Ticker {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread.
    pub fn start(engine: &Engine) -> Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let engine = engine.clone();
        let thread = thread::Builder::new()
            .name("plumb-epoch".into())
            .spawn(move || {
                while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
                    engine.increment_epoch();
                }
            })
            .map_err(|error| Error::Host { message: format!("cannot start a thread: {error}") })?;
        Ok(Ticker { stop: Some(stop), thread: Some(thread) })
    }

    /// Epochs of a deadline; one more, since the current one has begun already.
    pub fn epochs(deadline_ms: u64) -> u64 {
        deadline_ms.div_ceil(TICK.as_millis() as u64) + 1
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A ticker that panicked has nothing to clean up.
            let _ = thread.join();
        }
    }
}
