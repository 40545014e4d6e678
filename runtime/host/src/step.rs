//! Shapers and filters: they see a whole step at once, answer it or fail it, and may keep state from step to step.

use std::sync::Arc;

use plumb_core::{Batch, Decision, Filter, Plugin, PluginError, PluginFault, PluginId, Shaped, Shaper};

use crate::host::Shared;
use crate::instance::{CallError, Instance};
use crate::runner::{Runner, lock};
use crate::stats::count_code;
use crate::view::BatchView;

/// A shaper or filter on the worker pool.
pub struct WasmStep {
    pub runner: Arc<Runner>,
    pub shared: Arc<Shared>,
}

impl WasmStep {
    /// Runs a call on a worker, whose stack is known to suffice, and waits.
    fn run<T: Send + 'static>(
        &self,
        batch: &Batch,
        export: &'static str,
        call: fn(&mut Instance, &BatchView) -> Result<T, CallError>,
    ) -> Result<T, PluginError> {
        let (runner, batch) = (Arc::clone(&self.runner), Arc::new(batch.clone()));
        let rows = batch.rows();
        let answer = self.shared.pool.run(move || runner.call_with_state(&batch, export, call));
        let answer = answer.recv().map_err(|_| self.lost(export))??;
        lock(&self.runner.stats).counts.rows += rows as u64;
        Ok(answer)
    }

    /// A job's channel closed without an answer.
    fn lost(&self, export: &'static str) -> PluginError {
        self.runner.error(export, PluginFault::Host { message: "a worker panicked".into() })
    }
}

impl Plugin for WasmStep {
    fn id(&self) -> &PluginId {
        &self.runner.id
    }

    fn end_step(&self) {
        self.runner.end_step();
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.runner.take_metrics()
    }

    fn busy_s(&self) -> Option<f64> {
        Some(self.runner.busy_s())
    }

    fn save_state(&self) -> Result<Option<Vec<u8>>, PluginError> {
        Ok(self.runner.save_state())
    }

    fn load_state(&self, state: &[u8]) -> Result<(), PluginError> {
        let (runner, state) = (Arc::clone(&self.runner), state.to_vec());
        let loaded = self.shared.pool.run(move || runner.load_state(&state));
        loaded.recv().unwrap_or_else(|_| Err(self.lost("state.load")))
    }
}

impl Shaper for WasmStep {
    fn shape(&self, batch: &Batch) -> Result<Shaped, PluginError> {
        let shaped = self.run(batch, "shape", Instance::shape)?;
        let mut stats = lock(&self.runner.stats);
        for (_, fault) in &shaped.faults {
            count_code(&mut stats.counts.row_faults, &fault.code);
        }
        drop(stats);
        Ok(shaped)
    }
}

impl Filter for WasmStep {
    fn select(&self, batch: &Batch) -> Result<Decision, PluginError> {
        self.run(batch, "select", Instance::select)
    }
}
