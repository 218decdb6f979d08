//! A sum under way: segments to the ranks that add them up, then the sums to all.

use std::ffi::c_int;

use super::library::Request;
use crate::error::CollectiveError;
use crate::segments::segment;

/// How far a sum is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Segments go to the ranks that add them up.
    Scattering,
    /// The sums go to all.
    Gathering,
    /// The library adds up by itself.
    Reducing,
    /// All sums are there.
    Done,
}

/// A sum under way. Its buffers stay where they are until the library is done with them.
pub(super) struct Sum {
    pub values: Vec<f32>,
    /// Segments of this rank from all ranks, one behind the other.
    pub parts: Vec<f32>,
    /// Their sum.
    pub own: Vec<f32>,
    /// The segments of all ranks in `values`.
    pub all: Layout,
    /// Those of this rank in `parts`.
    pub received: Layout,
    pub stage: Stage,
    pub request: Request,
}

impl Sum {
    /// The sum of `values` over `size` ranks as `rank` sees it, not yet begun. `parts` and `own` lend their
    /// memory.
    pub(super) fn new(
        values: Vec<f32>,
        (rank, size): (usize, usize),
        (mut parts, mut own): (Vec<f32>, Vec<f32>),
    ) -> Result<Sum, CollectiveError> {
        let segments = (0..size).map(|rank| segment(values.len(), size, rank));
        let all = Layout::of(segments.map(|segment| (segment.start, segment.len())))?;
        let len = segment(values.len(), size, rank).len();
        let received = Layout::of((0..size).map(|from| (from * len, len)))?;
        parts.resize(len * size, 0.0);
        own.resize(len, 0.0);
        Ok(Sum { values, parts, own, all, received, stage: Stage::Done, request: 0 })
    }
}

/// Where the segments of ranks lie in a buffer of f32, in bytes, as MPI counts.
pub(super) struct Layout {
    pub counts: Vec<c_int>,
    pub places: Vec<c_int>,
}

impl Layout {
    fn of(segments: impl Iterator<Item = (usize, usize)>) -> Result<Layout, CollectiveError> {
        let (mut counts, mut places) = (Vec::new(), Vec::new());
        for (start, len) in segments {
            // The end must be countable too.
            count((start + len) * size_of::<f32>())?;
            counts.push(count(len * size_of::<f32>())?);
            places.push(count(start * size_of::<f32>())?);
        }
        Ok(Layout { counts, places })
    }
}

/// A length as MPI counts.
pub(super) fn count(len: usize) -> Result<c_int, CollectiveError> {
    c_int::try_from(len).map_err(|_| CollectiveError::TooLong { len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_in_bytes() {
        let sum = Sum::new(vec![0.0; 7], (1, 3), (Vec::new(), Vec::new())).unwrap();
        assert_eq!((sum.all.counts, sum.all.places), (vec![12, 8, 8], vec![0, 12, 20]));
        assert_eq!((sum.received.counts, sum.received.places), (vec![8; 3], vec![0, 8, 16]));
        assert_eq!((sum.parts.len(), sum.own.len()), (6, 2));
        assert!(Layout::of(std::iter::once((1 << 29, 1))).is_err());
    }
}
