//! Float buffers that start on a cache line.

use std::ops::{Deref, DerefMut};

const LINE_BYTES: usize = 64;

/// `[len]` floats, 0 at first, starting on a cache line, so that no 64-byte vector load straddles two lines.
///
/// The memory comes zeroed from the system: what is never written costs address space only.
#[derive(Debug)]
pub struct AlignedBuffer {
    storage: Vec<f32>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// A buffer of zeros.
    pub fn zeros(len: usize) -> Self {
        let storage = vec![0.0_f32; len + LINE_BYTES / size_of::<f32>() - 1];
        let start = storage.as_ptr().align_offset(LINE_BYTES);
        AlignedBuffer { storage, start, len }
    }
}

impl Deref for AlignedBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_length_start_on_a_cache_line() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let buffer = AlignedBuffer::zeros(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % LINE_BYTES, 0);
            assert!(buffer.iter().all(|&x| x == 0.0));
        }
    }
}
