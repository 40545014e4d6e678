//! Tool plugins: a fresh instance per call on the thread of whoever calls, and a fault costs only the rows it comes from.

use std::sync::Arc;

use plumb_core::Texts;
use plumb_core::services::{ServiceFault, ToolOutputs};

use super::Tool;
use crate::engine::Ticker;
use crate::instance::CallError;
use crate::kv;
use crate::runner::Runner;

/// Rows in a row that fail by themselves before the rest of a call gets the same fault.
const HOPELESS: usize = 16;

/// A tool plugin. It has no step and keeps nothing: calls of other plugins come from many threads and have no order, so what it
/// writes to `kv` and `metrics` is forgotten. Its log lines reach the log.
pub struct PluginTool {
    pub(crate) runner: Arc<Runner>,
    /// Keeps the clock of deadlines going. The pool is not held: a worker that drops the last user of its own pool would wait for
    /// itself.
    pub(crate) _ticker: Arc<Ticker>,
}

impl PluginTool {
    /// One answer per row of `arguments`, on the caller's thread.
    pub fn answer(&self, arguments: &Texts) -> ToolOutputs {
        Tool::call(self, arguments)
    }

    fn call_once(&self, arguments: &Texts) -> Result<ToolOutputs, CallError> {
        let once = || self.runner.invoke(arguments.len(), 0, kv::Values::default(), |instance| instance.call_tool(arguments));
        self.runner.call_again(CallError::may_pass, once).map(|(outputs, _)| outputs)
    }
}

impl Tool for PluginTool {
    fn call(&self, arguments: &Texts) -> ToolOutputs {
        let rows = arguments.len();
        let first = match self.call_once(arguments) {
            Ok(outputs) => return outputs,
            Err(error) => error,
        };
        if rows == 1 || first.of_every_row() {
            return vec![Err(fault(&first)); rows];
        }
        // Some row breaks the call: each by itself.
        let mut outputs = Vec::with_capacity(rows);
        let mut failures = 0;
        for row in 0..rows {
            let one: Texts = [arguments.bytes_at(row)].into_iter().collect();
            let output = match self.call_once(&one) {
                Ok(mut output) => output.pop().unwrap_or_else(|| Err(fault(&first))),
                Err(error) => Err(fault(&error)),
            };
            failures = if output.is_ok() { 0 } else { failures + 1 };
            outputs.push(output);
            if failures == HOPELESS {
                let last = outputs[row].clone();
                outputs.resize(rows, last);
                break;
            }
        }
        outputs
    }
}

fn fault(error: &CallError) -> ServiceFault {
    ServiceFault { code: error.fault.code().to_owned(), message: error.message(), retryable: error.retryable }
}
