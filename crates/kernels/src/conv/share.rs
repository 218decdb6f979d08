//! How the threads of a team share one buffer and one list of work.

use std::marker::PhantomData;
use std::ops::Range;

/// The items of `total` that member `index` of `parts` works on: contiguous, and equal to within one.
pub(super) fn part(total: usize, parts: usize, index: usize) -> Range<usize> {
    total * index / parts..total * (index + 1) / parts
}

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

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_cover_everything_once_and_evenly() {
        for (total, parts) in [(0, 3), (1, 3), (7, 3), (9, 3), (100, 7)] {
            let ranges: Vec<_> = (0..parts).map(|index| part(total, parts, index)).collect();
            assert_eq!(
                ranges.iter().flat_map(|r| r.clone()).collect::<Vec<_>>(),
                (0..total).collect::<Vec<_>>()
            );
            assert!(
                ranges.iter().all(|r| r.len() == total / parts || r.len() == total / parts + 1)
            );
        }
    }
}
