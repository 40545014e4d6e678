//! What a guest finds behind its imports: the data of one call, and nothing that outlives it.

use std::sync::Arc;

use plumb_core::seed::Stream;
use wasmtime::ResourceLimiter;
use wasmtime::component::{Resource, ResourceTable};

use crate::bindings::types::{Fault, RaggedF32, RaggedF64, RaggedU32, Texts};
use crate::bindings::{config, data, kv as kv_import, log, metrics, random, types};
use crate::engine;
use crate::kv;
use crate::limits;
use crate::meter::{Cost, Meter};
use crate::services::{Asking, Services};
use crate::sink::{LogLevel, MetricValue};
use crate::tally::Tally;
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
    /// Fuel that imports use.
    pub meter: Meter,
    /// Step of the batch; part of the key of random streams.
    pub step: u64,
    /// Values and writes.
    pub kv: kv::Transaction,
    /// Models and tools that the guest was granted.
    pub services: Arc<Services>,
    /// What it asked of them.
    pub asking: Asking,
    /// Log lines.
    pub lines: Lines,
    /// Metrics by name.
    pub metrics: Tally,
    metric_values: usize,
}

impl Context {
    /// A context for one call.
    pub fn new(identity: Arc<Identity>, services: Arc<Services>, memory_mib: u64, step: u64, values: kv::Values) -> Self {
        Context {
            table: ResourceTable::new(),
            memory: MemoryLimit::new(memory_mib),
            identity,
            meter: Meter::default(),
            step,
            kv: kv::Transaction::new(values),
            services,
            asking: Asking::default(),
            lines: Lines::default(),
            metrics: Tally::default(),
            metric_values: 0,
        }
    }

    /// Hands the guest a column, or what `read` takes of it.
    fn lend_column<T: Cost>(
        &mut self,
        batch: Resource<BatchView>,
        column: &str,
        read: impl Fn(&BatchView, &str) -> Option<T>,
    ) -> wasmtime::Result<Option<T>> {
        self.meter.pay(column.len())?;
        self.meter.lend(read(self.table.get(&batch)?, column))
    }

    fn metric(&mut self, name: String, value: MetricValue) -> wasmtime::Result<()> {
        if !self.metrics.has(&name) {
            if self.metrics.names() == limits::METRIC_NAMES {
                breach(format!("more than {} metrics in a call, `{name}` is one too many", limits::METRIC_NAMES))?;
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
                breach(format!("{name:?} is no metric's name: 1 to 64 letters, digits, `_`, `-`, `.` or `/`"))?;
            }
        }
        if let MetricValue::Observe(values) = &value {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                breach(format!("metric `{name}` observed {value}"))?;
            }
            self.metric_values += values.len();
            if self.metric_values > limits::METRIC_VALUES {
                breach(format!("more than {} values of metrics in a call", limits::METRIC_VALUES))?;
            }
        }
        self.metrics.add(name, value);
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
    /// `used` and `table_elements` before the last growth, which may fail after it was allowed.
    before: (usize, usize),
    /// What all memories would have had to hold, in bytes, when the guest was denied memory last: a trap that follows is its
    /// allocator giving up.
    pub denied: Option<usize>,
}

impl MemoryLimit {
    fn new(memory_mib: u64) -> Self {
        let bytes = usize::try_from(memory_mib << 20).unwrap_or(usize::MAX);
        MemoryLimit { bytes, used: 0, table_elements: 0, before: (0, 0), denied: None }
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        if used > self.bytes {
            self.denied = Some(used);
            return Ok(false);
        }
        self.before.0 = std::mem::replace(&mut self.used, used);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.used = self.before.0;
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.table_elements.saturating_sub(current).saturating_add(desired);
        let fits = elements <= limits::TABLE_ELEMENTS;
        if fits {
            self.before.1 = std::mem::replace(&mut self.table_elements, elements);
        }
        Ok(fits)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.table_elements = self.before.1;
        Ok(())
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
        self.meter.pay(0)?;
        Ok(self.table.get(&batch)?.rows() as u32)
    }

