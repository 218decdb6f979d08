//! Images one above the other, so that neighbours in a tile are neighbours in memory.
//!
//! A tile of AMX reads sixteen rows at equal distances, and in the padded map the pixels of one row and
//! those of the next are not. So the target pixels of a pass become *positions* on a strip: row after
//! row and image after image, with as many columns of zeros behind each row and rows of zeros behind
//! each image as filters reach over the edge; what lies left of a row is what lies behind the row
//! before. What a tap meets is then at one distance from every position, and positions that are no pixels
//! are computed with the others and dropped. Where windows are `stride` source pixels apart, every
//! `stride`-th row and column of the source makes a strip of its own, a *phase*.

use crate::conv::geometry::{Layout, Pass, Passes};
use crate::map::BLOCK;

/// Most source pixels of a chunk of positions: what lists of them have room for.
pub(super) const MOST_PIXELS: usize = 1792;

/// The strips of one direction of a convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::conv) struct StripLayout {
    /// Rows of positions from one image to the next.
    pub rows: usize,
    /// Positions from one row to the next.
    pub pitch: usize,
    /// The phases that a tap meets.
    pub phases: Vec<StripPhase>,
    /// For each pass and each tap what it meets.
    pub taps: Vec<Vec<TapOffset>>,
    /// Source rows and columns from one position to the next.
    stride: usize,
    /// Rows of the source.
    height: usize,
    /// Rows above the first of a chunk and below its last, and pixels left of the first position, that
    /// taps meet.
    above: usize,
    below: usize,
    left: usize,
    right: usize,
}

/// Every so many rows and columns of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conv) struct StripPhase {
    /// The first row.
    row: usize,
    /// The first column.
    column: isize,
    /// Columns.
    columns: usize,
}

/// What a tap meets at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conv) struct TapOffset {
    /// The phase.
    pub phase: usize,
    /// Lines from that with the position's number to the source pixel's.
    pub distance: usize,
}

/// How far taps reach along rows or columns, for all passes together.
struct Span {
    /// Positions of the pixels, of source and target.
    pixels: usize,
    before: usize,
    after: usize,
}

impl Span {
    /// `counts` are the target pixels of each pass, `inputs` those of the source, and `taps` what each
    /// tap of all passes meets.
    fn new(
        counts: impl Iterator<Item = usize>,
        inputs: usize,
        stride: usize,
        taps: impl Iterator<Item = isize> + Clone,
    ) -> Span {
        let steps = taps.clone().map(|tap| tap.div_euclid(stride as isize));
        let sources = taps.map(|tap| {
            inputs.saturating_sub(tap.rem_euclid(stride as isize) as usize).div_ceil(stride)
        });
        Span {
            pixels: counts.chain(sources).max().unwrap_or(0),
            before: (-steps.clone().min().unwrap_or(0)).max(0) as usize,
            after: steps.max().unwrap_or(0).max(0) as usize,
        }
    }

    /// Positions to the next row or image: whatever is met over an edge is zero.
    fn pitch(&self) -> usize {
        self.pixels + self.before.max(self.after)
    }
}

/// Place of `item` in `list`, at whose end it is put if it is not there.
pub(super) fn index_in<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|other| *other == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

impl StripLayout {
    /// The strips of `passes` over maps of `size` rows and columns; `None` where a chunk of one row would
    /// not fit into lists.
    pub(super) fn new(passes: &Passes, size: (usize, usize)) -> Option<StripLayout> {
        let Passes { stride, passes, .. } = passes;
        let reach = || passes.iter().flat_map(|pass| &pass.reach);
        let counts = passes.iter().map(Pass::rows);
        let rows = Span::new(counts, size.0, *stride, reach().map(|reach| reach.0));
        let counts = passes.iter().map(|pass| pass.columns);
        let columns = Span::new(counts, size.1, *stride, reach().map(|reach| reach.1));
        let pitch = columns.pitch();
        let mut phases = Vec::new();
        let mut met = |&(down, right): &(isize, isize)| {
            let columns_of = |column: usize| size.1.saturating_sub(column).div_ceil(*stride);
            let stride = *stride as isize;
            let (row, column) = (down.rem_euclid(stride) as usize, right.rem_euclid(stride));
            let phase = StripPhase { row, column, columns: columns_of(column as usize) };
            let phase = index_in(&mut phases, phase);
            let down = (down.div_euclid(stride) + rows.before as isize) as usize;
            let right = (right.div_euclid(stride) + columns.before as isize) as usize;
            TapOffset { phase, distance: down * pitch + right }
        };
        let taps = passes.iter().map(|pass| pass.reach.iter().map(&mut met).collect()).collect();
        let stack = StripLayout {
            rows: rows.pitch(),
            pitch,
            taps,
            phases,
            stride: *stride,
            height: size.0,
            above: rows.before,
            below: rows.after,
            left: columns.before,
            right: columns.after,
        };
        (stack.lines(1) <= MOST_PIXELS).then_some(stack)
    }

