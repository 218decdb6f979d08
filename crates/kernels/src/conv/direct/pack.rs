//! Weights from OIHW into the order in which the direct kernels read them, and gradients back.
//!
//! Packed: `[pass][group][step][run][group width]`; a group is [`Tile::group_blocks`] blocks of
//! output channels (the last may be narrower), and a step's run is a block of source channels, or
//! one filter row of an image.

use crate::conv::geometry::Passes;
use crate::conv::kernel::Tile;
use crate::conv::shape::ConvShape;
use crate::dtype::Dtype;
use crate::map::BLOCK;
use crate::team::share::Shared;
use crate::team::units::Member;

/// Which direction's weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conv) enum Order {
    /// Lanes are output channels, the sum runs over input channels.
    Forward,
    /// Lanes are input channels, the sum runs over output channels.
    BackwardInput,
}

/// Elements of all packed weights of `passes` with `out_blocks` blocks of lanes.
pub(in crate::conv) fn packed_len(passes: &Passes, out_blocks: usize) -> usize {
    passes.passes.iter().map(|p| p.steps.len() * passes.run * out_blocks * BLOCK).sum()
}

/// The rows of 16 output channels in a list of OIHW slices that follow one another.
pub(in crate::conv) fn rows<'a>(slices: &[&'a [f32]], row: usize, block: usize) -> &'a [f32] {
    let mut first = block * BLOCK * row;
    for slice in slices {
        if first < slice.len() {
            return &slice[first..][..BLOCK * row];
        }
        first -= slice.len();
    }
    unreachable!("the slices' lengths were checked to add up to all weights")
}

/// Where lane block `block` of row `row` (a step's element) of a pass lies, from the pass's start.
fn packed_at(pass_rows: usize, out_blocks: usize, tile: Tile, block: usize, row: usize) -> usize {
    let group = block - block % tile.group_blocks;
    let width = tile.group_blocks.min(out_blocks - group) * BLOCK;
    pass_rows * group * BLOCK + row * width + (block - group) * BLOCK
}

/// Where row `i` of the step of `tap` and block `source` comes from in the weights of 16 output
/// channels: lane 0's place, and the distance from one lane to the next.
#[inline(always)]
pub(in crate::conv) fn origin(
    shape: &ConvShape,
    order: Order,
    (block, source): (usize, usize),
    (r, q): (usize, usize),
    i: usize,
) -> (usize, usize) {
    let (k, taps) = (shape.kernel, shape.taps());
    let row = shape.in_channels * taps;
    if shape.reads_image() {
        let (q, c) = (i / shape.in_channels, i % shape.in_channels);
        (c * taps + r * k + q, row)
    } else if order == Order::Forward {
        ((source * BLOCK + i) * taps + r * k + q, row)
    } else {
        (i * row + block * BLOCK * taps + r * k + q, taps)
    }
}

/// The weights of one direction on their way into that order, ready to run.
pub(in crate::conv) struct DirectPack<'a> {
    pub shape: &'a ConvShape,
    pub passes: &'a Passes,
    pub tile: Tile,
    pub order: Order,
    /// Format that weights are rounded to.
    pub dtype: Dtype,
    /// OIHW slices that follow one another.
    pub weights: &'a [&'a [f32]],
    pub packed: Shared<'a>,
}

