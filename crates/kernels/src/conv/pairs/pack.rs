//! Weights from OIHW into panels of words, and gradients back.
//!
//! Packed: `[pass][panel of 32 lanes][tile of the sum][tile of 16 lanes][word][lane]`. Words and lanes
//! that do not exist are zero.

use super::super::geometry::Passes;
use super::super::pack::{Order, origin, rows, target_of};
use super::super::share::Shared;
use super::super::{BLOCK, ConvShape};
use super::words::word;
use super::{PANEL, SIDE, WORDS, depth, pieces, value};
use crate::element::{Bf16, Element};
use crate::split::part;

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

/// Packs this thread's share of the weights.
pub(in crate::conv) fn pack(
    shape: &ConvShape,
    passes: &Passes,
    order: Order,
    weights: &[&[f32]],
    packed: Shared,
    thread: usize,
    threads: usize,
) {
    let row = shape.in_channels * shape.taps();
    let out_blocks = match order {
        Order::Forward => shape.out_channels / BLOCK,
        Order::BackwardInput => shape.in_channels / BLOCK,
    };
    // Blocks of lanes that do not exist are written too.
    for unit in part(2 * panels(out_blocks) * SLICES, threads, thread) {
        let (block, slice) = (unit / SLICES, unit % SLICES);
        let mut start = 0;
        for pass in &passes.passes {
            let depth = depth(passes, pass);
            let tiles = start + block / 2 * depth * 2 * WORDS + block % 2 * WORDS;
            // A piece has half of the words of a tile.
            for index in part(2 * depth, SLICES, slice) {
                let at = tiles + index / 2 * 2 * WORDS + index % 2 * WORDS / 2;
                // SAFETY: each piece of a block of lanes belongs to one unit, and units to one
                // thread.
                let words = unsafe { packed.slice(at..at + WORDS / 2) };
                words.fill(0.0);
                if block >= out_blocks || index >= pieces(passes, pass) {
                    continue;
                }
                for (pair, words) in words.chunks_exact_mut(SIDE).enumerate() {
                    // The row of weights of every lane, and where they lie in it.
                    let place = |i: usize| {
                        let (step, at) = value(passes, pass, index, 2 * pair + i)?;
                        let (source, tap) = (step / pass.taps.len(), step % pass.taps.len());
                        let from = match order {
                            Order::Forward => rows(weights, row, block),
                            Order::BackwardInput => rows(weights, row, source),
                        };
                        let (first, stride) =
                            origin(shape, order, (block, source), pass.taps[tap], at);
                        Some((&from[first..], stride))
                    };
                    let Some((first, stride)) = place(0) else { break };
                    let second = place(1);
                    for (lane, to) in words.iter_mut().enumerate() {
                        let at = lane * stride;
                        let second = second.map_or(Bf16::default(), |(from, _)| Bf16::of(from[at]));
                        *to = f32::from_bits(word(Bf16::of(first[at]), second));
                    }
                }
            }
            start += panels(out_blocks) * depth * 2 * WORDS;
        }
    }
}

/// Elements of the sums of the gradient of the weights: `[panel of output channels][two pieces]` and
/// in each `[block of output channels][piece][output channel][value]`.
pub(in crate::conv) fn sums_len(passes: &Passes, out_blocks: usize) -> usize {
    panels(out_blocks) * depth(passes, &passes.passes[0]) * 4 * WORDS
}

/// Adds up `parts` sums, in their order, and writes this thread's share of the gradient to `targets`,
/// OIHW slices that follow one another.
pub(in crate::conv) fn unpack(
    shape: &ConvShape,
    passes: &Passes,
    sums: &[f32],
    parts: usize,
    targets: &[Shared],
    thread: usize,
    threads: usize,
) {
    let out_blocks = shape.out_channels / BLOCK;
    let row = shape.in_channels * shape.taps();
    let pass = &passes.passes[0];
    let depth = depth(passes, pass);
    let part_len = sums_len(passes, out_blocks);
    // Those of a block of source channels, or all of an image's.
    let per_source = pieces(passes, pass) / passes.source_blocks;
    for unit in part(out_blocks * passes.source_blocks, threads, thread) {
        let (block, source) = (unit / passes.source_blocks, unit % passes.source_blocks);
        let (target, first) = target_of(targets, block * BLOCK * row);
        let len = row / passes.source_blocks;
        for lane in 0..SIDE {
            let filter = first + lane * row + source * len;
            // SAFETY: the weights of a channel and a source block belong to one unit, and units to
            // one thread.
            let filter = unsafe { target.slice(filter..filter + len) };
            if pass.taps.len() * passes.run < len {
                // Weights that meet nothing but padding have no step, and no gradient.
                filter.fill(0.0);
            }
            for index in source * per_source..(source + 1) * per_source {
                let tile = (block / 2 * depth + index / 2) * 4 + block % 2 * 2 + index % 2;
                for i in 0..BLOCK {
                    let Some((step, at)) = value(passes, pass, index, i) else { break };
                    let tap = pass.taps[step % pass.taps.len()];
                    let (to, _) = origin(shape, Order::Forward, (block, source), tap, at);
                    let from = tile * WORDS + lane * SIDE + i;
                    let parts = (0..parts).map(|part| sums[part * part_len + from]);
                    filter[to - source * len] = parts.sum();
                }
            }
        }
    }
}