    fn step(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<u64> {
        self.meter.pay(0)?;
        Ok(self.table.get(&batch)?.batch().step)
    }

    fn row_ids(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<Vec<u64>> {
        self.meter.lend(self.table.get(&batch)?.row_ids())
    }

    fn row_id_bytes(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.row_ids(batch)?.into_iter().flat_map(u64::to_le_bytes).collect())
    }

    fn group_ends(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<Vec<u32>> {
        self.meter.lend(self.table.get(&batch)?.group_ends())
    }

    fn columns(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<Vec<String>> {
        self.meter.lend(self.table.get(&batch)?.batch().columns().map(|(name, _)| name.to_owned()).collect::<Vec<_>>())
    }

    fn attr(&mut self, batch: Resource<BatchView>, name: String) -> wasmtime::Result<Option<String>> {
        self.meter.pay(name.len())?;
        self.meter.lend(self.table.get(&batch)?.batch().attrs.get(&name).cloned())
    }

    fn text(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<Texts>> {
        self.lend_column(batch, &column, BatchView::text)
    }

    fn text_at(&mut self, batch: Resource<BatchView>, column: String, row: u32) -> wasmtime::Result<Option<String>> {
        self.lend_column(batch, &column, |view, column| view.text_at(column, row as usize))
    }

    fn f64s(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<Vec<f64>>> {
        self.lend_column(batch, &column, BatchView::f64s)
    }

    fn u32s(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<Vec<u32>>> {
        self.lend_column(batch, &column, BatchView::u32s)
    }

    fn tokens(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<RaggedU32>> {
        self.lend_column(batch, &column, BatchView::tokens)
    }

    fn token_f32s(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<RaggedF32>> {
        self.lend_column(batch, &column, BatchView::token_f32s)
    }

    fn f64_lists(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<RaggedF64>> {
        self.lend_column(batch, &column, BatchView::f64_lists)
    }

    fn bytes(&mut self, batch: Resource<BatchView>, column: String) -> wasmtime::Result<Option<Texts>> {
        self.lend_column(batch, &column, BatchView::bytes)
    }

    fn drop(&mut self, batch: Resource<BatchView>) -> wasmtime::Result<()> {
        self.meter.pay(0)?;
        self.table.delete(batch)?;
        Ok(())
    }
}

impl log::Host for Context {
    fn write(&mut self, level: log::Level, message: String, mut fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        let all: usize = fields.iter().map(|(name, value)| name.len() + value.len() + size_of::<(String, String)>()).sum();
        self.meter.pay(message.len() + all)?;
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
        self.meter.pay(name.len())?;
        self.metric(name, MetricValue::Count(delta))
    }

    fn observe(&mut self, name: String, values: Vec<f64>) -> wasmtime::Result<()> {
        self.meter.pay(name.len() + values.bytes())?;
        self.metric(name, MetricValue::Observe(values))
    }
}

impl config::Host for Context {
    fn json(&mut self) -> wasmtime::Result<String> {
        self.meter.lend(self.identity.config.clone())
    }
}

impl random::Host for Context {
    fn draw(&mut self, stream: String, row_id: u64, count: u32) -> wasmtime::Result<Vec<u64>> {
        if count > limits::RANDOM_COUNT {
            breach(format!("asked for {count} random numbers at once, limit {}", limits::RANDOM_COUNT))?;
        }
        // A number costs some ten instructions.
        self.meter.pay(stream.len() + 10 * count as usize)?;
        // The length keeps (`a`, `b/c`) and (`a/b`, `c`) apart.
        let Identity { name, seed, .. } = &*self.identity;
        let stream = Stream::new(*seed, &format!("plugin/{}/{name}/{stream}", name.len()), &[self.step, row_id]);
        Ok((0..u64::from(count)).map(|n| stream.u64_at(n)).collect())
    }

    fn draw_bytes(&mut self, stream: String, row_id: Vec<u8>, count: u32) -> wasmtime::Result<Vec<u8>> {
        let Ok(row_id) = <[u8; 8]>::try_from(row_id.as_slice()) else {
            let message = format!("asked for random numbers of a row id of {} bytes, not 8", row_id.len());
            return Err(wasmtime::Error::from(Breach(message)));
        };
        let numbers = self.draw(stream, u64::from_le_bytes(row_id), count)?;
        Ok(numbers.into_iter().flat_map(u64::to_le_bytes).collect())
    }
}

impl kv_import::Host for Context {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.meter.pay(key.len())?;
        self.meter.lend(self.kv.get(&key))
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), Fault>> {
        self.meter.pay(key.len() + value.len())?;
        Ok(self.kv.set(key, value))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        self.meter.pay(key.len())?;
        self.kv.delete(key);
        Ok(())
    }

    fn keys(&mut self, prefix: String) -> wasmtime::Result<Vec<String>> {
        // Every key is looked at, whichever begin with the prefix.
        self.meter.pay(limits::KV_ENTRY_BYTES * self.kv.len())?;
        self.meter.lend(self.kv.keys(&prefix))
    }
}