    /// The positions of an image's windows, whose rows are read where they lie: only the rows of the
    /// source, `height` for each image, are split in phases. Rows of positions are a multiple of `side`.
    pub(super) fn of_image(passes: &Passes, height: usize, side: usize) -> Option<StripLayout> {
        let (pass, stride) = (&passes.passes[0], passes.stride);
        let reach = || pass.reach.iter().map(|reach| reach.0);
        let rows = Span::new([pass.rows()].into_iter(), height, stride, reach());
        let pitch = pass.columns.next_multiple_of(side);
        let mut phases = Vec::new();
        let met = |down: isize| {
            let row = down.rem_euclid(stride as isize) as usize;
            let (column, columns) = (pass.reach[0].1, pass.columns);
            let phase = index_in(&mut phases, StripPhase { row, column, columns });
            let down = down.div_euclid(stride as isize) + rows.before as isize;
            TapOffset { phase, distance: down as usize * pitch }
        };
        let taps = vec![reach().map(met).collect()];
        let stack = StripLayout {
            rows: rows.pitch(),
            pitch,
            taps,
            phases,
            stride,
            height,
            above: rows.before,
            below: rows.after,
            left: 0,
            right: 0,
        };
        (stack.lines(1) <= MOST_PIXELS).then_some(stack)
    }

    /// The positions of an image's windows, which are read where they lie. Rows of positions are a multiple
    /// of `side`.
    pub(super) fn of_windows(pass: &Pass, side: usize) -> Option<StripLayout> {
        let (height, pitch) = (pass.rows(), pass.columns.next_multiple_of(side));
        let (phases, taps) = (Vec::new(), Vec::new());
        let (stride, above, below, left, right) = (1, 0, 0, 0, 0);
        let rows = height;
        let stack =
            StripLayout { rows, pitch, phases, taps, stride, height, above, below, left, right };
        (stack.lines(1) <= MOST_PIXELS).then_some(stack)
    }

    /// Source pixels of each phase that a chunk of so many rows of positions meets.
    pub(super) fn lines(&self, rows: usize) -> usize {
        (rows + self.above + self.below) * self.pitch + self.left + self.right
    }

    /// Most rows of positions whose source pixels are at most `lines`; at least one.
    pub(super) fn rows_of_lines(&self, lines: usize) -> usize {
        let rows = lines.saturating_sub(self.left + self.right) / self.pitch;
        rows.saturating_sub(self.above + self.below).max(1)
    }

    /// Lists the [`StripLayout::lines`] of a phase from row `first` on: the offset of each source pixel,
    /// counted over `batch` images that are `image` elements apart, or that of a pixel of zeros.
    pub(super) fn list(
        &self,
        phase: usize,
        layout: &Layout,
        (batch, image): (usize, usize),
        first: usize,
        list: &mut [usize],
    ) {
        let StripPhase { row: row_phase, column, columns } = self.phases[phase];
        // The halo is zero on the side that it has; taps reach over no edge of an image without one.
        let before = layout.before > 0 || layout.pixel != BLOCK;
        list.fill(if before { 0 } else { layout.at(self.height as isize, 0) });
        let step = self.stride * layout.pixel;
        for (i, list) in list[self.left..].chunks_mut(self.pitch).enumerate() {
            let Some(row) = (first + i).checked_sub(self.above) else { continue };
            let (n, row) = (row / self.rows, row % self.rows * self.stride + row_phase);
            if n < batch && row < self.height {
                let start = n * image + layout.at(row as isize, column);
                for (j, offset) in list.iter_mut().take(columns).enumerate() {
                    *offset = start + j * step;
                }
            }
        }
    }

