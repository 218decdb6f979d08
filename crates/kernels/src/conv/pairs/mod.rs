//! Convolutions of bf16 numbers by instructions that multiply pairs of them.
//!
//! AMX multiplies a tile of 16 rows x 16 words with one of 16 words x 16 columns, a word being two
//! bf16 numbers that are neighbours in the sum; the dot products of AVX-512 do a part of the same. So
//! all directions are brought to products of two panels, [`product`], which are made of f32 maps as
//! the work goes ([`words`]):
//!
//! - outputs and the gradient of the input ([`outputs`]): rows are pixels, columns are channels of the
//!   target, and the sum runs over the steps of [`geometry`](super::geometry) and their channels;
//! - the gradient of the weights ([`gradients`]): rows are output channels, columns are the channels of
//!   a step, and the sum runs over pixels.
//!
//! Maps stay f32 in memory, so that all other kernels are those of f32. They hold bf16 numbers
//! wherever a convolution reads them ([`Dtype::Bf16`](crate::dtype::Dtype::Bf16)); of a number that
//! is none, what lies below is cut off.

pub(super) mod gradients;
pub(super) mod outputs;
pub(super) mod pack;
pub(super) mod product;
pub(super) mod words;

use super::BLOCK;
use super::geometry::{Pass, Passes};

/// Rows, columns and words of a tile: those of AMX (64 bytes a row, 16 rows).
const SIDE: usize = 16;

/// Words of a tile, and f32 sums of one.
const WORDS: usize = SIDE * SIDE;

/// Pixels or channels of a panel: two tiles, so that each that is loaded is multiplied twice.
const PANEL: usize = 2 * SIDE;

/// What a panel may take of the second-level cache (1 MB on Zen 4, 2 MB on the first with AMX),
/// which its partner passes through too.
const CACHED_BYTES: usize = 512 * 1024;

/// Contiguous values of a step, at most a block of them: half of the words of a tile's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Step that it belongs to.
    step: usize,
    /// First value within the step.
    first: usize,
    /// Values.
    count: usize,
}

/// The pieces that a step of `run` values falls into.
fn pieces_per_step(run: usize) -> usize {
    run.div_ceil(BLOCK)
}

/// Piece `index` of a pass whose steps have `run` values.
fn piece(run: usize, index: usize) -> Piece {
    let per_step = pieces_per_step(run);
    let first = index % per_step * BLOCK;
    Piece { step: index / per_step, first, count: BLOCK.min(run - first) }
}

/// Pieces of a pass.
fn pieces(passes: &Passes, pass: &Pass) -> usize {
    pass.steps.len() * pieces_per_step(passes.run)
}

/// Where a piece lies, seen from the start of a window, and how many values it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    offset: usize,
    count: usize,
}

/// The pieces of a pass, two for each tile of the sum; the last may be empty.
pub(super) fn sources(passes: &Passes, pass: &Pass) -> Vec<[Source; 2]> {
    let source = |index: usize| {
        if index >= pieces(passes, pass) {
            return Source { offset: 0, count: 0 };
        }
        let piece = piece(passes.run, index);
        Source { offset: pass.steps[piece.step] + piece.first, count: piece.count }
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

    #[test]
    fn steps_fall_into_pieces_of_a_block() {
        let piece_of = |step, first, count| Piece { step, first, count };
        for (run, index, expected) in [
            (16, 0, piece_of(0, 0, 16)),
            (16, 5, piece_of(5, 0, 16)),
            (21, 2, piece_of(1, 0, 16)), // seven pixels of three colours
            (21, 3, piece_of(1, 16, 5)),
            (3, 1, piece_of(1, 0, 3)),
        ] {
            assert_eq!(piece(run, index), expected, "piece {index} of steps of {run}");
        }
    }
}
