//! The direct algorithm of the gradient of the weights.
//!
//! A register tile holds `NI` input channels x one group of output channels of one tap, and sums
//! over a block of pixels; its sums live in the workspace between blocks. Threads share the tiles
//! where there are many, and otherwise the pixels, each with sums of its own that are added up in a
//! fixed order.

use crate::conv::geometry::Passes;
use crate::conv::kernel::{Kernel, Tile};
use crate::conv::operands::Source;
use crate::conv::shape::ConvShape;
use crate::map::BLOCK;
use crate::simd::vector::Vector;
use crate::team::share::Shared;
use crate::team::units::{Member, part};

/// Pixels of a block: dy of one channel group (128 bytes a pixel) stays in the first-level cache,
/// with the rows of x under it, while all taps and input channels pass over it. On Zen 4 (32 KB) 128
/// and 256 pixels are 5 to 13 percent slower, except where a map has a hundred pixels in all.
pub(in crate::conv) const PIXEL_BLOCK: usize = 64;

/// Sums for a team of `threads`: one per thread, over pixels of its own, where the sums are small beside the
/// maps, so that each thread reads its own pixels only; else one, and the threads split the tiles. No thread
/// is without pixels, for sums of nothing would not be written.
pub(in crate::conv) fn sum_copies(shape: &ConvShape, threads: usize) -> usize {
    let pixels = shape.batch * shape.out_height() * shape.out_width();
    let own = pixels >= threads && 4 * threads * shape.weights() <= shape.map_elements();
    if own { threads } else { 1 }
}

/// The gradient of the weights of one convolution, ready to run.
pub(in crate::conv) struct DirectGradients<'a> {
    pub passes: &'a Passes,
    pub tile: Tile,
    /// x.
    pub source: Source<'a>,
    /// dy.
    pub gradient: Source<'a>,
    /// Sums, `[sum_copies]` times the packed forward order.
    pub sums: Shared<'a>,
    /// [`sum_copies`]; `threads / sum_copies` threads split the tiles of each.
    pub sum_copies: usize,
    pub member: Member,
}

impl Kernel for DirectGradients<'_> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let pass = &self.passes.passes[0];
        let per_image = pass.pixels.len();
        let crew = self.member.of / self.sum_copies;
        let (thread, sum_copies) = (self.member.index, self.sum_copies);
        if thread >= crew * sum_copies {
            return;
        }
        let (copy, member) = (thread / crew, thread % crew);
        let pixels = part(self.gradient.batch * per_image, sum_copies, copy);
        let copy_len = pass.steps.len() * self.passes.run * self.gradient.blocks * BLOCK;
        let groups = self.gradient.blocks.div_ceil(self.tile.group_blocks);
        let units = part(groups * pass.steps.len(), crew, member);
        let mut list = [(0, 0); PIXEL_BLOCK];
        let mut first = pixels.start;
        while first < pixels.end {
            let count = PIXEL_BLOCK.min(pixels.end - first);
            pass.list(first, (self.source.image, self.gradient.image), &mut list[..count]);
            let fresh = first == pixels.start;
            for unit in units.clone() {
                let (group, step) = (unit / pass.steps.len(), unit % pass.steps.len());
                let block = group * self.tile.group_blocks;
                let start = copy * copy_len + pass.steps.len() * self.passes.run * block * BLOCK;
                // SAFETY: as the caller vouches; `start` and the units of different threads name
                // different sums.
                unsafe {
                    let list = &list[..count];
                    if block + self.tile.group_blocks <= self.gradient.blocks {
                        self.step::<V, NI, NV>(list, block, pass.steps[step], step, start, fresh);
                    } else {
                        self.step::<V, NI, NB>(list, block, pass.steps[step], step, start, fresh);
                    }
                }
            }
            first += count;
        }
    }
}

impl DirectGradients<'_> {
    /// Sums one step of one channel group over the listed pixels.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`; the list's offsets must lie in the views,
    /// and no other thread may touch the sums of this step and group.
    #[inline(always)]
    unsafe fn step<V: Vector, const NI: usize, const NV: usize>(
        &self,
        list: &[(usize, usize)],
        block: usize,
        offset: usize,
        step: usize,
        start: usize,
        fresh: bool,
    ) {
        let run = self.passes.run;
        let width = NV * V::LANES;
        // SAFETY: `Conv` has checked that both maps are those of the passes; the rest is
        // vouched for by the caller.
        unsafe {
            let source = self.source.values.as_ptr().add(offset);
            let gradient = self.gradient.values.as_ptr().add(block * self.gradient.plane);
            let mut done = 0;
            while done < run {
                if run >= NI {
                    // The last tile of a run that NI does not divide starts early; rows that are
                    // done already are summed again and dropped.
                    let i = done.min(run - NI);
                    let sums = self.sums.at(start + (step * run + i) * width);
                    let (source, skip) = (source.add(i), done - i);
                    outer::<V, NI, NV>(
                        list,
                        source,
                        gradient,
                        self.gradient.plane,
                        sums,
                        skip,
                        fresh,
                    );
                    done = i + NI;
                } else {
                    let sums = self.sums.at(start + (step * run + done) * width);
                    let source = source.add(done);
                    outer::<V, 1, NV>(list, source, gradient, self.gradient.plane, sums, 0, fresh);
                    done += 1;
                }
            }
        }
    }
}

/// Adds to `sums`, `NI` rows of `NV` vectors, the products of `NI` values of `source` and `NV`
/// vectors of `gradient` at every listed pair of offsets. Rows before `skip` are left alone; with
/// `fresh` the sums start from zero.
///
/// # Safety
/// The machine must have the instruction set of `V`, and all addresses must be valid.
#[inline(always)]
pub(in crate::conv) unsafe fn outer<V: Vector, const NI: usize, const NV: usize>(
    list: &[(usize, usize)],
    source: *const f32,
    gradient: *const f32,
    gradient_plane: usize,
    sums: *mut f32,
    skip: usize,
    fresh: bool,
) {
    // SAFETY: the caller vouches for every address and for the instruction set.
    unsafe {
        let lane = |v: usize| (v * V::LANES / BLOCK) * gradient_plane + v * V::LANES % BLOCK;
        let mut tile = [[V::splat(0.0); NV]; NI];
        for &(x, dy) in list {
            let (x, dy) = (source.add(x), gradient.add(dy));
            let mut vectors = [V::splat(0.0); NV];
            for v in 0..NV {
                vectors[v] = V::load(dy.add(lane(v)));
            }
            for i in 0..NI {
                let value = V::splat(*x.add(i));
                for v in 0..NV {
                    tile[i][v] = vectors[v].mul_add(value, tile[i][v]);
                }
            }
        }
        for i in skip..NI {
            for v in 0..NV {
                let at = sums.add((i * NV + v) * V::LANES);
                let total = if fresh { tile[i][v] } else { tile[i][v].add(V::load(at)) };
                total.store(at);
            }
        }
    }
}
