//! Buffers of numbers that start on a cache line.

use std::ops::{Deref, DerefMut};

const LINE_BYTES: usize = 64;

/// `[len]` numbers, 0 at first, starting on a cache line, so that no 64-byte vector load straddles two lines.
///
/// The memory comes zeroed from the system: what is never written costs address space only.
#[derive(Debug)]
pub struct AlignedBuffer<T = f32> {
    storage: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> AlignedBuffer<T> {
    /// A buffer of zeros.
    pub fn zeros(len: usize) -> Self {
        let storage = vec![T::default(); len + LINE_BYTES / size_of::<T>() - 1];
        let start = storage.as_ptr().align_offset(LINE_BYTES);
        AlignedBuffer { storage, start, len }
    }
}

impl<T> Deref for AlignedBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for AlignedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts_on_a_line<T: Copy + Default + PartialEq>() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let buffer = AlignedBuffer::<T>::zeros(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % LINE_BYTES, 0);
            assert!(buffer.iter().all(|&x| x == T::default()));
        }
    }

    #[test]
    fn buffers_of_any_length_and_type_start_on_a_cache_line() {
        starts_on_a_line::<f32>();
        starts_on_a_line::<u16>();
        starts_on_a_line::<i8>();
    }
}
