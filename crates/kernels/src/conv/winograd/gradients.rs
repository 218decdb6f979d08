//! The gradient of the weights: both maps are transformed, 36 outer products sum over the tiles,
//! and the sums are transformed back once.
//!
//! Where the sums are small beside the transformed maps, each thread goes through tiles of its own with
//! sums of its own, which are added up in a fixed order in the end: until then no thread waits for
//! another or reads what another core has written. Else the team transforms a block of tiles together and
//! then splits the sums of all points.

use std::ops::Range;

use super::outputs::transform_source;
use super::transform::{IN, OUT, OutputGradient, POINTS, both, load};
use super::{MOST_TILES, Winograd};
use crate::conv::direct::gradients::outer;
use crate::conv::kernel::{Kernel, Tile};
use crate::conv::operands::Source;
use crate::element::Element;
use crate::map::BLOCK;
use crate::simd::vector::Vector;
use crate::team::share::Shared;
use crate::team::units::Member;

/// Which tiles a run of the kernel goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conv) enum Work {
    /// All; each thread its own share, with sums of its own.
    SumCopies,
    /// The block from tile `first` on, which the team transforms together.
    Transform { first: usize },
    /// The same block, whose sums the team splits.
    Sum { first: usize },
}

/// The gradient of the weights of one convolution, ready to run.
pub(in crate::conv) struct WinogradGradients<'a, E> {
    pub sizes: &'a Winograd,
    pub tile: Tile,
    pub work: Work,
    /// x.
    pub source: Source<'a, E>,
    /// dy.
    pub gradient: Source<'a, E>,
    /// Transformed x, then transformed dy: [`Winograd::transformed_len`] elements for each of the sums.
    pub transformed: Shared<'a>,
    /// The gradient of the transformed weights: [`Winograd::weights_len`] elements for each of
    /// [`Winograd::sum_copies`].
    pub sums: Shared<'a>,
    pub member: Member,
}

impl Winograd {
    /// Elements of both transformed maps of a block of tiles.
    pub(in crate::conv) fn transformed_len(&self) -> usize {
        POINTS * (self.point_len(self.in_blocks) + self.point_len(self.out_blocks))
    }

    /// Pieces that the sums of a block of tiles are made in.
    fn sum_units(&self, tile: Tile) -> usize {
        POINTS * self.out_blocks.div_ceil(tile.group_blocks) * self.in_blocks
    }
}

/// Some tiles that are in the workspace at the same time.
#[derive(Clone, Copy)]
struct Block<'a> {
    first: usize,
    count: usize,
    /// Whether their sums are the first.
    fresh: bool,
    transformed: Shared<'a>,
    sums: Shared<'a>,
}

impl<E: Element> Kernel for WinogradGradients<'_, E> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let WinogradGradients { sizes, member, transformed, sums, .. } = *self;
        let team = |first: usize| {
            let count = sizes.capacity.min(sizes.tiles - first);
            Block { first, count, fresh: first == 0, transformed, sums }
        };
        let units = sizes.sum_units(self.tile);
        // SAFETY: as the caller vouches; each thread has places and sums of its own.
        unsafe {
            match self.work {
                Work::SumCopies => {
                    let mine = member.part(sizes.tiles);
                    let transformed = transformed.from(member.index * sizes.transformed_len());
                    let sums = sums.from(member.index * sizes.weights_len());
                    for first in mine.clone().step_by(sizes.capacity) {
                        let count = sizes.capacity.min(mine.end - first);
                        let fresh = first == mine.start;
                        let block = Block { first, count, fresh, transformed, sums };
                        self.transform::<V, NB>(block, 0..count);
                        self.sum::<V, NI, NV, NB>(block, 0..units);
                    }
                }
                Work::Transform { first } => {
                    let block = team(first);
                    self.transform::<V, NB>(block, member.part(block.count));
                }
                Work::Sum { first } => {
                    self.sum::<V, NI, NV, NB>(team(first), member.part(units));
                }
            }
        }
    }
}

impl<E: Element> WinogradGradients<'_, E> {
    /// Offset of the transformed dy.
    fn gradient_start(&self) -> usize {
        POINTS * self.sizes.point_len(self.sizes.in_blocks)
    }

    /// Transforms tiles `range` of a block.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and no other thread may touch the places of
    /// these tiles.
    #[inline(always)]
    unsafe fn transform<V: Vector, const NB: usize>(&self, block: Block<'_>, range: Range<usize>) {
        // SAFETY: as the caller vouches; `Conv` has checked the maps.
        unsafe {
            transform_source::<E, V, NB>(
                self.sizes,
                self.source,
                block.first,
                range.clone(),
                block.transformed.at(0),
            );
            let to = block.transformed.at(self.gradient_start());
            self.transform_gradient::<V, NB>(block.first, range, to);
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
        first: usize,
        range: Range<usize>,
        to: *mut f32,
    ) {
        let sizes = self.sizes;
        let point_len = sizes.point_len(sizes.out_blocks);
        let pitch = sizes.map.pitch();
        // SAFETY: pixels outside the map are not read; the rest is vouched for by the caller.
        unsafe {
            let zero = V::splat(0.0);
            for block in 0..sizes.out_blocks {
                for t in range.clone() {
                    let (n, tile_row, tile_column) = sizes.place(first + t);
                    let (row, column) = (tile_row * OUT, tile_column * OUT);
                    let (rows, columns) =
                        (OUT.min(sizes.map.height - row), OUT.min(sizes.map.width - column));
                    let at = n * self.gradient.image
                        + block * self.gradient.plane
                        + sizes.map.pixel(row, column);
                    let at = self.gradient.values.as_ptr().add(at);
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

    /// Adds the block's tiles to the sums of `units`.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, the block must be transformed, and no other
    /// thread may touch these sums.
    #[inline(always)]
    unsafe fn sum<V: Vector, const NI: usize, const NV: usize, const NB: usize>(
        &self,
        tiles: Block<'_>,
        units: Range<usize>,
    ) {
        let sizes = self.sizes;
        let groups = sizes.out_blocks.div_ceil(self.tile.group_blocks);
        let list: [(usize, usize); MOST_TILES] = std::array::from_fn(|t| (t * BLOCK, t * BLOCK));
        let (list, fresh) = (&list[..tiles.count], tiles.fresh);
        let plane = sizes.capacity * BLOCK;
        for unit in units {
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
                let source = tiles.transformed.at(source + i).cast_const();
                let gradient = tiles.transformed.at(gradient).cast_const();
                let sums = tiles.sums.at(sums + i * width);
                // SAFETY: as the caller vouches.
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
