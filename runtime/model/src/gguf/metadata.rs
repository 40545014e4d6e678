//! Typed look-ups in a GGUF file's metadata, with errors that name the key.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Value;

use crate::{Error, Result};

/// The metadata of one file.
pub(super) struct Metadata<'a> {
    values: &'a HashMap<String, Value>,
    pub path: &'a Path,
}

impl<'a> Metadata<'a> {
    pub fn new(values: &'a HashMap<String, Value>, path: &'a Path) -> Self {
        Metadata { values, path }
    }

    pub fn malformed(&self, reason: String) -> Error {
        Error::Malformed { path: PathBuf::from(self.path), reason }
    }

    pub fn unsupported(&self, reason: String) -> Error {
        Error::Unsupported { path: PathBuf::from(self.path), reason }
    }

    /// The value under `key`, if there is one and `read` understands it.
    fn optional<T>(&self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let wrong = || self.malformed(format!("metadata `{key}` should be {expected}, it has type {:?}", value.value_type()));
        read(value).map(Some).ok_or_else(wrong)
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.malformed(format!("metadata `{key}` is missing")))
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.optional(key, "a text", |value| value.to_string().ok().map(String::as_str))
    }

    pub fn required_text(&self, key: &str) -> Result<&'a str> {
        let text = self.text(key)?;
        self.required(key, text)
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.optional(key, "true or false", |value| value.to_bool().ok())
    }

    /// A size: an integer above 0 and below 2^32.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        let read =
            |value: &Value| integer(value).filter(|size| (1..=i64::from(u32::MAX)).contains(size)).map(|size| size as usize);
        self.optional(key, "an integer from 1 to 2^32 - 1", read)
    }

    pub fn required_size(&self, key: &str) -> Result<usize> {
        let size = self.size(key)?;
        self.required(key, size)
    }

    pub fn token_id(&self, key: &str) -> Result<Option<u32>> {
        self.optional(key, "a token id", |value| integer(value).and_then(|id| u32::try_from(id).ok()))
    }

    /// A float. Most are stored as float32; the shortest decimal that rounds to it is what the author wrote (1e-5, not
    /// 9.99999974738e-6).
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.optional(key, "a number above 0", |value| {
            let number = match value {
                Value::F32(number) => number.to_string().parse().ok()?,
                Value::F64(number) => *number,
                other => integer(other)? as f64,
            };
            Some(number).filter(|number: &f64| number.is_finite() && *number > 0.0)
        })
    }

    pub fn required_number(&self, key: &str) -> Result<f64> {
        let number = self.number(key)?;
        self.required(key, number)
    }

    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.optional(key, "an array of texts", |value| {
            value.to_vec().ok()?.iter().map(|text| text.to_string().ok().map(String::as_str)).collect()
        })
    }

    pub fn required_texts(&self, key: &str) -> Result<Vec<&'a str>> {
        let texts = self.texts(key)?;
        self.required(key, texts)
    }

    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.optional(key, "an array of integers", |value| value.to_vec().ok()?.iter().map(integer).collect())
    }

    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.optional(key, "an array of float32", |value| {
            value.to_vec().ok()?.iter().map(|number| number.to_f32().ok()).collect()
        })
    }
}

/// Any of the eight integer types.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::U8(v) => Some(i64::from(*v)),
        Value::I8(v) => Some(i64::from(*v)),
        Value::U16(v) => Some(i64::from(*v)),
        Value::I16(v) => Some(i64::from(*v)),
        Value::U32(v) => Some(i64::from(*v)),
        Value::I32(v) => Some(i64::from(*v)),
        Value::U64(v) => i64::try_from(*v).ok(),
        Value::I64(v) => Some(*v),
        _ => None,
    }
}
