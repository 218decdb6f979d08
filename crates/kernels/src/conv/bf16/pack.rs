//! Weights from OIHW into panels of words, and gradients back.
//!
//! Packed: `[pass][panel of 32 lanes][tile of the sum][tile of 16 lanes][word][lane]`. Words and lanes
//! that do not exist are zero.

use super::pieces::{depth, pieces_of, value};
use super::words::{self, Values};
use super::{PANEL, SIDE, WORDS};
use crate::conv::direct::pack::{Order, origin, rows, target_of};
use crate::conv::geometry::{Pass, Passes};
use crate::conv::kernel::Kernel;
use crate::conv::shape::ConvShape;
use crate::map::BLOCK;
use crate::simd::vector::Vector;
use crate::team::share::Shared;
use crate::team::units::{Member, part};

/// Parts of the sum that are packed by themselves, so that many threads find work.
const SLICES: usize = 8;

/// Panels of `out_blocks` blocks of lanes.
pub(super) fn panels(out_blocks: usize) -> usize {
    (out_blocks * BLOCK).div_ceil(PANEL)
}

/// Elements of all packed weights of `passes` with `out_blocks` blocks of lanes; a word takes the
/// place of an f32.
pub(in crate::conv) fn packed_len(passes: &Passes, out_blocks: usize) -> usize {
    passes.passes.iter().map(|pass| panels(out_blocks) * depth(passes, pass) * 2 * WORDS).sum()
}

/// The weights of one direction on their way into panels, ready to run.
pub(in crate::conv) struct Bf16Pack<'a> {
    pub shape: &'a ConvShape,
    pub passes: &'a Passes,
    pub order: Order,
    /// OIHW slices that follow one another.
    pub weights: &'a [&'a [f32]],
    pub packed: Shared<'a>,
    pub member: Member,
}

/// The weights of a piece: forward `[lane][value]`, for the gradient of the input `[value][lane]`, as
/// they lie in OIHW. Those that do not exist are zero.
type Square = [[f32; BLOCK]; BLOCK];

impl Kernel for Bf16Pack<'_> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let out_blocks = match self.order {
            Order::Forward => self.shape.out_channels / BLOCK,
            Order::BackwardInput => self.shape.in_channels / BLOCK,
        };
        // Blocks of lanes that do not exist are written too.
        for unit in self.member.part(2 * panels(out_blocks) * SLICES) {
            let (block, slice) = (unit / SLICES, unit % SLICES);
            let mut start = 0;
            for pass in &self.passes.passes {
                let depth = depth(self.passes, pass);
                let tiles = start + block / 2 * depth * 2 * WORDS + block % 2 * WORDS;
                for index in part(depth, SLICES, slice) {
                    let at = tiles + index * 2 * WORDS;
                    // SAFETY: each tile of a block of lanes belongs to one unit, and units to one
                    // thread.
                    let tile = unsafe { self.packed.slice(at..at + WORDS) };
                    if block >= out_blocks {
                        tile.fill(0.0);
                        continue;
                    }
                    let mut pieces =
                        [2 * index, 2 * index + 1].map(|index| self.square(pass, block, index));
                    // SAFETY: the caller vouches for the instruction set, and a tile has 256 words.
                    unsafe { self.tile::<V>(&mut pieces, tile.as_mut_ptr().cast()) };
                }
                start += panels(out_blocks) * depth * 2 * WORDS;
            }
        }
    }
}

