//! TensorBoard event files: TFRecord frames around `Event` messages (`tensorflow/core/util/event.proto`).

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::append::AppendFile;
use super::error::Result;
use super::metrics::MetricSet;

/// The fields of TensorFlow's `Event` that scalars need.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// Optimizer step.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// Version of the format; only in the first record.
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    /// The numbers.
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
}

/// TensorFlow's `Summary`.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// One per tag.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<SummaryValue>,
}

/// TensorFlow's `Summary.Value` with a scalar.
#[derive(Clone, PartialEq, Message)]
pub struct SummaryValue {
    /// Name of the plot.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// The number.
    #[prost(float, tag = "2")]
    pub simple_value: f32,
}

/// Writes scalars.
#[derive(Debug)]
pub(crate) struct EventWriter {
    file: AppendFile,
}

impl EventWriter {
    /// Opens the file, cuts it after `records` records and, if that leaves nothing, writes the version record.
    pub fn open(path: &Path, records: u64) -> Result<Self> {
        let mut writer = EventWriter { file: AppendFile::open(path, records, frame_end)? };
        if records == 0 {
            writer.write(&Event { wall_time: now_s(), file_version: Some("brain.Event:2".into()), ..Event::default() })?;
        }
        Ok(writer)
    }

    /// Adds a step's numbers.
    pub fn log(&mut self, metrics: &MetricSet) -> Result<()> {
        let value: Vec<SummaryValue> =
            metrics.tensorboard_tags().into_iter().map(|(tag, value)| SummaryValue { tag, simple_value: value as f32 }).collect();
        if value.is_empty() {
            return Ok(());
        }
        let event = Event { wall_time: now_s(), step: metrics.step as i64, file_version: None, summary: Some(Summary { value }) };
        self.write(&event)
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        self.file.append(&frame(&event.encode_to_vec()))
    }

    pub fn file(&mut self) -> &mut AppendFile {
        &mut self.file
    }
}

/// A name as TensorBoard expects it. It holds the time, so it differs between runs; a resumed run goes on with its own.
pub(crate) fn new_file_name() -> String {
    format!("events.out.tfevents.{:.0}.plumb", now_s())
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A TFRecord: length, its checksum, the data, its checksum; all little-endian.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&masked_crc(data).to_le_bytes());
    out
}

/// Where the `n`-th frame of a file ends.
fn frame_end(bytes: &[u8], n: u64) -> Option<usize> {
    let mut at = 0;
    for _ in 0..n {
        let length = u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?);
        at = at.checked_add(usize::try_from(length).ok()?)?.checked_add(16)?;
    }
    (at <= bytes.len()).then_some(at)
}

/// CRC-32C, rotated and shifted as TFRecord wants it, so that a checksum of data that holds checksums stays a good one.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Reads an event file; the first frame that is torn or whose checksums are wrong ends it with a reason.
pub fn read_events(bytes: &[u8]) -> std::result::Result<Vec<Event>, String> {
    let mut events = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let field = |from: usize, len: usize| bytes.get(from..from + len).ok_or(format!("the record at byte {at} is torn"));
        let word = |from: usize| field(from, 4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")));
        let head = field(at, 8)?;
        let length = u64::from_le_bytes(head.try_into().expect("eight bytes")) as usize;
        if word(at + 8)? != masked_crc(head) {
            return Err(format!("the length of the record at byte {at} has a wrong checksum"));
        }
        let data = field(at + 12, length)?;
        if word(at + 12 + length)? != masked_crc(data) {
            return Err(format!("the record at byte {at} has a wrong checksum"));
        }
        events.push(Event::decode(data).map_err(|e| format!("the record at byte {at} is not an event: {e}"))?);
        at += 16 + length;
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_masked_crc_of_an_empty_length_matches_tensorflow() {
        // The first twelve bytes of each TFRecord with a 24-byte event, such as the version record's: from TensorFlow's own files.
        assert_eq!(masked_crc(&24u64.to_le_bytes()).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn events_read_back_with_tags_values_and_steps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut writer = EventWriter::open(&path, 0).unwrap();
        let mut set = MetricSet::new("grpo", 3);
        set.set("reward", 0.25);
        writer.log(&set).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let events = read_events(&bytes).unwrap();
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!(events[1].step, 3);
        let values = &events[1].summary.as_ref().unwrap().value;
        assert_eq!((values[0].tag.as_str(), values[0].simple_value), ("train/reward", 0.25));
        assert!(events[1].wall_time > 1.7e9);
        let mut broken = bytes.clone();
        *broken.last_mut().unwrap() ^= 1;
        assert!(read_events(&broken).unwrap_err().contains("wrong checksum"));
        assert!(read_events(&bytes[..bytes.len() - 1]).unwrap_err().contains("torn"));
    }
}
