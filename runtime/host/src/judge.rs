//! Judges: a turn is one call on a fresh instance, and what a judge remembers travels in its memo. So a turn can be asked again,
//! on any worker, and the runtime may put the questions of many judges to a model at once.

use std::sync::Arc;

use plumb_core::services::Generated;
use plumb_core::{Batch, Judge, PluginError, Turn};

use crate::bindings::types;
use crate::instance::{CallError, Instance};
use crate::plugin::WasmPlugin;
use crate::runner::lock;
use crate::services::to_guest;
use crate::stats::count_code;
use crate::view::BatchView;

impl WasmPlugin {
    fn turn(
        &self,
        batch: &Arc<Batch>,
        export: &'static str,
        call: impl Fn(&mut Instance, &BatchView) -> Result<Turn, CallError> + Send + 'static,
    ) -> Result<Turn, PluginError> {
        let batch = Arc::clone(batch);
        self.on_worker(export, move |runner| {
            runner.check_columns(&batch).map_err(|fault| runner.error(export, fault))?;
            let (ticket, view) = (runner.ticket(), BatchView::new(batch));
            let once = || runner.call(&ticket, &view, |instance| call(instance, &view));
            let turn = runner.call_again(CallError::may_pass, once).map_err(|error| runner.error(export, error.fault))?;
            if let Turn::Done(verdicts) = &turn {
                let mut stats = lock(&runner.stats);
                stats.counts.rows += view.rows() as u64;
                verdicts.faults.iter().for_each(|(_, fault)| count_code(&mut stats.counts.row_faults, &fault.code));
            }
            Ok(turn)
        })
    }
}

impl Judge for WasmPlugin {
    fn begin(&self, batch: &Arc<Batch>) -> Result<Turn, PluginError> {
        self.turn(batch, "begin", Instance::begin)
    }

    fn resume(&self, batch: &Arc<Batch>, memo: &[u8], answers: &[Generated]) -> Result<Turn, PluginError> {
        let memo = memo.to_vec();
        let answers: Vec<types::Generated> = answers.iter().map(to_guest).collect();
        self.turn(batch, "resume", move |instance, view| instance.resume(view, &memo, &answers))
    }
}
