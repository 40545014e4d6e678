//! What a guest's imports cost. The host's work for a guest is paid from the same fuel as the guest's own instructions: otherwise
//! a loop of a few instructions could have gigabytes copied, and only the clock would end it, at another place in every run.

use crate::bindings::types::{RaggedF32, RaggedF64, RaggedU32, Texts};
use crate::limits;

/// The guest asked the host for more work than its fuel pays for.
#[derive(Debug, thiserror::Error)]
#[error("host calls used up the fuel of the call")]
pub struct Spent;

/// Fuel that imports used in the running call.
#[derive(Debug, Default)]
pub struct Meter {
    used: u64,
    limit: u64,
}

impl Meter {
    /// Begins a call that may use `limit`.
    pub fn begin(&mut self, limit: u64) {
        *self = Meter { used: 0, limit };
    }

    /// Fuel used since the call began.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// One host call that moves or looks at `bytes` bytes.
    pub fn pay(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.used = self.used.saturating_add(limits::HOST_CALL_FUEL).saturating_add(bytes as u64);
        if self.used > self.limit { Err(wasmtime::Error::from(Spent)) } else { Ok(()) }
    }

    /// Pays for what a guest is handed.
    pub fn lend<T: Cost>(&mut self, answer: T) -> wasmtime::Result<T> {
        self.pay(answer.bytes()).map(|()| answer)
    }
}

/// Size of what crosses the boundary.
pub trait Cost {
    /// Bytes to copy.
    fn bytes(&self) -> usize;
}

impl<T: Cost> Cost for Option<T> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, T::bytes)
    }
}

impl Cost for String {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Cost for Vec<String> {
    fn bytes(&self) -> usize {
        self.iter().map(|text| text.len() + size_of::<String>()).sum()
    }
}

macro_rules! flat {
    ($($number:ty),*) => {$(
        impl Cost for Vec<$number> {
            fn bytes(&self) -> usize {
                size_of_val(self.as_slice())
            }
        }
    )*};
}

flat!(u8, u32, u64, f32, f64);

impl Cost for Texts {
    fn bytes(&self) -> usize {
        self.bytes.len() + self.ends.bytes()
    }
}

macro_rules! ragged {
    ($($ragged:ty),*) => {$(
        impl Cost for $ragged {
            fn bytes(&self) -> usize {
                self.values.bytes() + self.ends.bytes()
            }
        }
    )*};
}

ragged!(RaggedU32, RaggedF32, RaggedF64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meter_counts_calls_and_bytes_and_stops_at_the_limit() {
        let mut meter = Meter::default();
        meter.begin(2 * limits::HOST_CALL_FUEL + 10);
        assert_eq!(meter.lend(Some("ten bytes!".to_owned())).unwrap().unwrap().len(), 10);
        meter.pay(0).unwrap();
        assert!(meter.pay(0).unwrap_err().is::<Spent>());
        meter.begin(limits::HOST_CALL_FUEL + 12);
        meter.lend(Texts { bytes: vec![0; 4], ends: vec![1, 4] }).unwrap();
        assert_eq!(meter.used(), limits::HOST_CALL_FUEL + 12);
    }
}
