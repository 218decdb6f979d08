//! The forward direction and the gradient of the input: transform, 36 products, transform back.

use super::Winograd;
use super::transform::{IN, Input, OUT, Output, POINTS, both, load};
use crate::conv::direct::outputs::multiply;
use crate::conv::finish::Finish;
use crate::conv::kernel::{Kernel, Tile};
use crate::conv::operands::{Source, Target};
use crate::element::Element;
use crate::map::BLOCK;
use crate::simd::vector::Vector;
use crate::team::share::Shared;
use crate::team::units::{Member, Units, part};

/// One direction of one convolution, ready to run.
pub(in crate::conv) struct WinogradOutputs<'a, E> {
    pub sizes: &'a Winograd,
    pub tile: Tile,
    pub source: Source<'a, E>,
    /// Weights as [`WinogradPack`](super::pack::WinogradPack) leaves them.
    pub weights: &'a [f32],
    pub target: Target<'a, E>,
    /// Its units are blocks of tiles.
    pub finish: Finish<'a>,
    /// `member.of` times [`Winograd::outputs_len`] elements.
    pub workspace: Shared<'a>,
    pub member: Member,
    /// [`Winograd::blocks`].
    pub units: Units<'a>,
}

impl Winograd {
    /// Elements of one thread's workspace: the transformed source and one group's products.
    pub(in crate::conv) fn outputs_len(&self, tile: Tile) -> usize {
        POINTS * (self.point_len(self.in_blocks) + self.point_len(tile.group_blocks))
    }

    /// Blocks of tiles, as many for each thread to begin with.
    pub(in crate::conv) fn blocks(&self, threads: usize) -> usize {
        threads * self.blocks_per_thread(threads)
    }

    /// Blocks that the tiles of a thread are at most.
    fn blocks_per_thread(&self, threads: usize) -> usize {
        self.tiles.div_ceil(threads).div_ceil(self.capacity)
    }
}

impl<E: Element> Kernel for WinogradOutputs<'_, E> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let sizes = self.sizes;
        let len = sizes.outputs_len(self.tile);
        let Member { index: thread, of: threads } = self.member;
        // SAFETY: each thread has a workspace of its own.
        let workspace = unsafe { self.workspace.slice(thread * len..(thread + 1) * len) };
        let (transformed, products) =
            workspace.split_at_mut(POINTS * sizes.point_len(sizes.in_blocks));
        let most = sizes.blocks_per_thread(threads);
        while let Some(unit) = self.units.take() {
            let mine = part(sizes.tiles, threads, unit / most);
            let first = (mine.start + unit % most * sizes.capacity).min(mine.end);
            let count = sizes.capacity.min(mine.end - first);
            let sums_at = unit * 2 * sizes.out_blocks * BLOCK;
            // SAFETY: as the caller vouches; tiles of different units are different pixels.
            unsafe {
                transform_source::<E, V, NB>(
                    sizes,
                    self.source,
                    first,
                    0..count,
                    transformed.as_mut_ptr(),
                );
                let mut block = 0;
                while block < sizes.out_blocks {
                    if block + self.tile.group_blocks <= sizes.out_blocks {
                        self.multiply::<V, PX, NV>(block, count, transformed, products);
                        self.group::<V, NV, NB>(block, first, count, products, sums_at);
                    } else {
                        self.multiply::<V, PX, NB>(block, count, transformed, products);
                        self.group::<V, NB, NB>(block, first, count, products, sums_at);
                    }
                    block += self.tile.group_blocks;
                }
            }
        }
    }
}

