//! A loaded plugin as the rest of the runtime sees it: one type behind the traits of all kinds, since only the call differs.

use std::sync::Arc;

use plumb_core::{Plugin, PluginError, PluginFault, PluginId};

use crate::host::Shared;
use crate::runner::Runner;

/// A plugin on the worker pool. [`crate::LoadedPlugin`] hands it out behind the trait of its kind alone.
pub struct WasmPlugin {
    pub runner: Arc<Runner>,
    pub shared: Arc<Shared>,
}

impl WasmPlugin {
    /// Runs a call on a worker, whose stack is known to suffice, and waits.
    pub fn on_worker<T: Send + 'static>(
        &self,
        export: &'static str,
        call: impl FnOnce(&Runner) -> Result<T, PluginError> + Send + 'static,
    ) -> Result<T, PluginError> {
        let runner = Arc::clone(&self.runner);
        self.shared.pool.run(move || call(&runner)).recv().unwrap_or_else(|_| {
            // The job's channel closed without an answer.
            Err(self.runner.error(export, PluginFault::Host { message: "a worker panicked".into() }))
        })
    }
}

impl Plugin for WasmPlugin {
    fn id(&self) -> &PluginId {
        &self.runner.id
    }

    fn end_step(&self) {
        if !self.runner.merges() {
            return self.runner.end_step();
        }
        let ended = self.on_worker("merge", |runner| {
            runner.end_step();
            Ok(())
        });
        if let Err(error) = ended {
            self.runner.warn(0, format!("what the step left is lost: {error}"));
        }
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
        let state = state.to_vec();
        self.on_worker("state.load", move |runner| runner.load_state(&state))
    }

    fn adopt_state(&self, state: &[u8]) -> Result<(), PluginError> {
        let state = state.to_vec();
        self.on_worker("state.load", move |runner| runner.adopt_state(&state))
    }

    fn retract(&self) {
        self.runner.retract();
    }

    fn asks_models(&self) -> bool {
        self.runner.asks_models
    }
}