    /// Calls `visit(position, image, pixel)` for every target pixel of `pass` in `rows` rows of
    /// positions from row `first` on, positions counted from there.
    #[inline(always)]
    pub(super) fn each(
        &self,
        pass: &Pass,
        batch: usize,
        first: usize,
        rows: usize,
        mut visit: impl FnMut(usize, usize, usize),
    ) {
        let height = pass.rows();
        for i in 0..rows {
            let (n, row) = ((first + i) / self.rows, (first + i) % self.rows);
            if n < batch && row < height {
                for column in 0..pass.columns {
                    visit(i * self.pitch + column, n, row * pass.columns + column);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::shape::ConvShape;

    /// Every tap of every target pixel meets the pixel that the tables of the pass name, or zero.
    #[test]
    fn positions_meet_what_windows_meet() {
        for (size, [kernel, stride, pad], rows) in [
            ((5, 4), [3, 1, 1], 2),
            ((5, 4), [3, 1, 1], 100),
            ((7, 6), [3, 2, 1], 3),
            ((6, 7), [3, 2, 0], 4),
            ((8, 8), [2, 3, 1], 2),
            ((5, 5), [1, 1, 0], 3),
            ((6, 5), [1, 2, 0], 3),
            ((9, 6), [5, 1, 2], 3),
            ((9, 9), [5, 1, 4], 7),
            ((9, 9), [5, 1, 0], 7),
            ((1, 1), [3, 1, 1], 3),
            ((2, 2), [3, 2, 1], 3),
        ] {
            let batch = 3;
            let shape = ConvShape {
                batch,
                in_channels: 16,
                out_channels: 16,
                in_height: size.0,
                in_width: size.1,
                kernel,
                stride,
                pad,
            };
            let forward = (Passes::forward(&shape), size);
            let backward =
                (Passes::backward_input(&shape), (shape.out_height(), shape.out_width()));
            let image = ConvShape { in_channels: 3, ..shape };
            let image = (Passes::forward(&image), size);
            for (passes, size) in [forward, backward, image] {
                let layout = &passes.layout;
                let image = 10 * layout.plane;
                let stack = match layout.pixel {
                    BLOCK => StripLayout::new(&passes, size),
                    _ => StripLayout::of_image(&passes, size.0, 2),
                };
                let stack = stack.expect("small");
                let inside = |offset: usize| {
                    let pixel = offset % image / layout.pixel;
                    let (row, column) = (pixel / layout.pitch, pixel % layout.pitch);
                    let before = layout.before;
                    if layout.pixel != BLOCK {
                        // The first pixel of a filter's row stands for all of it.
                        return (before..before + size.0).contains(&row);
                    }
                    (before..before + size.0).contains(&row)
                        && (before..before + size.1).contains(&column)
                };
                let mut visited = 0;
                for first in (0..batch * stack.rows).step_by(rows) {
                    let mut lists = Vec::new();
                    for phase in 0..stack.phases.len() {
                        let mut list = vec![0; stack.lines(rows)];
                        stack.list(phase, layout, (batch, image), first, &mut list);
                        lists.push(list);
                    }
                    for (index, pass) in passes.passes.iter().enumerate() {
                        stack.each(pass, batch, first, rows, |position, n, pixel| {
                            visited += 1;
                            let window = n * image + pass.pixels[pixel].source as usize;
                            for (tap, reach) in stack.taps[index].iter().enumerate() {
                                let expected = window + pass.steps[tap];
                                let found = lists[reach.phase][position + reach.distance];
                                match inside(expected) {
                                    true => assert_eq!(found, expected, "{shape:?} {pixel} {tap}"),
                                    false => assert!(!inside(found), "{shape:?} {pixel} {tap}"),
                                }
                            }
                        });
                    }
                }
                let pixels: usize = passes.passes.iter().map(|pass| pass.pixels.len()).sum();
                assert_eq!(visited, batch * pixels, "{shape:?}");
            }
        }
    }
}
