//! The direct algorithm of the forward direction and of the gradient of the input.
//!
//! One register tile holds `PX` pixels x one group of output channels; it sums over all steps with
//! weights streamed from the packed buffer and source values broadcast from the map. The order of
//! the sum depends on the shape alone, so outputs are the same bits for any number of threads.

use crate::conv::finish::Finish;
use crate::conv::geometry::{Pass, Passes};
use crate::conv::kernel::{Kernel, Tile};
use crate::conv::operands::{Source, Target};
use crate::map::BLOCK;
use crate::simd::vector::Vector;
use crate::team::units::Units;

/// One direction of one convolution, ready to run.
pub(in crate::conv) struct DirectOutputs<'a> {
    pub passes: &'a Passes,
    pub tile: Tile,
    /// Register tiles of one unit of work.
    pub chunk_tiles: usize,
    pub source: Source<'a>,
    /// Weights as [`pack`](super::pack) lays them out.
    pub weights: &'a [f32],
    pub target: Target<'a>,
    /// Its units are chunks.
    pub finish: Finish<'a>,
    /// [`units`].
    pub units: Units<'a>,
}

/// Units of work of all passes, for `out_blocks` channel blocks of the target: chunks of pixels times
/// groups of channels.
pub(in crate::conv) fn units(
    passes: &Passes,
    tile: Tile,
    chunk_tiles: usize,
    batch: usize,
    out_blocks: usize,
) -> usize {
    let chunks = passes.passes.iter().map(|pass| chunks(pass, tile, chunk_tiles, batch));
    chunks.sum::<usize>() * out_blocks.div_ceil(tile.group_blocks)
}

/// Chunks of the pixels of a pass over `batch` images.
pub(in crate::conv) fn chunks(pass: &Pass, tile: Tile, chunk_tiles: usize, batch: usize) -> usize {
    (batch * pass.pixels.len()).div_ceil(tile.pixels * chunk_tiles)
}

/// Register tiles of a chunk: as many as keep the chunk's source in half a megabyte of second-level
/// cache while every group of channels passes over it, at most 64 so that sums in f32 stay short,
/// and few enough that every thread has some eight units of work.
pub(in crate::conv) fn chunk_tiles(
    source_channels: usize,
    stride: usize,
    pixels: usize,
    tile: Tile,
    groups: usize,
    threads: usize,
) -> usize {
    let tiles = pixels.div_ceil(tile.pixels).max(1);
    let tile_bytes = tile.pixels * source_channels * stride * stride * size_of::<f32>();
    let cached = (512 * 1024 / tile_bytes.max(1)).clamp(1, 64);
    let shared = (tiles * groups / (8 * threads)).max(1);
    // Chunks of one size: a short last one would leave a thread with less to do.
    let chunks = tiles.div_ceil(cached.min(shared));
    tiles.div_ceil(chunks)
}

/// Sums `PX` pixels x `NV` vectors over all steps: `weights` holds `run` rows of `NV` vectors for
/// each step, `source` the start of each pixel's window.
///
/// # Safety
/// The machine must have the instruction set of `V`; `run` values must be readable at every window
/// and step, and `steps.len() * run * NV` vectors at `weights`.
#[inline(always)]
pub(in crate::conv) unsafe fn multiply<V: Vector, const PX: usize, const NV: usize>(
    source: &[*const f32; PX],
    steps: &[usize],
    run: usize,
    weights: *const f32,
) -> [[V; NV]; PX] {
    // SAFETY: the caller vouches for every address and for the instruction set.
    unsafe {
        let mut sums = [[V::splat(0.0); NV]; PX];
        let mut weights = weights;
        for (s, &step) in steps.iter().enumerate() {
            let next = steps[(s + 1).min(steps.len() - 1)];
            let mut at = *source;
            for p in 0..PX {
                at[p] = at[p].add(step);
                V::prefetch(source[p].add(next));
            }
            if run == BLOCK {
                // A constant bound, which the compiler unrolls.
                for i in 0..BLOCK {
                    rank_one(&at, i, weights, &mut sums);
                    weights = weights.add(NV * V::LANES);
                }
            } else {
                for i in 0..run {
                    rank_one(&at, i, weights, &mut sums);
                    weights = weights.add(NV * V::LANES);
                }
            }
        }
        sums
    }
}