impl DirectPack<'_> {
    /// Packs this member's share of the weights.
    pub(in crate::conv) fn run(&self, member: Member) {
        let DirectPack { shape, passes, tile, order, dtype, weights, packed } = *self;
        let row = shape.in_channels * shape.taps();
        let out_blocks = match order {
            Order::Forward => shape.out_channels / BLOCK,
            Order::BackwardInput => shape.in_channels / BLOCK,
        };
        let sources = passes.source_blocks;
        for unit in member.part(out_blocks * sources) {
            let (block, source) = (unit / sources, unit % sources);
            let from = match order {
                Order::Forward => rows(weights, row, block),
                Order::BackwardInput => rows(weights, row, source),
            };
            let mut start = 0;
            for pass in &passes.passes {
                let pass_rows = pass.steps.len() * passes.run;
                for (t, &tap) in pass.taps.iter().enumerate() {
                    let first = (source * pass.taps.len() + t) * passes.run;
                    for i in 0..passes.run {
                        let (at, stride) = origin(shape, order, (block, source), tap, i);
                        let to = start + packed_at(pass_rows, out_blocks, tile, block, first + i);
                        // SAFETY: each row of each lane block belongs to one unit, and units to one
                        // thread.
                        let lanes = unsafe { packed.slice(to..to + BLOCK) };
                        for (lane, value) in lanes.iter_mut().enumerate() {
                            *value = from[at + lane * stride];
                        }
                        lanes.iter_mut().for_each(|value| *value = dtype.round(*value));
                    }
                }
                start += pass_rows * out_blocks * BLOCK;
            }
        }
    }
}

/// Adds up `sum_copies` gradients in the packed forward order, in their order, and writes this member's
/// share of the sum to `targets`, OIHW slices that follow one another.
pub(in crate::conv) fn unpack(
    shape: &ConvShape,
    passes: &Passes,
    tile: Tile,
    packed: &[f32],
    sum_copies: usize,
    targets: &[Shared],
    member: Member,
) {
    let out_blocks = shape.out_channels / BLOCK;
    let row = shape.in_channels * shape.taps();
    let sources = passes.source_blocks;
    let pass = &passes.passes[0];
    let pass_rows = pass.steps.len() * passes.run;
    let copy_len = pass_rows * out_blocks * BLOCK;
    for unit in member.part(out_blocks * sources) {
        let (block, source) = (unit / sources, unit % sources);
        let (target, first) = target_of(targets, block * BLOCK * row);
        let len = row / sources;
        if pass.taps.len() * passes.run < len {
            // Weights that meet nothing but padding have no step, and no gradient.
            for lane in 0..BLOCK {
                let filter = first + lane * row + source * len;
                // SAFETY: as below.
                unsafe { target.slice(filter..filter + len) }.fill(0.0);
            }
        }
        for (t, &tap) in pass.taps.iter().enumerate() {
            let first_row = (source * pass.taps.len() + t) * passes.run;
            for start in (0..passes.run).step_by(BLOCK) {
                // A square of rows and lanes is gathered by rows and written by lanes: the weights
                // of two channels often lie a multiple of 4096 bytes apart and share a cache set.
                let count = BLOCK.min(passes.run - start);
                let mut square = [[0.0; BLOCK]; BLOCK];
                let mut places = [0; BLOCK];
                for i in 0..count {
                    let row = first_row + start + i;
                    let from = packed_at(pass_rows, out_blocks, tile, block, row);
                    for copy in 0..sum_copies {
                        let values = &packed[copy * copy_len + from..][..BLOCK];
                        for (sum, value) in square[i].iter_mut().zip(values) {
                            *sum += value;
                        }
                    }
                    let (at, _) = origin(shape, Order::Forward, (block, source), tap, start + i);
                    places[i] = at - source * len;
                }
                for lane in 0..BLOCK {
                    let filter = first + lane * row + source * len;
                    // SAFETY: the weights of a channel and a source block belong to one unit, and
                    // units to one thread.
                    let filter = unsafe { target.slice(filter..filter + len) };
                    for i in 0..count {
                        filter[places[i]] = square[i][lane];
                    }
                }
            }
        }
    }
}

/// The slice that holds element `first` of all, and the element's place in it.
pub(in crate::conv) fn target_of<'a>(
    targets: &[Shared<'a>],
    mut first: usize,
) -> (Shared<'a>, usize) {
    for &target in targets {
        if first < target.len() {
            return (target, first);
        }
        first -= target.len();
    }
    unreachable!("the slices' lengths were checked to add up to all weights")
}