impl Bf16Pack<'_> {
    /// The weights of piece `index` for a block of lanes.
    #[inline(always)]
    fn square(&self, pass: &Pass, block: usize, index: usize) -> Square {
        let Bf16Pack { shape, passes, order, .. } = *self;
        let row = shape.in_channels * shape.taps();
        let mut square = [[0.0; BLOCK]; BLOCK];
        for i in 0..BLOCK {
            let Some((step, at)) = value(passes, pass, index, i) else { break };
            let (source, tap) = (step / pass.taps.len(), step % pass.taps.len());
            let rows_of = if order == Order::Forward { block } else { source };
            let from = rows(self.weights, row, rows_of);
            let (first, stride) = origin(shape, order, (block, source), pass.taps[tap], at);
            match order {
                Order::Forward if shape.kernel == 1 && !shape.reads_image() => {
                    // The values of a lane are neighbours.
                    for (lane, values) in square.iter_mut().enumerate() {
                        *values = from[first + lane * stride..].as_chunks().0[0];
                    }
                    break;
                }
                Order::Forward => {
                    for (lane, values) in square.iter_mut().enumerate() {
                        values[i] = from[first + lane * stride];
                    }
                }
                Order::BackwardInput if stride == 1 => square[i] = from[first..].as_chunks().0[0],
                Order::BackwardInput => {
                    for (lane, value) in square[i].iter_mut().enumerate() {
                        *value = from[first + lane * stride];
                    }
                }
            }
        }
        square
    }

    /// Rounds two pieces and makes a tile of them.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and a tile must be writable at `to`.
    #[inline(always)]
    unsafe fn tile<V: Vector>(&self, pieces: &mut [Square; 2], to: *mut u32) {
        let values = |piece: &[f32; BLOCK]| Values::block(piece.as_ptr());
        // SAFETY: vectors of a piece lie inside it; the rest is vouched for by the caller.
        unsafe {
            for vector in pieces.as_flattened_mut().as_flattened_mut().chunks_exact_mut(V::LANES) {
                V::load(vector.as_ptr()).round_to_bf16().store(vector.as_mut_ptr());
            }
            let [first, second] = pieces;
            match self.order {
                Order::Forward => {
                    for lane in 0..SIDE {
                        let to = to.add(lane * SIDE);
                        words::join::<V, _>(values(&first[lane]), values(&second[lane]), to);
                    }
                    words::transpose::<V>(to);
                }
                Order::BackwardInput => {
                    for (word, [even, odd]) in
                        pieces.as_flattened().as_chunks().0.iter().enumerate()
                    {
                        words::pair::<V, _>(values(even), values(odd), to.add(word * SIDE));
                    }
                }
            }
        }
    }
}

/// Elements of the sums of the gradient of the weights: `[panel of output channels][two pieces]` and
/// in each `[block of output channels][piece][output channel][value]`.
pub(in crate::conv) fn sums_len(passes: &Passes, out_blocks: usize) -> usize {
    panels(out_blocks) * depth(passes, &passes.passes[0]) * 4 * WORDS
}

/// Adds up `sum_copies` sums, in their order, and writes this member's share of the gradient to `targets`,
/// OIHW slices that follow one another.
pub(in crate::conv) fn unpack(
    shape: &ConvShape,
    passes: &Passes,
    sums: &[f32],
    sum_copies: usize,
    targets: &[Shared],
    member: Member,
) {
    let out_blocks = shape.out_channels / BLOCK;
    let row = shape.in_channels * shape.taps();
    let pass = &passes.passes[0];
    let depth = depth(passes, pass);
    let copy_len = sums_len(passes, out_blocks);
    for unit in member.part(out_blocks * passes.source_blocks) {
        let (block, source) = (unit / passes.source_blocks, unit % passes.source_blocks);
        let (target, first) = target_of(targets, block * BLOCK * row);
        let len = row / passes.source_blocks;
        if pass.taps.len() * passes.run < len {
            // Weights that meet nothing but padding have no step, and no gradient.
            for lane in 0..SIDE {
                let filter = first + lane * row + source * len;
                // SAFETY: as below.
                unsafe { target.slice(filter..filter + len) }.fill(0.0);
            }
        }
        for index in pieces_of(passes, pass, source) {
            // Where the values of the piece belong in a filter.
            let mut places = [0; BLOCK];
            let mut count = 0;
            while let Some((step, at)) = value(passes, pass, index, count) {
                let tap = pass.taps[step % pass.taps.len()];
                let (to, _) = origin(shape, Order::Forward, (block, source), tap, at);
                places[count] = to - source * len;
                count += 1;
            }
            let tile = (block / 2 * depth + index / 2) * 4 + block % 2 * 2 + index % 2;
            for lane in 0..SIDE {
                let mut values = [0.0; BLOCK];
                for copy in 0..sum_copies {
                    let from = &sums[copy * copy_len + tile * WORDS + lane * SIDE..];
                    for (value, sum) in values.iter_mut().zip(from) {
                        *value += sum;
                    }
                }
                let filter = first + lane * row + source * len;
                // SAFETY: the weights of a channel and a source block belong to one unit, and units to
                // one thread.
                let filter = unsafe { target.slice(filter..filter + len) };
                for (place, value) in places[..count].iter().zip(values) {
                    filter[*place] = value;
                }
            }
        }
    }
}
