//! What a guest finds behind its imports: the data of one call, and nothing that outlives it.

use std::collections::BTreeSet;
use std::sync::Arc;

use plumb_core::seed::Stream;
use wasmtime::ResourceLimiter;
use wasmtime::component::{Resource, ResourceTable};

use crate::bindings::types::{Fault, RaggedF32, RaggedF64, RaggedU32, Texts};
use crate::bindings::{config, data, kv as kv_import, log, metrics, random, types};
use crate::engine;
use crate::kv;
use crate::limits;
use crate::sink::{LogLevel, MetricValue};
use crate::view::BatchView;

/// What a plugin is told about itself.
#[derive(Debug)]
pub struct Identity {
    /// Name in the run.
    pub name: String,
    /// Configuration, a JSON object.
    pub config: String,
    /// Seed of the run.
    pub seed: u64,
}

/// A guest broke a rule of an import; the call ends with this as its fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Breach(String);

/// A log line as the guest wrote it.
#[derive(Debug)]
pub struct Line {
    pub level: LogLevel,
    pub message: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
}

/// Log lines of a call.
#[derive(Debug, Default)]
pub struct Lines {
    /// Lines within the limit.
    pub kept: Vec<Line>,
    /// Lines and fields beyond the limits.
    pub dropped: u64,
    bytes: usize,
}

/// Store data of one instance.
pub struct Context {
    /// Holds the batch.
    pub table: ResourceTable,
    /// Bounds memory and tables.
    pub memory: MemoryLimit,
    /// Who the guest is.
    pub identity: Arc<Identity>,
    /// Step of the batch; part of the key of random streams.
    pub step: u64,
    /// Values and writes.
    pub kv: kv::Transaction,
    /// Log lines.
    pub lines: Lines,
    /// Metrics in the order they were reported.
    pub metrics: Vec<(String, MetricValue)>,
    metric_names: BTreeSet<String>,
    metric_values: usize,
}

impl Context {
    /// A context for one call.
    pub fn new(identity: Arc<Identity>, memory_mib: u64, step: u64, values: kv::Values) -> Self {
        Context {
            table: ResourceTable::new(),
            memory: MemoryLimit::new(memory_mib),
            identity,
            step,
            kv: kv::Transaction::new(values),
            lines: Lines::default(),
            metrics: Vec::new(),
            metric_names: BTreeSet::new(),
            metric_values: 0,
        }
    }

    fn metric(&mut self, name: String, value: MetricValue) -> wasmtime::Result<()> {
        if !self.metric_names.contains(&name) {
            if self.metric_names.len() == limits::METRIC_NAMES {
                breach(format!("more than {} metrics in a call, `{name}` is one too many", limits::METRIC_NAMES))?;
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
                breach(format!("{name:?} is no metric's name: 1 to 64 letters, digits, `_`, `-`, `.` or `/`"))?;
            }
            self.metric_names.insert(name.clone());
        }
        if let MetricValue::Observe(values) = &value {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                breach(format!("metric `{name}` observed {value}"))?;
            }
            // Of nothing too, so that no call is free.
            self.metric_values += values.len().max(1);
        } else {
            self.metric_values += 1;
        }
        if self.metric_values > limits::METRIC_VALUES {
            breach(format!("more than {} values of metrics in a call", limits::METRIC_VALUES))?;
        }
        self.metrics.push((name, value));
        Ok(())
    }
}

fn breach(message: String) -> wasmtime::Result<()> {
    Err(wasmtime::Error::from(Breach(message)))
}

/// Bounds a store's linear memories and tables, all together.
#[derive(Debug)]
pub struct MemoryLimit {
    bytes: usize,
    used: usize,
    table_elements: usize,
    /// Whether the guest was denied memory: a trap that follows is the guest's allocator giving up.
    pub denied: bool,
}

impl MemoryLimit {
    fn new(memory_mib: u64) -> Self {
        let bytes = usize::try_from(memory_mib << 20).unwrap_or(usize::MAX);
        MemoryLimit { bytes, used: 0, table_elements: 0, denied: false }
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        if used > self.bytes {
            self.denied = true;
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.table_elements.saturating_sub(current).saturating_add(desired);
        let fits = elements <= limits::TABLE_ELEMENTS;
        if fits {
            self.table_elements = elements;
        }
        Ok(fits)
    }

    fn instances(&self) -> usize {
        engine::CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        engine::TABLES as usize
    }

    fn memories(&self) -> usize {
        engine::MEMORIES as usize
    }
}

impl types::Host for Context {}

impl data::Host for Context {}

impl data::HostBatch for Context {
    fn rows(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<u32> {
        Ok(self.table.get(&batch)?.rows() as u32)
    }

    fn step(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&batch)?.batch().step)
    }

