//! Where a convolution reads and writes, as tables.
//!
//! A direction is one or more passes. A [`Pass`] is a set of target pixels that all sum over the
//! same steps; a step is one filter tap of one channel block, at a fixed distance from where the
//! pixel's window starts. The forward direction is one pass; the gradient of the input of a
//! convolution with stride `s` is `s * s` passes, because the pixels of each row and column parity
//! see other taps. Kernels know nothing else of strides, padding, rows or images, so a register
//! tile may span rows and images, and maps of 2x2 run as full as maps of 56x56. Taps that meet
//! nothing but padding, as all but the centre do in a map of one pixel, are left out.

use super::shape::ConvShape;
use crate::map::{BLOCK, Map};

/// How the source pixels lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Elements of a pixel: a channel block, or all channels of an image.
    pub pixel: usize,
    /// Pixels from one row to the next.
    pub pitch: usize,
    /// Elements of one channel block of one image.
    pub plane: usize,
    /// Zero rows above and zero columns left of the map.
    pub before: usize,
    /// Channel blocks of an image, where the convolution keeps its own copy of the source: maps
    /// whose halo is too narrow for the filter, and images. `None` reads the caller's map.
    pub copied_blocks: Option<usize>,
}

impl Layout {
    /// The layout for a filter that reaches `before` pixels over the upper left edge of `map` and
    /// `after` pixels over the lower right: the map itself if its halo of one pixel is enough.
    fn of_map(map: &Map, before: usize, after: usize) -> Layout {
        if before <= 1 && after <= 1 {
            let (pitch, plane) = (map.pitch(), map.plane());
            return Layout { pixel: BLOCK, pitch, plane, before: 1, copied_blocks: None };
        }
        let pitch = map.width + before + after;
        let plane = (map.height + before + after) * pitch * BLOCK;
        Layout { pixel: BLOCK, pitch, plane, before, copied_blocks: Some(map.blocks()) }
    }

    /// The layout of a packed image: `[height + 2 pad][width + 2 pad][channels]`.
    fn of_image(shape: &ConvShape) -> Layout {
        let pitch = shape.in_width + 2 * shape.pad;
        let plane = (shape.in_height + 2 * shape.pad) * pitch * shape.in_channels;
        Layout { pixel: shape.in_channels, pitch, plane, before: shape.pad, copied_blocks: Some(1) }
    }

    /// Offset of a pixel within its plane; row 0 and column 0 are the first of the map.
    pub(super) fn at(&self, row: isize, column: isize) -> usize {
        let before = self.before as isize;
        let pixel = (row + before) * self.pitch as isize + column + before;
        debug_assert!(pixel >= 0, "a window starts before its plane");
        pixel as usize * self.pixel
    }
}

/// Offsets of one target pixel within planes, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pixel {
    /// Where its window starts in the source.
    pub source: u32,
    /// Where it is written.
    pub target: u32,
}

/// Target pixels that sum over the same steps.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// The target pixels of one image, row by row.
    pub pixels: Vec<Pixel>,
    /// Target pixels of a row.
    pub columns: usize,
    /// Filter taps (row, column), in the order of the steps.
    pub taps: Vec<(usize, usize)>,
    /// What each tap meets: source rows and columns from the source pixel (`stride * i`, `stride * j`)
    /// for target pixel (`i`, `j`) of the pass, with [`Passes::stride`].
    pub reach: Vec<(isize, isize)>,
    /// Distance of each step from the window's start, in elements: for each block, each tap.
    pub steps: Vec<usize>,
}

impl Pass {
    /// Rows of target pixels.
    pub(super) fn rows(&self) -> usize {
        self.pixels.len() / self.columns.max(1)
    }

    /// Lists where the windows of the pixels from `first` on start in the source and where they lie in
    /// the target, counted over images that are `source_image` and `target_image` elements apart.
    #[inline(always)]
    pub(super) fn list(
        &self,
        first: usize,
        (source_image, target_image): (usize, usize),
        list: &mut [(usize, usize)],
    ) {
        let per_image = self.pixels.len();
        let (mut n, mut q) = (first / per_image, first % per_image);
        for entry in list {
            let Pixel { source, target } = self.pixels[q];
            *entry = (n * source_image + source as usize, n * target_image + target as usize);
            q += 1;
            if q == per_image {
                (n, q) = (n + 1, 0);
            }
        }
    }
}

