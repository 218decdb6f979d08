//! Places for buffers in one arena: buffers that are never in use at the same time share memory.

use std::ops::Range;

use bninception_kernels::arena::ALIGNMENT;

/// A buffer: its length, and the first and last moment of its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Values.
    pub len: usize,
    /// First moment of use.
    pub first: usize,
    /// Last moment of use.
    pub last: usize,
}

impl Extent {
    fn meets(&self, other: &Extent) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Handle of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer(usize);

/// The buffers of a plan while it is being made.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    extents: Vec<Option<Extent>>,
    lens: Vec<usize>,
}

impl Buffers {
    /// A new buffer of `len` values, in use at no moment yet.
    pub(crate) fn add(&mut self, len: usize) -> Buffer {
        self.extents.push(None);
        self.lens.push(len);
        Buffer(self.lens.len() - 1)
    }

    /// Notes that `buffer` is in use at `moment`, and from its earlier moments until then.
    pub(crate) fn touch(&mut self, buffer: Buffer, moment: usize) {
        let len = self.lens[buffer.0];
        let extent =
            self.extents[buffer.0].get_or_insert(Extent { len, first: moment, last: moment });
        extent.first = extent.first.min(moment);
        extent.last = extent.last.max(moment);
    }

    /// A buffer that is in use at one moment only.
    pub(crate) fn scratch(&mut self, len: usize, moment: usize) -> Buffer {
        let buffer = self.add(len);
        self.touch(buffer, moment);
        buffer
    }

    /// Notes that `buffer` holds `len` values at `moment`, perhaps more than at other moments. Scratch
    /// that keeps one place over many moments is still in a cache when it is written again.
    pub(crate) fn touch_len(&mut self, buffer: Buffer, len: usize, moment: usize) {
        self.lens[buffer.0] = self.lens[buffer.0].max(len);
        self.touch(buffer, moment);
        if let Some(extent) = &mut self.extents[buffer.0] {
            extent.len = self.lens[buffer.0];
        }
    }

    /// Gives every buffer its place.
    pub(crate) fn place(&self) -> Places {
        let used: Vec<Extent> = self.extents.iter().flatten().copied().collect();
        let (offsets, total) = assign(&used);
        let mut offsets = offsets.into_iter();
        let range = |extent: &Option<Extent>| match extent {
            Some(extent) => {
                let offset = offsets.next().unwrap_or(0);
                offset..offset + extent.len
            }
            // A buffer that is never used has no place.
            None => 0..0,
        };
        Places { ranges: self.extents.iter().map(range).collect(), total }
    }
}

/// Where each buffer lies in the arena.
#[derive(Debug)]
pub(crate) struct Places {
    ranges: Vec<Range<usize>>,
    /// Length of the arena.
    pub total: usize,
}

impl Places {
    /// The place of a buffer in the arena.
    pub(crate) fn range(&self, buffer: Buffer) -> Range<usize> {
        self.ranges[buffer.0].clone()
    }

    /// The buffers' slices of `arena`, to write or read.
    ///
    /// # Panics
    /// If two of them share memory, which [`assign`] rules out for buffers in use together.
    pub(crate) fn get<'a, const N: usize>(
        &self,
        arena: &'a mut [f32],
        buffers: [Buffer; N],
    ) -> [&'a mut [f32]; N] {
        let ranges = buffers.map(|buffer| self.ranges[buffer.0].clone());
        match arena.get_disjoint_mut(ranges) {
            Ok(slices) => slices,
            Err(error) => panic!("buffers {buffers:?} of one moment: {error}"),
        }
    }
}

