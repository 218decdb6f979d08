//! Convolutions of bf16 numbers by instructions that multiply pairs of them.
//!
//! AMX multiplies a tile of 16 rows x 16 words with one of 16 words x 16 columns, a word being two
//! bf16 numbers that are neighbours in the sum; the dot products of AVX-512 do a part of the same. So
//! all directions are brought to products of two row tiles and two column tiles ([`product`]):
//!
//! - outputs and the gradient of the input ([`outputs`], divided by [`division`]): rows are pixels, columns
//!   are channels of the target, and the sum runs over the steps of [`geometry`](super::geometry) and their
//!   channels;
//! - the gradient of the weights ([`gradients`]): rows are output channels, columns are the channels of
//!   a step, and the sum runs over pixels.
//!
//! Tiles of AMX lie in strips ([`stack`](super::stack)) in which every pixel of a chunk is copied once; taps
//! read them at different distances. Dot products read the pixels of maps one by one where they lie. What
//! is neither, as images for dot products, goes through panels into which every window is copied ([`words`]).
//!
//! Maps are bf16 in memory, or f32 whose values are bf16 numbers; of a number that is none, what lies
//! below is cut off.

pub(super) mod division;
pub(super) mod gradients;
pub(super) mod outputs;
pub(super) mod pack;
pub(super) mod product;
pub(super) mod words;

use super::BLOCK;
use super::geometry::{Pass, Passes};
use words::Values;

/// Rows, columns and words of a tile: those of AMX (64 bytes a row, 16 rows).
const SIDE: usize = 16;

/// Words of a tile, and f32 sums of one.
const WORDS: usize = SIDE * SIDE;

/// Pixels or channels of a panel: two tiles, so that each that is loaded is multiplied twice.
const PANEL: usize = 2 * SIDE;

/// What the panels or strips of a chunk may take of the second-level cache (1 MB on Zen 4, 2 MB on the first
/// processors with AMX), which their partner passes through too.
const CACHED_BYTES: usize = 512 * 1024;

/// Pieces of a pass, of at most a block of values each: half of the words of a tile's row.
///
/// Steps of a block or longer follow one another without gaps, so that the rows of an image's filter,
/// which have three values a pixel, waste none; a shorter step is a piece of its own. Where passes are
/// [aligned](Passes::aligned), both pieces of a tile are of one tap, of two neighbouring channel blocks,
/// or neighbours in a row of an image's filter.
fn pieces(passes: &Passes, pass: &Pass) -> usize {
    match (passes.aligned, passes.run) {
        (true, _) => 2 * pass.taps.len() * blocks_of_tap(passes).div_ceil(2),
        (false, BLOCK..) => (pass.steps.len() * passes.run).div_ceil(BLOCK),
        (false, _) => pass.steps.len(),
    }
}

/// Blocks of values that a tap meets: channel blocks, or those of a row of an image's filter.
fn blocks_of_tap(passes: &Passes) -> usize {
    passes.source_blocks * passes.run.div_ceil(BLOCK)
}

/// The pieces with values of channel block `source`, or all of an image's.
fn pieces_of(passes: &Passes, pass: &Pass, source: usize) -> impl Iterator<Item = usize> {
    let (taps, aligned) = (pass.taps.len(), passes.aligned && passes.layout.pixel == BLOCK);
    let count = if aligned { taps } else { pieces(passes, pass) / passes.source_blocks };
    (0..count).map(move |i| match aligned {
        true => 2 * (source / 2 * taps + i) + source % 2,
        false => source * count + i,
    })
}

/// Step of value `i` of piece `index`, and its place within the step; `None` where there is no such
/// value.
fn value(passes: &Passes, pass: &Pass, index: usize, i: usize) -> Option<(usize, usize)> {
    let run = passes.run;
    let (step, at) = match (passes.aligned, run) {
        (true, _) => {
            let (pair, tap) = (index / 2 / pass.taps.len(), index / 2 % pass.taps.len());
            let block = 2 * pair + index % 2;
            match passes.layout.pixel {
                BLOCK => (block * pass.taps.len() + tap, i),
                _ => (tap, block * BLOCK + i),
            }
        }
        (false, BLOCK..) => ((index * BLOCK + i) / run, (index * BLOCK + i) % run),
        (false, _) => (index, i),
    };
    (i < BLOCK && at < run && step < pass.steps.len()).then_some((step, at))
}

/// Where the values of a piece lie, seen from the start of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// Offset of the values of its first step.
    offset: usize,
    /// Values of that step.
    count: usize,
    /// Offset of the values of the next step.
    next_offset: usize,
    /// Values of both.
    total: usize,
}

impl Source {
    /// The values seen from `window`.
    fn of<E>(&self, window: *const E) -> Values<E> {
        Values {
            first: window.wrapping_add(self.offset),
            count: self.count,
            next: window.wrapping_add(self.next_offset),
            total: self.total,
        }
    }
}

/// The pieces of a pass, two for each tile of the sum; the last may be empty.
pub(super) fn sources(passes: &Passes, pass: &Pass) -> Vec<[Source; 2]> {
    let source = |index: usize| {
        let mut source = Source::default();
        let Some((first, at)) = value(passes, pass, index, 0) else { return source };
        source.offset = pass.steps[first] + at;
        for i in 0..BLOCK {
            match value(passes, pass, index, i) {
                Some((step, _)) if step == first => source.count += 1,
                Some((step, 0)) => source.next_offset = pass.steps[step],
                Some(_) => {}
                None => break,
            }
            source.total += 1;
        }
        source
    };
    (0..depth(passes, pass)).map(|tile| [source(2 * tile), source(2 * tile + 1)]).collect()
}

/// Tiles along the sum over a pass's pieces.
fn depth(passes: &Passes, pass: &Pass) -> usize {
    pieces(passes, pass).div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::ConvShape;

    fn passes_of(steps: &[usize], run: usize) -> Passes {
        let taps = vec![(0, 0); steps.len()];
        let (pixels, reach) = (Vec::new(), Vec::new());
        let pass = Pass { pixels, columns: 0, taps, reach, steps: steps.to_vec() };
        let (channels, size) = (BLOCK, 1);
        let shape = ConvShape {
            batch: 1,
            in_channels: channels,
            out_channels: channels,
            in_height: size,
            in_width: size,
            kernel: 1,
            stride: 1,
            pad: 0,
        };
        Passes { run, source_blocks: 1, passes: vec![pass], ..Passes::forward(&shape) }
    }

    #[test]
    fn pieces_fill_blocks_from_steps() {
        let source =
            |offset, count, next_offset, total| Source { offset, count, next_offset, total };
        // A step for each block of channels.
        let blocks = passes_of(&[0, 500, 1000], 16);
        let found = sources(&blocks, &blocks.passes[0]);
        assert_eq!(
            found,
            [
                [source(0, 16, 0, 16), source(500, 16, 0, 16)],
                [source(1000, 16, 0, 16), Source::default()],
            ]
        );
        // Rows of seven pixels of three colours.
        let rows = passes_of(&[0, 100, 200], 21);
        let found = sources(&rows, &rows.passes[0]);
        assert_eq!(
            found,
            [
                [source(0, 16, 0, 16), source(16, 5, 100, 16)],
                [source(111, 10, 200, 16), source(206, 15, 0, 15)],
            ]
        );
        // Steps that are shorter than a block.
        let short = passes_of(&[0, 100], 3);
        assert_eq!(sources(&short, &short.passes[0]), [[source(0, 3, 0, 3), source(100, 3, 0, 3)]]);
    }
}