/// All passes of one direction.
#[derive(Clone, Debug)]
pub(super) struct Passes {
    /// The source.
    pub layout: Layout,
    /// Source rows and columns from one target pixel's window to the next.
    pub stride: usize,
    /// Contiguous source elements of a step: a channel block, or a row of an image's filter.
    pub run: usize,
    /// Channel blocks that the steps of a pass go through.
    pub source_blocks: usize,
    /// Whether a tile of [`bf16`](super::bf16) has values of one tap or one filter row only, and not
    /// those of any steps that follow one another.
    pub aligned: bool,
    /// The passes.
    pub passes: Vec<Pass>,
}

impl Passes {
    /// Which pass unit `unit` of the work belongs to, where pass `i` has `units(i)` and those of the passes
    /// follow one another, and its number within the pass.
    #[inline(always)]
    pub(super) fn pass_of(&self, unit: usize, units: impl Fn(usize) -> usize) -> (usize, usize) {
        let (mut pass, mut rest) = (0, unit);
        while rest >= units(pass) {
            rest -= units(pass);
            pass += 1;
        }
        (pass, rest)
    }

    /// The forward direction: source x, target y.
    pub(super) fn forward(shape: &ConvShape) -> Passes {
        let (rows, columns) = (shape.out_height(), shape.out_width());
        let k = shape.kernel;
        if shape.reads_image() {
            // The taps of a filter row are neighbours in memory, so a whole row is one step.
            let layout = Layout::of_image(shape);
            let taps: Vec<_> = (0..k).map(|r| (r, 0)).collect();
            let pass = Pass {
                pixels: windows(shape, &layout, rows, columns),
                columns,
                reach: reach(shape, &taps),
                taps,
                steps: (0..k).map(|r| r * layout.pitch * layout.pixel).collect(),
            };
            let (run, stride) = (k * shape.in_channels, shape.stride);
            let passes = vec![pass];
            return Passes { layout, stride, run, source_blocks: 1, aligned: false, passes };
        }
        let map = shape.in_map();
        let beyond = |outputs: usize, inputs: usize| {
            ((outputs - 1) * shape.stride + k).saturating_sub(shape.pad + inputs)
        };
        let after = beyond(rows, map.height).max(beyond(columns, map.width));
        let layout = Layout::of_map(&map, shape.pad, after);
        let inside = |tap: usize, outputs: usize, inputs: usize| {
            (0..outputs)
                .any(|i| (shape.pad..shape.pad + inputs).contains(&(i * shape.stride + tap)))
        };
        let taps: Vec<_> = (0..k)
            .flat_map(|r| (0..k).map(move |q| (r, q)))
            .filter(|&(r, q)| inside(r, rows, map.height) && inside(q, columns, map.width))
            .collect();
        let steps = steps(&layout, map.blocks(), &taps);
        let pixels = windows(shape, &layout, rows, columns);
        let pass = Pass { pixels, columns, reach: reach(shape, &taps), taps, steps };
        let (stride, source_blocks) = (shape.stride, map.blocks());
        let passes = vec![pass];
        Passes { layout, stride, run: BLOCK, source_blocks, aligned: false, passes }
    }