/// Offsets for buffers, and the length of all of them together. Buffers in use at the same moment do
/// not overlap.
///
/// The largest buffer comes first. Each goes into the smallest gap that fits between the placed buffers
/// that are in use at the same time ("greedy by size", Pisarchyk & Lee 2020,
/// <https://arxiv.org/abs/2001.03288>).
pub(crate) fn assign(extents: &[Extent]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..extents.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(extents[index].len), index));
    let mut offsets = vec![0_usize; extents.len()];
    // Buffers already placed, by offset.
    let mut placed: Vec<usize> = Vec::with_capacity(extents.len());
    let mut total = 0;
    for index in order {
        let extent = &extents[index];
        let len = extent.len.next_multiple_of(ALIGNMENT);
        let mut end = 0;
        let mut best: Option<(usize, usize)> = None;
        for &other in placed.iter().filter(|&&other| extents[other].meets(extent)) {
            let gap = offsets[other].saturating_sub(end);
            if gap >= len && best.is_none_or(|(smallest, _)| gap < smallest) {
                best = Some((gap, end));
            }
            end = end.max(offsets[other] + extents[other].len.next_multiple_of(ALIGNMENT));
        }
        offsets[index] = best.map_or(end, |(_, offset)| offset);
        total = total.max(offsets[index] + len);
        let position = placed.partition_point(|&other| offsets[other] <= offsets[index]);
        placed.insert(position, index);
    }
    (offsets, total)
}

/// Several tensors of a flat vector.
pub(crate) fn disjoint<const N: usize>(
    values: &mut [f32],
    ranges: [Range<usize>; N],
) -> [&mut [f32]; N] {
    match values.get_disjoint_mut(ranges) {
        Ok(slices) => slices,
        Err(error) => panic!("tensors of one layer in a flat vector: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(len: usize, first: usize, last: usize) -> Extent {
        Extent { len, first, last }
    }

    /// Most values in use at one moment: no assignment takes less.
    fn bound(extents: &[Extent]) -> usize {
        let at = |moment| {
            let live = extents.iter().filter(|e| e.first <= moment && moment <= e.last);
            live.map(|e| e.len.next_multiple_of(ALIGNMENT)).sum()
        };
        extents.iter().map(|e| at(e.first)).max().unwrap_or(0)
    }

    fn assert_disjoint(extents: &[Extent], offsets: &[usize], total: usize) {
        for (i, a) in extents.iter().enumerate() {
            assert_eq!(offsets[i] % ALIGNMENT, 0);
            assert!(offsets[i] + a.len <= total, "buffer {i} lies outside the arena");
            for (j, b) in extents.iter().enumerate().skip(i + 1).filter(|(_, b)| b.meets(a)) {
                let apart = offsets[i] + a.len <= offsets[j] || offsets[j] + b.len <= offsets[i];
                assert!(apart, "buffers {i} and {j} are in use together and overlap");
            }
        }
    }

    #[test]
    fn small_cases_reach_the_bound() {
        let cases: [&[Extent]; 5] = [
            &[],
            &[extent(100, 0, 3)],
            &[extent(16, 0, 1), extent(32, 2, 3)],
            &[extent(16, 0, 2), extent(32, 2, 3), extent(16, 3, 4)],
            // A chain as in a network without branches: two buffers at a time.
            &[extent(64, 0, 1), extent(32, 1, 2), extent(64, 2, 3), extent(32, 3, 4)],
        ];
        for extents in cases {
            let (offsets, total) = assign(extents);
            assert_disjoint(extents, &offsets, total);
            assert_eq!(total, bound(extents), "{extents:?}");
        }
    }

    #[test]
    fn no_two_live_buffers_overlap() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % below) as usize
        };
        for _ in 0..200 {
            let extents: Vec<Extent> = (0..40)
                .map(|_| {
                    let first = random(30);
                    extent(1 + random(500), first, first + random(10))
                })
                .collect();
            let (offsets, total) = assign(&extents);
            assert_disjoint(&extents, &offsets, total);
            // Not optimal, but far from giving each buffer memory of its own.
            assert!(total * 2 <= bound(&extents) * 3, "{total} for a bound of {}", bound(&extents));
        }
    }

    #[test]
    fn handles_find_their_places() {
        let mut buffers = Buffers::default();
        let (a, unused, b) = (buffers.add(20), buffers.add(99), buffers.add(30));
        buffers.touch(a, 0);
        buffers.touch(b, 4);
        buffers.touch(a, 4);
        let c = buffers.scratch(10, 5);
        let places = buffers.place();
        assert_eq!(places.total, 64, "c takes the place of a or b");
        let mut arena = vec![0.0; places.total];
        let [first, second] = places.get(&mut arena, [a, b]);
        assert_eq!((first.len(), second.len()), (20, 30));
        assert_eq!(places.get(&mut arena, [c])[0].len(), 10);
        assert_eq!(places.get(&mut arena, [unused])[0].len(), 0);
    }
}
