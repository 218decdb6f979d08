//! Sharing the pieces of buffers among the threads of a team.

use std::marker::PhantomData;

use super::threads::Team;
use crate::element::Element;
use crate::planes::PlanesMut;

/// Something that falls into numbered pieces which can be written side by side.
///
/// # Safety
/// Different indices must give pieces that do not overlap.
pub(crate) unsafe trait Pieces: Sync {
    /// One piece.
    type Piece;

    /// Piece `index`.
    ///
    /// # Safety
    /// No two pieces of the same index may live at the same time.
    ///
    /// # Panics
    /// If there is no such piece.
    unsafe fn piece(&self, index: usize) -> Self::Piece;
}

/// Calls `work(index, piece)` once for each index below `total`, on whatever thread of `team` finds time
/// for it. A single piece is not worth waking anybody for.
pub(crate) fn split<P: Pieces>(
    team: &Team,
    total: usize,
    pieces: P,
    work: impl Fn(usize, P::Piece) + Sync,
) {
    if total == 1 {
        // SAFETY: the only piece, taken once.
        return work(0, unsafe { pieces.piece(0) });
    }
    team.run_units(total, &|_, units| {
        while let Some(index) = units.take() {
            // SAFETY: each unit is taken once, and its piece dies before the next call of `split` can
            // take it again: `pieces` is owned.
            work(index, unsafe { pieces.piece(index) });
        }
    });
}

/// Equal chunks of a slice, or the planes of a view of a buffer: pieces of `len` values of which
/// `group` follow each other at distance `len`, and the groups at distance `stride`.
pub(crate) struct Chunks<'a, T> {
    start: *mut T,
    total: usize,
    len: usize,
    group: usize,
    stride: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: an exclusive borrow whose pieces are handed out by an unsafe call that forbids overlap.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Chunks<'_, T> {}

/// Chunks of `len` values; the last may be shorter.
pub(crate) fn chunks<T>(slice: &mut [T], len: usize) -> Chunks<'_, T> {
    let (start, total) = (slice.as_mut_ptr(), slice.len());
    Chunks { start, total, len, group: 1, stride: len, life: PhantomData }
}

/// The planes, numbered as [`Planes::plane`](crate::planes::Planes::plane) numbers them. Zeroes the guard
/// behind the buffer's last plane.
pub(crate) fn planes<E: Element>(mut planes: PlanesMut<'_, E>) -> Chunks<'_, E> {
    planes.zero_guard();
    let (len, group, stride) = (planes.map().plane(), planes.map().blocks(), planes.image());
    let buffer = planes.into_values();
    let (start, total) = (buffer.as_mut_ptr(), buffer.len());
    Chunks { start, total, len, group, stride, life: PhantomData }
}

// SAFETY: pieces of one group lie `len` apart, `group * len <= stride` apart from the next group.
unsafe impl<'a, T: Send> Pieces for Chunks<'a, T> {
    type Piece = &'a mut [T];

    unsafe fn piece(&self, index: usize) -> &'a mut [T] {
        let start = index / self.group * self.stride + index % self.group * self.len;
        assert!(start < self.total, "piece {index} lies outside the buffer");
        let len = self.len.min(self.total - start);
        // SAFETY: in bounds by the lines above; the caller keeps pieces of one index apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

// SAFETY: both parts keep their pieces apart.
unsafe impl<A: Pieces, B: Pieces> Pieces for (A, B) {
    type Piece = (A::Piece, B::Piece);

    unsafe fn piece(&self, index: usize) -> Self::Piece {
        // SAFETY: the caller's promise is that of both parts.
        unsafe { (self.0.piece(index), self.1.piece(index)) }
    }
}

// SAFETY: all parts keep their pieces apart.
unsafe impl<A: Pieces, B: Pieces, C: Pieces> Pieces for (A, B, C) {
    type Piece = (A::Piece, B::Piece, C::Piece);

    unsafe fn piece(&self, index: usize) -> Self::Piece {
        // SAFETY: the caller's promise is that of all parts.
        unsafe { (self.0.piece(index), self.1.piece(index), self.2.piece(index)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{GUARD_PIXELS, Map, View};
    use crate::planes::Planes;

    #[test]
    fn planes_of_a_view_are_those_of_its_blocks() {
        let map = Map { channels: 32, height: 2, width: 3 };
        let view = View { blocks: 5, first: 2 };
        let (batch, plane) = (3, map.plane());
        let mut buffer = vec![1.0; batch * view.blocks * plane + GUARD_PIXELS * 16];
        for threads in [1, 2, 3] {
            let team = Team::new(threads);
            let pieces = planes(PlanesMut::new(&mut buffer, &map, view, batch));
            split(&team, batch * 2, pieces, |index, piece| {
                piece.fill((10 * threads + index) as f32);
            });
            for image in 0..batch {
                for block in 0..view.blocks {
                    let found = &buffer[(image * view.blocks + block) * plane..][..plane];
                    let inside = (2..4).contains(&block);
                    let index = image * 2 + block.wrapping_sub(2);
                    let inner = (10 * threads).wrapping_add(index) as f32;
                    let expected = if inside { inner } else { 1.0 };
                    assert!(found.iter().all(|&value| value == expected));
                    if inside {
                        assert_eq!(Planes::new(&buffer, &map, view, batch).plane(index), found);
                    }
                }
            }
            assert!(buffer[batch * view.blocks * plane..].iter().all(|&value| value == 0.0));
        }
    }
}