impl<E: Element> WinogradOutputs<'_, E> {
    /// The products of one group of output channels: `[point][tile][NV vectors]`.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`.
    #[inline(always)]
    unsafe fn multiply<V: Vector, const PX: usize, const NV: usize>(
        &self,
        block: usize,
        count: usize,
        transformed: &[f32],
        products: &mut [f32],
    ) {
        let sizes = self.sizes;
        let width = NV * V::LANES;
        let weight_len = sizes.weight_point_len(width);
        let first = sizes.weight_group(block, self.tile.group_blocks);
        let weights = &self.weights[first..][..POINTS * weight_len];
        assert!(count <= sizes.capacity && sizes.capacity.is_multiple_of(PX));
        for point in 0..POINTS {
            let source = &transformed[point * sizes.point_len(sizes.in_blocks)..];
            let products = &mut products[point * sizes.point_len(self.tile.group_blocks)..];
            let mut first = 0;
            while first < count {
                // SAFETY: tiles up to the capacity exist in both buffers, and a point has the weights
                // of all source channels.
                unsafe {
                    // The last tile stands in for those that are missing.
                    let mut at = [source.as_ptr(); PX];
                    for p in 0..PX {
                        at[p] = at[p].add((first + p).min(count - 1) * BLOCK);
                    }
                    let weights = weights.as_ptr().add(point * weight_len);
                    let tile = multiply::<V, PX, NV>(&at, &sizes.steps, BLOCK, weights);
                    let to = products.as_mut_ptr().add(first * width);
                    for p in 0..PX {
                        for v in 0..NV {
                            tile[p][v].store(to.add((p * NV + v) * V::LANES));
                        }
                    }
                }
                first += PX;
            }
        }
    }

    /// Transforms one group's products back and finishes them.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and no other thread may touch the pixels of
    /// these tiles.
    #[inline(always)]
    unsafe fn group<V: Vector, const NV: usize, const NB: usize>(
        &self,
        block: usize,
        first: usize,
        count: usize,
        products: &[f32],
        sums_at: usize,
    ) {
        const PIXELS: usize = OUT * OUT;
        let sizes = self.sizes;
        let (point_len, width) = (sizes.point_len(self.tile.group_blocks), NV * V::LANES);
        // SAFETY: tiles up to `count` hold products; `Conv` has checked that the target holds every
        // image of its view; the rest is vouched for by the caller.
        unsafe {
            let zero = V::splat(0.0);
            for sub in 0..width / BLOCK {
                let mut sums = [[zero; NB]; 2];
                for t in 0..count {
                    let (n, tile_row, tile_column) = sizes.place(first + t);
                    let (row, column) = (tile_row * OUT, tile_column * OUT);
                    let (rows, columns) =
                        (OUT.min(sizes.map.height - row), OUT.min(sizes.map.width - column));
                    let target = self.target.values.at(n * self.target.image
                        + (block + sub) * self.target.plane
                        + self.sizes.map.pixel(row, column));
                    let mut tile = [[zero; NB]; PIXELS];
                    let at = products.as_ptr().add(t * width + sub * BLOCK);
                    for v in 0..NB {
                        let at = at.add(v * V::LANES);
                        let points: [[V; IN]; IN] = load(at, IN * point_len, point_len);
                        let outputs = both::<Output, V, _, _>(&points);
                        for p in 0..PIXELS {
                            tile[p][v] = outputs[p / OUT][p % OUT];
                        }
                    }
                    let pitch = self.sizes.map.pitch();
                    let channel = (block + sub) * BLOCK;
                    if (rows, columns) == (OUT, OUT) {
                        let mut targets = [target; PIXELS];
                        for p in 0..PIXELS {
                            targets[p] = target.add((p / OUT * pitch + p % OUT) * BLOCK);
                        }
                        self.finish.store(&mut tile, &targets, 0, PIXELS, channel, &mut sums);
                    } else {
                        // At the lower and right edge the pixels of the map move to the front.
                        let mut targets = [target; PIXELS];
                        let mut valid = 0;
                        for row in 0..rows {
                            for column in 0..columns {
                                tile[valid] = tile[row * OUT + column];
                                targets[valid] = target.add((row * pitch + column) * BLOCK);
                                valid += 1;
                            }
                        }
                        self.finish.store(&mut tile, &targets, 0, valid, channel, &mut sums);
                    }
                }
                if let Some(partial) = self.finish.sums {
                    let channels = sizes.out_blocks * BLOCK;
                    for (kind, sums) in sums.iter().enumerate() {
                        let at = sums_at + kind * channels + (block + sub) * BLOCK;
                        for v in 0..NB {
                            sums[v].store(partial.at(at + v * V::LANES));
                        }
                    }
                }
            }
        }
    }
}

/// Transforms the 6x6 patches of tiles `first + range` of the batch:
/// `to` is `[point][block][capacity][16]`, and tile `first + t` goes to place `t`.
///
/// # Safety
/// The machine must have the instruction set of `V`; `source` must hold every image and `to` all
/// points, and no other thread may touch the places of these tiles.
#[inline(always)]
pub(super) unsafe fn transform_source<E: Element, V: Vector, const NB: usize>(
    sizes: &Winograd,
    source: Source<'_, E>,
    first: usize,
    range: std::ops::Range<usize>,
    to: *mut f32,
) {
    let point_len = sizes.point_len(source.blocks);
    let pitch = sizes.map.pitch();
    // SAFETY: rows and columns beyond the halo are not read; the rest is vouched for by the caller.
    unsafe {
        let zero = V::splat(0.0);
        for block in 0..source.blocks {
            for t in range.clone() {
                let (n, tile_row, tile_column) = sizes.place(first + t);
                let (row, column) = (tile_row * OUT, tile_column * OUT);
                let rows = IN.min(sizes.map.height + 2 - row);
                let columns = IN.min(sizes.map.width + 2 - column);
                let at = n * source.image + block * source.plane + (row * pitch + column) * BLOCK;
                let at = source.values.as_ptr().add(at);
                let to = to.add((block * sizes.capacity + t) * BLOCK);
                for v in 0..NB {
                    let at = at.add(v * V::LANES);
                    let patch: [[V; IN]; IN] = if (rows, columns) == (IN, IN) {
                        load(at, pitch * BLOCK, BLOCK)
                    } else {
                        let mut patch = [[zero; IN]; IN];
                        for r in 0..rows {
                            for c in 0..columns {
                                patch[r][c] = E::load_vector(at.add((r * pitch + c) * BLOCK));
                            }
                        }
                        patch
                    };
                    let points = both::<Input, V, _, _>(&patch);
                    for r in 0..IN {
                        for c in 0..IN {
                            points[r][c].store(to.add((r * IN + c) * point_len + v * V::LANES));
                        }
                    }
                }
            }
        }
    }
}
