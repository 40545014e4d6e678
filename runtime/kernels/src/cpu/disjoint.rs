//! One buffer, many writers: slices for parallel workers that the borrow checker cannot tell apart.
#![expect(
    unsafe_code,
    reason = "hands out mutable slices of one buffer to several threads; callers vouch that they are disjoint"
)]

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable buffer that several workers write in places that do not overlap, such as the bands of different heads.
pub(crate) struct Disjoint<'a> {
    start: *mut f32,
    len: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Disjoint` only gives access through `slice`, whose contract forbids overlap between threads.
unsafe impl Send for Disjoint<'_> {}
// SAFETY: as above.
unsafe impl Sync for Disjoint<'_> {}

impl<'a> Disjoint<'a> {
    pub(crate) fn new(buffer: &'a mut [f32]) -> Self {
        Disjoint { start: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No other slice of this buffer that is alive overlaps `range`, on any thread.
    ///
    /// # Panics
    /// When `range` ends outside the buffer.
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: inside the buffer, which is borrowed mutably for 'a; the caller vouches that nobody else holds these elements.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
