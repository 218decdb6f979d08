//! What a product sums over, in pieces of at most a block of values.

use super::words::Values;
use crate::conv::geometry::{Pass, Passes};
use crate::map::BLOCK;

/// Pieces of a pass, of at most a block of values each: half of the words of a tile's row.
///
/// Steps of a block or longer follow one another without gaps, so that the rows of an image's filter,
/// which have three values a pixel, waste none; a shorter step is a piece of its own. Where passes are
/// [aligned](Passes::aligned), both pieces of a tile are of one tap, of two neighbouring channel blocks,
/// or neighbours in a row of an image's filter.
pub(super) fn pieces(passes: &Passes, pass: &Pass) -> usize {
    match (passes.aligned, passes.run) {
        (true, _) => 2 * pass.taps.len() * blocks_of_tap(passes).div_ceil(2),
        (false, BLOCK..) => (pass.steps.len() * passes.run).div_ceil(BLOCK),
        (false, _) => pass.steps.len(),
    }
}

/// Blocks of values that a tap meets: channel blocks, or those of a row of an image's filter.
pub(super) fn blocks_of_tap(passes: &Passes) -> usize {
    passes.source_blocks * passes.run.div_ceil(BLOCK)
}

/// The pieces with values of channel block `source`, or all of an image's.
pub(super) fn pieces_of(
    passes: &Passes,
    pass: &Pass,
    source: usize,
) -> impl Iterator<Item = usize> {
    let (taps, aligned) = (pass.taps.len(), passes.aligned && passes.layout.pixel == BLOCK);
    let count = if aligned { taps } else { pieces(passes, pass) / passes.source_blocks };
    (0..count).map(move |i| match aligned {
        true => 2 * (source / 2 * taps + i) + source % 2,
        false => source * count + i,
    })
}

/// Step of value `i` of piece `index`, and its place within the step; `None` where there is no such
/// value.
pub(super) fn value(
    passes: &Passes,
    pass: &Pass,
    index: usize,
    i: usize,
) -> Option<(usize, usize)> {
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
pub(in crate::conv) struct PieceSource {
    /// Offset of the values of its first step.
    pub offset: usize,
    /// Values of that step.
    pub count: usize,
    /// Offset of the values of the next step.
    pub next_offset: usize,
    /// Values of both.
    pub total: usize,
}

impl PieceSource {
    /// The values seen from `window`.
    pub(super) fn of<E>(&self, window: *const E) -> Values<E> {
        Values {
            first: window.wrapping_add(self.offset),
            count: self.count,
            next: window.wrapping_add(self.next_offset),
            total: self.total,
        }
    }
}

/// The pieces of a pass, two for each tile of the sum; the last may be empty.
pub(super) fn sources(passes: &Passes, pass: &Pass) -> Vec<[PieceSource; 2]> {
    let source = |index: usize| {
        let mut source = PieceSource::default();
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
pub(super) fn depth(passes: &Passes, pass: &Pass) -> usize {
    pieces(passes, pass).div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::shape::ConvShape;

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
            |offset, count, next_offset, total| PieceSource { offset, count, next_offset, total };
        // A step for each block of channels.
        let blocks = passes_of(&[0, 500, 1000], 16);
        let found = sources(&blocks, &blocks.passes[0]);
        assert_eq!(
            found,
            [
                [source(0, 16, 0, 16), source(500, 16, 0, 16)],
                [source(1000, 16, 0, 16), PieceSource::default()],
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
