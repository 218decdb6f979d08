//! How the threads of a team share one buffer.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that several threads write, each at places of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer comes from an exclusive borrow that lasts as long as the value; every access
// goes through an unsafe call whose contract is that threads touch disjoint elements.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> Shared<'a> {
        Shared { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    pub(super) fn len(self) -> usize {
        self.len
    }

    /// The address of element `offset`, which may be one past the last.
    pub(super) fn at(self, offset: usize) -> *mut f32 {
        debug_assert!(offset <= self.len, "offset {offset} of a buffer of {}", self.len);
        self.start.wrapping_add(offset)
    }

    /// Elements `range`.
    ///
    /// # Safety
    /// No other thread may touch these elements while the result lives.
    ///
    /// # Panics
    /// If the range does not lie in the slice.
    pub(super) unsafe fn slice(self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "range outside the buffer");
        // SAFETY: the range lies in the borrowed slice, and the caller vouches for exclusivity.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