/// Adds the products of value `i` behind each address and one row of weights.
///
/// # Safety
/// The machine must have the instruction set of `V`, and all addresses must be readable.
#[inline(always)]
unsafe fn rank_one<V: Vector, const PX: usize, const NV: usize>(
    at: &[*const f32; PX],
    i: usize,
    weights: *const f32,
    sums: &mut [[V; NV]; PX],
) {
    // SAFETY: the caller vouches for the addresses and the instruction set.
    unsafe {
        let mut row = [V::splat(0.0); NV];
        for v in 0..NV {
            row[v] = V::load(weights.add(v * V::LANES));
        }
        for p in 0..PX {
            let value = V::splat(*at[p].add(i));
            for v in 0..NV {
                sums[p][v] = row[v].mul_add(value, sums[p][v]);
            }
        }
    }
}

impl Kernel for DirectOutputs<'_> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        debug_assert!(PX == self.tile.pixels && NV * V::LANES == self.tile.group_blocks * BLOCK);
        let groups = self.target.blocks.div_ceil(self.tile.group_blocks);
        let Passes { passes, run, .. } = self.passes;
        let units = |pass: usize| {
            groups * chunks(&passes[pass], self.tile, self.chunk_tiles, self.target.batch)
        };
        while let Some(unit) = self.units.take() {
            let (index, unit) = self.passes.pass_of(unit, units);
            let (chunk, group) = (unit / groups, unit % groups);
            let (pass, block) = (&passes[index], group * self.tile.group_blocks);
            let rows_before: usize =
                passes[..index].iter().map(|pass| pass.steps.len() * run).sum();
            let rows = pass.steps.len() * run;
            let first_weight = (rows_before * self.target.blocks + rows * block) * BLOCK;
            let weights = &self.weights[first_weight..];
            // SAFETY: as the caller vouches; units write different pixels or other channels of them.
            unsafe {
                if block + self.tile.group_blocks <= self.target.blocks {
                    self.unit::<V, PX, NV>(pass, chunk, block, weights);
                } else {
                    self.unit::<V, PX, NB>(pass, chunk, block, weights);
                }
            }
        }
    }
}

impl DirectOutputs<'_> {
    /// Computes chunk `chunk` of the pass's pixels for the channels from `block` on.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and no other thread may touch these
    /// channels of the target's pixels of this unit.
    #[inline(always)]
    unsafe fn unit<V: Vector, const PX: usize, const NV: usize>(
        &self,
        pass: &Pass,
        chunk: usize,
        block: usize,
        weights: &[f32],
    ) {
        let per_image = pass.pixels.len();
        let pixels = self.target.batch * per_image;
        let chunk_pixels = PX * self.chunk_tiles;
        let end = pixels.min((chunk + 1) * chunk_pixels);
        assert!(weights.len() >= pass.steps.len() * self.passes.run * NV * V::LANES);
        // SAFETY: `Conv` has checked that source and target are those of the passes, so windows,
        // steps and targets of the tables lie inside; the rest is vouched for by the caller.
        unsafe {
            let mut sums = [[V::splat(0.0); NV]; 2];
            let mut first = chunk * chunk_pixels;
            let (mut n, mut q) = (first / per_image, first % per_image);
            while first < end {
                let valid = PX.min(end - first);
                let mut source = [std::ptr::null(); PX];
                let mut target = [std::ptr::null_mut(); PX];
                for p in 0..PX {
                    // The last pixel stands in for those that are missing.
                    if p < valid {
                        let pixel = pass.pixels.get_unchecked(q);
                        let from = n * self.source.image + pixel.source as usize;
                        let to = n * self.target.image + pixel.target as usize;
                        source[p] = self.source.values.as_ptr().add(from);
                        target[p] = self.target.values.at(to + block * self.target.plane);
                        q += 1;
                        if q == per_image {
                            (n, q) = (n + 1, 0);
                        }
                    } else {
                        source[p] = source[p - 1];
                        target[p] = target[p - 1];
                    }
                }
                let mut tile =
                    multiply::<V, PX, NV>(&source, &pass.steps, self.passes.run, weights.as_ptr());
                let (plane, channel) = (self.target.plane, block * BLOCK);
                self.finish.store(&mut tile, &target, plane, valid, channel, &mut sums);
                first += PX;
            }
            if let Some(partial) = self.finish.sums {
                let channels = self.target.blocks * BLOCK;
                for (kind, sums) in sums.iter().enumerate() {
                    let at = (2 * chunk + kind) * channels + block * BLOCK;
                    for v in 0..NV {
                        sums[v].store(partial.at(at + v * V::LANES));
                    }
                }
            }
        }
    }
}
