//! How the threads of a team share one buffer.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that several threads write, each at places of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T = f32> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer comes from an exclusive borrow that lasts as long as the value; every access
// goes through an unsafe call whose contract is that threads touch disjoint elements.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T: Copy> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Shared<'a, T> {
        Shared { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// The address of element `offset`, which may be one past the last.
    pub(crate) fn at(self, offset: usize) -> *mut T {
        debug_assert!(offset <= self.len, "offset {offset} of a buffer of {}", self.len);
        self.start.wrapping_add(offset)
    }

    /// What lies from element `offset` on.
    ///
    /// # Panics
    /// If the buffer ends before.
    pub(crate) fn from(self, offset: usize) -> Shared<'a, T> {
        assert!(offset <= self.len, "offset {offset} of a buffer of {}", self.len);
        let start = self.start.wrapping_add(offset);
        Shared { start, len: self.len - offset, life: PhantomData }
    }

    /// Elements `range`.
    ///
    /// # Safety
    /// No other thread may touch these elements while the result lives.
    ///
    /// # Panics
    /// If the range does not lie in the slice.
    pub(crate) unsafe fn slice(self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "range outside the buffer");
        // SAFETY: the range lies in the borrowed slice, and the caller vouches for exclusivity.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