    fn row_ids(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<Vec<u64>> {
        Ok(self.table.get(&batch)?.row_ids())
    }

    fn group_ends(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table.get(&batch)?.group_ends())
    }

    fn columns(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<Vec<String>> {
        Ok(self.table.get(&batch)?.batch().columns().map(|(name, _)| name.to_owned()).collect())
    }

    fn attr(&mut self, batch: Resource<BatchView>, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.table.get(&batch)?.batch().attrs.get(&name).cloned())
    }

    fn text(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<Texts>> {
        Ok(self.table.get(&batch)?.text(&column))
    }

    fn text_at(&mut self, batch: Resource<BatchView>, column: String, row: u32) -> wasmtime::Result<Option<String>> {
        Ok(self.table.get(&batch)?.text_at(&column, row as usize))
    }

    fn f64s(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<Vec<f64>>> {
        Ok(self.table.get(&batch)?.f64s(&column))
    }

    fn u32s(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<Vec<u32>>> {
        Ok(self.table.get(&batch)?.u32s(&column))
    }

    fn tokens(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<RaggedU32>> {
        Ok(self.table.get(&batch)?.tokens(&column))
    }

    fn token_f32s(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<RaggedF32>> {
        Ok(self.table.get(&batch)?.token_f32s(&column))
    }

    fn f64_lists(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<RaggedF64>> {
        Ok(self.table.get(&batch)?.f64_lists(&column))
    }

    fn bytes(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<Texts>> {
        Ok(self.table.get(&batch)?.bytes(&column))
    }

    fn drop(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<()> {
        self.table.delete(batch)?;
        Ok(())
    }
}

impl log::Host for Context {
    fn write(&mut self, level: log::Level, message: String, mut fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.lines.dropped += fields.len().saturating_sub(limits::LOG_FIELDS) as u64;
        fields.truncate(limits::LOG_FIELDS);
        let text = message.len() + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let bytes = text + size_of::<Line>() + fields.len() * size_of::<(String, String)>();
        if self.lines.kept.len() == limits::LOG_LINES || self.lines.bytes + bytes > limits::LOG_BYTES {
            self.lines.dropped += 1;
            return Ok(());
        }
        self.lines.bytes += bytes;
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.lines.kept.push(Line { level, message, fields });
        Ok(())
    }
}

impl metrics::Host for Context {
    fn count(&mut self, name: String, delta: u64) -> wasmtime::Result<()> {
        self.metric(name, MetricValue::Count(delta))
    }

    fn observe(&mut self, name: String, values: Vec<f64>) -> wasmtime::Result<()> {
        self.metric(name, MetricValue::Observe(values))
    }
}

impl config::Host for Context {
    fn json(&mut self) -> wasmtime::Result<String> {
        Ok(self.identity.config.clone())
    }
}

impl random::Host for Context {
    fn draw(&mut self, stream: String, row_id: u64, count: u32) -> wasmtime::Result<Vec<u64>> {
        if count > limits::RANDOM_COUNT {
            breach(format!("asked for {count} random numbers at once, limit {}", limits::RANDOM_COUNT))?;
        }
        // The length keeps (`a`, `b/c`) and (`a/b`, `c`) apart.
        let Identity { name, seed, .. } = &*self.identity;
        let stream = Stream::new(*seed, &format!("plugin/{}/{name}/{stream}", name.len()), &[self.step, row_id]);
        Ok((0..u64::from(count)).map(|n| stream.u64_at(n)).collect())
    }
}

impl kv_import::Host for Context {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.kv.get(&key))
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), Fault>> {
        Ok(self.kv.set(key, value))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        self.kv.delete(key);
        Ok(())
    }

    fn keys(&mut self, prefix: String) -> wasmtime::Result<Vec<String>> {
        Ok(self.kv.keys(&prefix))
    }
}
