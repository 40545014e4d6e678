//! Where plugins' log lines go, and what a metric is. The host prints nothing.

use std::sync::{Mutex, PoisonError};

/// How grave a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Every detail.
    Trace,
    /// For the plugin's author.
    Debug,
    /// Worth a line.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

/// A line that a plugin wrote.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LogLine {
    /// Name of the plugin in the run.
    pub plugin: String,
    /// Step of the batch.
    pub step: u64,
    /// How grave.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// Named values.
    pub fields: Vec<(String, String)>,
}

/// What a call reports under a metric's name.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// Adds to a count.
    Count(u64),
    /// Observations, all finite.
    Observe(Vec<f64>),
}

/// Takes log lines, from any thread.
pub trait Sink: Send + Sync {
    /// A call ended, well or badly, and had written this line. Lines of one call come in order, those of parallel calls in any.
    fn log(&self, line: LogLine);
}

/// A sink that keeps everything until it is taken.
#[derive(Debug, Default)]
pub struct Collector {
    lines: Mutex<Vec<LogLine>>,
}

impl Collector {
    /// The lines since the last call.
    pub fn take_lines(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Collector {
    fn log(&self, line: LogLine) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// A sink that forgets everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Sink for Discard {
    fn log(&self, _: LogLine) {}
}
