//! Shapers and filters: they see a whole step at once, answer it or fail it, and may keep state from step to step.

use std::sync::Arc;

use plumb_core::{Batch, Decision, Filter, PluginError, Shaped, Shaper};

use crate::instance::{CallError, Instance};
use crate::plugin::WasmPlugin;
use crate::runner::lock;
use crate::stats::count_code;
use crate::view::BatchView;

impl WasmPlugin {
    fn answer<T: Send + 'static>(
        &self,
        batch: &Batch,
        export: &'static str,
        call: fn(&mut Instance, &BatchView) -> Result<T, CallError>,
    ) -> Result<T, PluginError> {
        let batch = Arc::new(batch.clone());
        let rows = batch.rows();
        let answer = self.on_worker(export, move |runner| runner.call_with_state(&batch, export, call))?;
        lock(&self.runner.stats).counts.rows += rows as u64;
        Ok(answer)
    }
}

impl Shaper for WasmPlugin {
    fn shape(&self, batch: &Batch) -> Result<Shaped, PluginError> {
        let shaped = self.answer(batch, "shape", Instance::shape)?;
        let mut stats = lock(&self.runner.stats);
        for (_, fault) in &shaped.faults {
            count_code(&mut stats.counts.row_faults, &fault.code);
        }
        drop(stats);
        Ok(shaped)
    }
}

impl Filter for WasmPlugin {
    fn select(&self, batch: &Batch) -> Result<Decision, PluginError> {
        self.answer(batch, "select", Instance::select)
    }
}
