//! Weights from OIHW into their transform, and the gradient of the transform back to OIHW.
//!
//! Transformed: `[group][point][source channel][group width]`, groups as in the direct order, and
//! [`Winograd::weight_point_len`] from one point to the next.

use super::Winograd;
use super::transform::{Filter, FilterGradient, IN, POINTS, both, load};
use crate::conv::direct::pack::{Order, rows, target_of};
use crate::conv::kernel::{Kernel, Tile};
use crate::conv::shape::ConvShape;
use crate::dtype::Dtype;
use crate::map::BLOCK;
use crate::simd::vector::Vector;
use crate::team::share::Shared;
use crate::team::units::Member;

/// Rows and columns of the filter.
const FILTER: usize = 3;
const TAPS: usize = FILTER * FILTER;

impl Winograd {
    /// Offset of lane block `block` of source channel `channel` at point 0, and the distance from
    /// one point to the next.
    fn weights_at(&self, tile: Tile, block: usize, channel: usize) -> (usize, usize) {
        let group = block - block % tile.group_blocks;
        let width = tile.group_blocks.min(self.out_blocks - group) * BLOCK;
        let at = self.weight_group(group, tile.group_blocks);
        (at + channel * width + (block - group) * BLOCK, self.weight_point_len(width))
    }
}

/// The transform of the weights, ready to run.
pub(in crate::conv) struct WinogradPack<'a> {
    pub shape: &'a ConvShape,
    pub sizes: &'a Winograd,
    pub tile: Tile,
    pub order: Order,
    /// Format that weights are rounded to before their transform.
    pub dtype: Dtype,
    /// OIHW slices that follow one another.
    pub weights: &'a [&'a [f32]],
    pub packed: Shared<'a>,
    pub member: Member,
}

impl Kernel for WinogradPack<'_> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let sizes = self.sizes;
        let row = self.shape.in_channels * TAPS;
        for unit in self.member.part(sizes.out_blocks * sizes.in_blocks) {
            let (block, source) = (unit / sizes.in_blocks, unit % sizes.in_blocks);
            let from = match self.order {
                Order::Forward => rows(self.weights, row, block),
                Order::BackwardInput => rows(self.weights, row, source),
            };
            for i in 0..BLOCK {
                let mut taps = [[0.0f32; BLOCK]; TAPS];
                for lane in 0..BLOCK {
                    let at = match self.order {
                        Order::Forward => lane * row + (source * BLOCK + i) * TAPS,
                        Order::BackwardInput => i * row + (block * BLOCK + lane) * TAPS,
                    };
                    let filter: &[f32] = &from[at..][..TAPS];
                    for tap in 0..TAPS {
                        // The gradient of the input correlates with the filter turned by 180 degrees.
                        let turned = match self.order {
                            Order::Forward => tap,
                            Order::BackwardInput => TAPS - 1 - tap,
                        };
                        taps[turned][lane] = filter[tap];
                    }
                }
                for tap in taps.as_flattened_mut() {
                    *tap = self.dtype.round(*tap);
                }
                let (at, point_len) = sizes.weights_at(self.tile, block, source * BLOCK + i);
                for v in 0..NB {
                    // SAFETY: as the caller vouches; a unit's places in the buffer are its own, and
                    // `Conv` has checked the buffer's length.
                    unsafe {
                        let taps: [[V; FILTER]; FILTER] = load(
                            taps.as_ptr().cast::<f32>().add(v * V::LANES),
                            FILTER * BLOCK,
                            BLOCK,
                        );
                        let points = both::<Filter, V, _, _>(&taps);
                        for point in 0..POINTS {
                            let to = self.packed.at(at + point * point_len + v * V::LANES);
                            points[point / IN][point % IN].store(to);
                        }
                    }
                }
            }
        }
    }
}

/// The gradient of the weights from that of their transform, ready to run.
pub(in crate::conv) struct WinogradUnpack<'a> {
    pub shape: &'a ConvShape,
    pub sizes: &'a Winograd,
    pub tile: Tile,
    /// The gradient of the transform, in the order of [`WinogradPack`]: [`Winograd::sum_copies`] that add up to it.
    pub gradient: &'a [f32],
    /// OIHW slices that follow one another.
    pub targets: &'a [Shared<'a>],
    pub member: Member,
}

impl Kernel for WinogradUnpack<'_> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let sizes = self.sizes;
        let row = self.shape.in_channels * TAPS;
        for unit in self.member.part(sizes.out_blocks * sizes.in_blocks) {
            let (block, source) = (unit / sizes.in_blocks, unit % sizes.in_blocks);
            let (target, first) = target_of(self.targets, block * BLOCK * row);
            for i in 0..BLOCK {
                let channel = source * BLOCK + i;
                let (at, point_len) = sizes.weights_at(self.tile, block, channel);
                let mut taps = [[0.0f32; BLOCK]; TAPS];
                for v in 0..NB {
                    let from = |copy: usize| {
                        let from = &self.gradient[copy * sizes.weights_len() + at + v * V::LANES..];
                        assert!(from.len() >= (POINTS - 1) * point_len + V::LANES);
                        from.as_ptr()
                    };
                    // SAFETY: the gradient reaches that far; the caller vouches for the rest.
                    unsafe {
                        let mut points: [[V; IN]; IN] = load(from(0), IN * point_len, point_len);
                        for copy in 1..sizes.sum_copies {
                            let more: [[V; IN]; IN] = load(from(copy), IN * point_len, point_len);
                            for point in 0..POINTS {
                                let (r, c) = (point / IN, point % IN);
                                points[r][c] = points[r][c].add(more[r][c]);
                            }
                        }
                        let filters = both::<FilterGradient, V, _, _>(&points);
                        for tap in 0..TAPS {
                            let to = taps[tap].as_mut_ptr().add(v * V::LANES);
                            filters[tap / FILTER][tap % FILTER].store(to);
                        }
                    }
                }
                for lane in 0..BLOCK {
                    let to = first + lane * row + channel * TAPS;
                    // SAFETY: each filter belongs to one unit, and units to one thread.
                    let filter = unsafe { target.slice(to..to + TAPS) };
                    for tap in 0..TAPS {
                        filter[tap] = taps[tap][lane];
                    }
                }
            }
        }
    }
}
