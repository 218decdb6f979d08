//! Numbered units of work that the members of a team take one by one.
//!
//! Each member has a range of its own, whose units it takes from the front, so that it meets in one
//! layer what it made in the layer before. A member that has ended its own takes what is left of the
//! others', from the back: cores are not always equally fast, least of all where they are lent. Who
//! takes a unit must not matter to its result.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The items of `total` that member `index` of `parts` works on: contiguous, equal to within one.
pub(crate) fn part(total: usize, parts: usize, index: usize) -> Range<usize> {
    total * index / parts..total * (index + 1) / parts
}

/// One member of a team, of so many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub index: usize,
    pub of: usize,
}

impl Member {
    /// The items of `total` that are this member's, see [`part`].
    pub(crate) fn part(self, total: usize) -> Range<usize> {
        part(total, self.of, self.index)
    }
}

/// What is left of a member's range: the next unit from the front in the lower half, the end in the
/// upper; in a cache line of its own.
#[repr(align(64))]
#[derive(Default)]
pub(crate) struct Slot(AtomicU64);

/// The units of a piece of work, for one member of the team.
#[derive(Clone, Copy)]
pub(crate) struct Units<'a> {
    slots: &'a [Slot],
    member: usize,
}

/// Gives the members their ranges of `total` units.
pub(crate) fn deal(slots: &[Slot], total: usize) {
    assert!(u32::try_from(total).is_ok(), "{total} units of work");
    for (member, slot) in slots.iter().enumerate() {
        let range = part(total, slots.len(), member);
        slot.0.store(pack(range.start as u64, range.end as u64), Ordering::Relaxed);
    }
}

fn pack(front: u64, end: u64) -> u64 {
    end << 32 | front
}

impl<'a> Units<'a> {
    pub(crate) fn new(slots: &'a [Slot], member: usize) -> Units<'a> {
        Units { slots, member }
    }

    /// A unit that nobody has taken yet, which is the caller's then; `None` when all are taken.
    pub(crate) fn take(&self) -> Option<usize> {
        (0..self.slots.len()).find_map(|other| {
            let slot = &self.slots[(self.member + other) % self.slots.len()];
            let rest = |range: u64| (range & u64::from(u32::MAX), range >> 32);
            let taken = slot.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |range| {
                let (front, end) = rest(range);
                let left =
                    if other == 0 { pack(front + 1, end) } else { pack(front, end.max(1) - 1) };
                (front < end).then_some(left)
            });
            let (front, end) = rest(taken.ok()?);
            Some(if other == 0 { front } else { end - 1 } as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_begins_at_the_front_of_its_own_and_then_at_the_back_of_others() {
        let slots: Vec<Slot> = (0..3).map(|_| Slot::default()).collect();
        deal(&slots, 7); // 0..2, 2..4, 4..7
        let units = Units::new(&slots, 1);
        let taken: Vec<_> = std::iter::from_fn(|| units.take()).collect();
        assert_eq!(taken, [2, 3, 6, 5, 4, 1, 0]);
        assert_eq!(Units::new(&slots, 0).take(), None);
    }

    #[test]
    fn parts_cover_everything_once_and_evenly() {
        for (total, parts) in [(0, 3), (1, 3), (7, 3), (9, 3), (100, 7)] {
            let ranges: Vec<_> = (0..parts).map(|index| part(total, parts, index)).collect();
            let items: Vec<usize> = ranges.iter().cloned().flatten().collect();
            assert_eq!(items, (0..total).collect::<Vec<_>>());
            let least = total / parts;
            assert!(ranges.iter().all(|range| range.len() - least <= 1));
        }
    }
}