    /// The gradient of the input: source dy, target dx.
    pub(super) fn backward_input(shape: &ConvShape) -> Passes {
        let (source, target) = (shape.out_map(), shape.in_map());
        let phases = |inputs: usize, outputs: usize| -> Vec<ParityPhase> {
            (0..shape.stride)
                .map(|parity| ParityPhase::new(shape, parity, inputs, outputs))
                .collect()
        };
        let row_phases = phases(target.height, source.height);
        let column_phases = phases(target.width, source.width);
        let all = || row_phases.iter().chain(&column_phases);
        let before = all().map(|phase| -phase.first).max().unwrap_or(0).max(0) as usize;
        let after = all().map(|phase| phase.reach).max().unwrap_or(0);
        let layout = Layout::of_map(&source, before, after);
        let mut passes = Vec::new();
        for rows in &row_phases {
            for columns in &column_phases {
                let mut taps = Vec::new();
                let mut reach = Vec::new();
                let mut offsets = Vec::new();
                for &(r, down) in &rows.taps {
                    for &(q, right) in &columns.taps {
                        taps.push((r, q));
                        reach.push((down, right));
                        offsets
                            .push(((down - rows.first) as usize, (right - columns.first) as usize));
                    }
                }
                let mut pixels = Vec::new();
                for row in 0..rows.count {
                    for column in 0..columns.count {
                        let start =
                            layout.at(row as isize + rows.first, column as isize + columns.first);
                        let (row, column) = (
                            row * shape.stride + rows.parity,
                            column * shape.stride + columns.parity,
                        );
                        pixels.push(Pixel {
                            source: start as u32,
                            target: target.pixel(row, column) as u32,
                        });
                    }
                }
                let steps = steps(&layout, source.blocks(), &offsets);
                passes.push(Pass { pixels, columns: columns.count, taps, reach, steps });
            }
        }
        let source_blocks = source.blocks();
        Passes { layout, stride: 1, run: BLOCK, source_blocks, aligned: false, passes }
    }
}

/// The input rows (or columns) of one parity, and what they see of the output's gradient.
struct ParityPhase {
    parity: usize,
    /// Rows of this parity.
    count: usize,
    /// Filter positions with the distance from the phase's `i`-th row to the gradient's row.
    taps: Vec<(usize, isize)>,
    /// The least distance.
    first: isize,
    /// Rows beyond the gradient's last that the greatest distance reaches.
    reach: usize,
}

impl ParityPhase {
    fn new(shape: &ConvShape, parity: usize, inputs: usize, outputs: usize) -> ParityPhase {
        let stride = shape.stride as isize;
        let count = (inputs + shape.stride - 1 - parity) / shape.stride;
        let inside = |i: isize| (0..outputs as isize).contains(&i);
        let taps: Vec<(usize, isize)> = (0..shape.kernel)
            .filter_map(|tap| {
                let shifted = (parity + shape.pad) as isize - tap as isize;
                let distance = shifted.div_euclid(stride);
                let whole = shifted.rem_euclid(stride) == 0;
                let seen = (0..count as isize).any(|i| inside(i + distance));
                (whole && seen).then_some((tap, distance))
            })
            .collect();
        let first = taps.iter().map(|t| t.1).min().unwrap_or(0);
        let last = taps.iter().map(|t| t.1).max().unwrap_or(0);
        let reach = (count as isize + last - outputs as isize).max(0) as usize;
        ParityPhase { parity, count, taps, first, reach }
    }
}

/// [`Pass::reach`] of the forward direction.
fn reach(shape: &ConvShape, taps: &[(usize, usize)]) -> Vec<(isize, isize)> {
    let from = |tap: usize| tap as isize - shape.pad as isize;
    taps.iter().map(|&(r, q)| (from(r), from(q))).collect()
}

/// The windows of all outputs of a forward convolution.
fn windows(shape: &ConvShape, layout: &Layout, rows: usize, columns: usize) -> Vec<Pixel> {
    let target = shape.out_map();
    let corner = |i: usize| (i * shape.stride) as isize - shape.pad as isize;
    let mut pixels = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            pixels.push(Pixel {
                source: layout.at(corner(row), corner(column)) as u32,
                target: target.pixel(row, column) as u32,
            });
        }
    }
    pixels
}

/// Distances of all (block, tap) steps from a window's start.
fn steps(layout: &Layout, blocks: usize, taps: &[(usize, usize)]) -> Vec<usize> {
    let tap = |&(row, column): &(usize, usize)| (row * layout.pitch + column) * layout.pixel;
    (0..blocks).flat_map(|block| taps.iter().map(move |t| block * layout.plane + tap(t))).collect()
}
