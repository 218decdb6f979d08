//! The gradient of the weights: both maps are transformed, 36 outer products sum over the tiles,
//! and the sums are transformed back once.
//!
//! The team transforms a block of tiles together and then splits the sums of all points, so the
//! transforms are done once and every sum runs over the tiles in one fixed order, whatever the
//! number of threads.

use super::Winograd;
use super::products::transform_source;
use super::transform::{IN, OUT, OutputGradient, POINTS, both, load};
use crate::conv::BLOCK;
use crate::conv::direct_weights::outer;
use crate::conv::share::Shared;
use crate::conv::vector::{Kernel, Tile, Vector};
use crate::element::Element;
use crate::map::Map;
use crate::split::part;

/// Bytes of both transformed maps of a block of tiles: they pass through the last-level cache once,
/// and the larger the block, the fewer times threads wait for one another.
pub(super) const TRANSFORMED_BYTES: usize = 8 << 20;
/// Most tiles of a block: on Zen 4, 112 ran as fast as 256 or up to a fifth faster.
pub(super) const MOST_TILES: usize = 128;

/// What a run of the kernel does for a block of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conv) enum Phase {
    /// Transforms this thread's share of the tiles.
    Transform,
    /// Adds up this thread's share of the sums.
    Sum,
}

/// The gradient of the weights of one convolution, ready to run for one block of tiles.
pub(in crate::conv) struct Gradients<'a, E> {
    pub sizes: &'a Winograd,
    pub tile: Tile,
    pub phase: Phase,
    /// First tile of the block.
    pub first: usize,
    /// The map of one channel block of x and dy.
    pub map: Map,
    /// First element of the view of x, and elements from one image to the next.
    pub source: &'a [E],
    pub source_image: usize,
    /// First element of the view of dy, and elements from one image to the next.
    pub gradient: &'a [E],
    pub gradient_image: usize,
    /// Transformed x, then transformed dy: [`Winograd::transformed_len`] elements.
    pub transformed: Shared<'a>,
    /// The gradient of the transformed weights.
    pub sums: Shared<'a>,
    pub thread: usize,
    pub threads: usize,
}

impl Winograd {
    /// Elements of both transformed maps of a block of tiles.
    pub(in crate::conv) fn transformed_len(&self) -> usize {
        POINTS * (self.point_len(self.in_blocks) + self.point_len(self.out_blocks))
    }
}

impl<E: Element> Kernel for Gradients<'_, E> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        // SAFETY: as the caller vouches.
        unsafe {
            match self.phase {
                Phase::Transform => self.transform::<V, NB>(),
                Phase::Sum => self.sum::<V, NI, NV, NB>(),
            }
        }
    }
}

impl<E: Element> Gradients<'_, E> {
    fn count(&self) -> usize {
        self.sizes.capacity.min(self.sizes.tiles - self.first)
    }

    /// Offset of the transformed dy.
    fn gradient_start(&self) -> usize {
        POINTS * self.sizes.point_len(self.sizes.in_blocks)
    }

    /// # Safety
    /// The machine must have the instruction set of `V`.
    #[inline(always)]
    unsafe fn transform<V: Vector, const NB: usize>(&self) {
        let range = part(self.count(), self.threads, self.thread);
        // SAFETY: tiles of different threads have different places; `Conv` has checked the maps.
        unsafe {
            transform_source::<E, V, NB>(
                self.sizes,
                self.sizes.in_blocks,
                &self.map,
                self.source,
                self.source_image,
                self.first,
                range.clone(),
                self.transformed.at(0),
            );
            self.transform_gradient::<V, NB>(range, self.transformed.at(self.gradient_start()));
        }
    }

    /// Transforms the 4x4 tiles of dy as [`transform_source`] does the patches of x.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and no other thread may touch the places of
    /// these tiles.
    #[inline(always)]
    unsafe fn transform_gradient<V: Vector, const NB: usize>(
        &self,
        range: std::ops::Range<usize>,
        to: *mut f32,
    ) {
        let sizes = self.sizes;
        let point_len = sizes.point_len(sizes.out_blocks);
        let pitch = self.map.pitch();
        // SAFETY: pixels outside the map are not read; the rest is vouched for by the caller.
        unsafe {
            let zero = V::splat(0.0);
            for block in 0..sizes.out_blocks {
                for t in range.clone() {
                    let (n, tile_row, tile_column) = sizes.place(self.first + t);
                    let (row, column) = (tile_row * OUT, tile_column * OUT);
                    let (rows, columns) =
                        (OUT.min(sizes.height - row), OUT.min(sizes.width - column));
                    let at = n * self.gradient_image
                        + block * self.map.plane()
                        + self.map.pixel(row, column);
                    let at = self.gradient.as_ptr().add(at);
                    let to = to.add((block * sizes.capacity + t) * BLOCK);
                    for v in 0..NB {
                        let at = at.add(v * V::LANES);
                        let tile = if (rows, columns) == (OUT, OUT) {
                            load(at, pitch * BLOCK, BLOCK)
                        } else {
                            let mut tile = [[zero; OUT]; OUT];
                            for r in 0..rows {
                                for c in 0..columns {
                                    tile[r][c] = E::load_vector(at.add((r * pitch + c) * BLOCK));
                                }
                            }
                            tile
                        };
                        let points = both::<OutputGradient, V, _, _>(&tile);
                        for r in 0..IN {
                            for c in 0..IN {
                                let to = to.add((r * IN + c) * point_len + v * V::LANES);
                                points[r][c].store(to);
                            }
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// The machine must have the instruction set of `V`.
    #[inline(always)]
    unsafe fn sum<V: Vector, const NI: usize, const NV: usize, const NB: usize>(&self) {
        let sizes = self.sizes;
        let groups = sizes.out_blocks.div_ceil(self.tile.group_blocks);
        let count = self.count();
        let list: [(usize, usize); MOST_TILES] = std::array::from_fn(|t| (t * BLOCK, t * BLOCK));
        let plane = sizes.capacity * BLOCK;
        for unit in part(POINTS * groups * sizes.in_blocks, self.threads, self.thread) {
            let (rest, source_block) = (unit / sizes.in_blocks, unit % sizes.in_blocks);
            let (point, group) = (rest / groups, rest % groups);
            let block = group * self.tile.group_blocks;
            let width = self.tile.group_blocks.min(sizes.out_blocks - block) * BLOCK;
            let source = point * sizes.point_len(sizes.in_blocks) + source_block * plane;
            let gradient =
                self.gradient_start() + point * sizes.point_len(sizes.out_blocks) + block * plane;
            let sums = sizes.weight_group(block, self.tile.group_blocks)
                + point * sizes.weight_point_len(width)
                + source_block * BLOCK * width;
            for i in (0..BLOCK).step_by(NI) {
                let source = self.transformed.at(source + i).cast_const();
                let gradient = self.transformed.at(gradient).cast_const();
                let sums = self.sums.at(sums + i * width);
                let (list, fresh) = (&list[..count], self.first == 0);
                // SAFETY: the block's tiles are transformed, units of different threads name
                // different sums, and the caller vouches for the instruction set.
                unsafe {
                    if width == NV * V::LANES {
                        outer::<V, NI, NV>(list, source, gradient, plane, sums, 0, fresh);
                    } else {
                        outer::<V, NI, NB>(list, source, gradient, plane, sums, 0, fresh);
                    }
                }
            }
        }
    }
}
