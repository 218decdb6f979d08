//! The gradient of the weights.
//!
//! For a chunk of pixels a unit of work makes the panels of dy once, and what is read of x for a pair of
//! blocks at a time. The sums live in the workspace between chunks, and go on over all pixels of a share: more
//! of f32's rounding than short sums have, and little beside that of bf16.

use std::ops::Range;

use super::multiply::{Columns, Multiplier, Ready};
use super::pack::{panels, sums_len};
use super::pieces::{PieceSource, blocks_of_tap, depth, sources};
use super::strips::{MOST_PIXELS, StripLayout, index_in};
use super::words;
use super::{CACHED_BYTES, PANEL, SIDE, WORDS};
use crate::conv::geometry::Passes;
use crate::conv::kernel::Kernel;
use crate::conv::operands::Source;
use crate::conv::shape::ConvShape;
use crate::element::Element;
use crate::map::BLOCK;
use crate::simd::vector::Vector;
use crate::team::share::Shared;
use crate::team::units::{Units, part};

/// Most tiles of a chunk along the sum.
const MOST: usize = 32;

/// Tiles along the sum over a chunk of pixels: what keeps the panels of dy in the cache.
fn chunk_depth(out_blocks: usize) -> usize {
    (CACHED_BYTES / (panels(out_blocks) * 2 * WORDS * size_of::<u32>())).clamp(4, MOST)
}

/// Units of work of each thread, about.
const UNITS: usize = 4;

/// How the work is divided.
#[derive(Debug)]
pub(in crate::conv) struct GradientDivision {
    pub reading: GradientReading,
    /// Sums over a share of the pixels each, which are added up in a fixed order.
    pub sum_copies: usize,
    /// Shares of the tiles of x, of which the pixels of each sum are multiplied by themselves.
    pub weight_splits: usize,
}

impl GradientDivision {
    /// The division for the forward `passes` of `shape`: as many sums as are small beside
    /// the maps, and weight_splits of the weights, each of which makes its own panels of dy, where these are too few.
    pub(in crate::conv) fn new(
        shape: &ConvShape,
        passes: &Passes,
        threads: usize,
    ) -> GradientDivision {
        let wanted = if threads == 1 { 1 } else { UNITS * threads };
        let sum_copies = (shape.map_elements() / (4 * shape.weights())).clamp(1, wanted);
        let size = (shape.in_height, shape.in_width);
        let reading = GradientReading::new(passes, size, shape.out_channels / BLOCK);
        let parts = match &reading {
            GradientReading::Windows(sources) => sources.len(),
            GradientReading::Strips(_) => blocks_of_tap(passes).div_ceil(2),
        };
        let weight_splits = (wanted / sum_copies).min(2 * threads).min(parts).max(1);
        GradientDivision { reading, sum_copies, weight_splits }
    }

    /// Units of work.
    pub(in crate::conv) fn units(&self) -> usize {
        self.sum_copies * self.weight_splits
    }
}

/// How the values of x are read.
#[derive(Debug)]
pub(in crate::conv) enum GradientReading {
    /// Piece by piece, in the windows of the pixels.
    Windows(Vec<[PieceSource; 2]>),
    /// From strips that are made for each chunk: each pixel in two of them at most, and not once for
    /// every tap.
    Strips(GradientStrips),
}

/// GradientStrips of pairs of neighbouring pixels, so that a tile of the pixels that a tap meets is sixteen lines:
/// every second pair of a strip starts with an even pixel, and those with odd ones are a strip of their own.
#[derive(Debug)]
pub(in crate::conv) struct GradientStrips {
    stack: StripLayout,
    /// Rows of a chunk.
    chunk_rows: usize,
    /// Phase and first pixel of each strip.
    starts: Vec<(usize, usize)>,
    /// For each tap its strip and the words in front of what the first positions meet.
    taps: Vec<(usize, usize)>,
    /// Tiles of 32 pixels of a strip, for one block of channels.
    tiles: usize,
}

impl GradientStrips {
    /// The strips of the forward `passes` over maps or images of `size` rows and columns.
    fn new(passes: &Passes, size: (usize, usize), out_blocks: usize) -> Option<GradientStrips> {
        let stack = match passes.layout.pixel {
            BLOCK => StripLayout::new(passes, size)?,
            _ => StripLayout::of_image(passes, size.0, 2)?,
        };
        let most = chunk_depth(out_blocks) * PANEL / stack.pitch;
        if most == 0 {
            return None;
        }
        let chunk_rows = most.min(stack.rows_of_lines(MOST_PIXELS));
        let mut starts = Vec::new();
        let taps = stack.taps[0].iter().map(|reach| {
            let start = (reach.phase, reach.distance % 2);
            (index_in(&mut starts, start), reach.distance / 2 * SIDE)
        });
        let taps: Vec<_> = taps.collect();
        let before = taps.iter().map(|&(_, words)| words.div_ceil(WORDS)).max().unwrap_or(0);
        let tiles = (chunk_rows * stack.pitch).div_ceil(PANEL) + before;
        Some(GradientStrips { stack, chunk_rows, starts, taps, tiles })
    }

    /// Words of the strips of one block of channels.
    fn block_len(&self) -> usize {
        self.starts.len() * self.tiles * WORDS
    }
}

impl GradientReading {
    /// How the gradient of the weights reads x by the forward `passes` over maps of `size` rows and columns.
    pub(in crate::conv) fn new(
        passes: &Passes,
        size: (usize, usize),
        out_blocks: usize,
    ) -> GradientReading {
        let strips =
            if passes.aligned { GradientStrips::new(passes, size, out_blocks) } else { None };
        match strips {
            Some(strips) => GradientReading::Strips(strips),
            None => GradientReading::Windows(sources(passes, &passes.passes[0])),
        }
    }

    /// Elements of workspace of each thread: the panels of dy, and what is read of x at a time.
    pub(in crate::conv) fn scratch_len(&self, out_blocks: usize) -> usize {
        let columns = match self {
            GradientReading::Windows(_) => chunk_depth(out_blocks) * 2 * WORDS,
            GradientReading::Strips(strips) => 2 * strips.block_len(),
        };
        rows_len(out_blocks) + columns
    }
}

/// Elements of the panels of dy.
fn rows_len(out_blocks: usize) -> usize {
    panels(out_blocks) * chunk_depth(out_blocks) * 2 * WORDS
}

/// The gradient of the weights of one convolution, ready to run.
pub(in crate::conv) struct Bf16Gradients<'a, E> {
    pub passes: &'a Passes,
    pub division: &'a GradientDivision,
    pub multiplier: Multiplier,
    /// x.
    pub source: Source<'a, E>,
    /// dy.
    pub gradient: Source<'a, E>,
    /// [`GradientDivision::sum_copies`] times [`sums_len`].
    pub sums: Shared<'a>,
    /// [`GradientReading::scratch_len`] for each thread.
    pub workspace: Shared<'a>,
    pub thread: usize,
    /// [`GradientDivision::units`].
    pub units: Units<'a>,
}

impl<E: Element> Kernel for Bf16Gradients<'_, E> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let GradientDivision { reading, weight_splits, .. } = self.division;
        // SAFETY: the caller vouches for the instruction set; each thread has a workspace of its own, and
        // each unit the copy of the sums and the tiles that are its own, which `Conv` has checked to be long enough.
        unsafe {
            let ready = Ready::new(self.multiplier);
            while let Some(unit) = self.units.take() {
                let (copy, split) = (unit / weight_splits, unit % weight_splits);
                match reading {
                    GradientReading::Windows(sources) => {
                        let tiles = part(sources.len(), *weight_splits, split);
                        self.windows::<V>(&ready, sources, copy, tiles);
                    }
                    GradientReading::Strips(strips) => {
                        let pairs =
                            part(blocks_of_tap(self.passes).div_ceil(2), *weight_splits, split);
                        self.strips::<V>(&ready, strips, copy, pairs);
                    }
                }
            }
        }
    }
}

impl<E: Element> Bf16Gradients<'_, E> {
    /// This thread's panels of dy, and its workspace for x.
    fn workspace(&self) -> [*mut u32; 2] {
        let start = self.thread * self.division.reading.scratch_len(self.gradient.blocks);
        [start, start + rows_len(self.gradient.blocks)].map(|at| self.workspace.at(at).cast())
    }

    /// Copy `copy` of the sums with panel `panel` of dy and tile `tile` of x.
    fn sums(&self, copy: usize, panel: usize, tile: usize) -> *mut f32 {
        let depth = depth(self.passes, &self.passes.passes[0]);
        let start = copy * sums_len(self.passes, self.gradient.blocks);
        self.sums.at(start + (panel * depth + tile) * 4 * WORDS)
    }

    /// Zeroes a copy of the sums that no pixels are for, with some tiles of x.
    ///
    /// # Safety
    /// No other thread may have this copy and these tiles.
    unsafe fn zero(&self, copy: usize, tiles: Range<usize>) {
        for panel in 0..panels(self.gradient.blocks) {
            for tile in tiles.clone() {
                // SAFETY: as the caller vouches.
                unsafe { self.sums(copy, panel, tile).write_bytes(0, 4 * WORDS) };
            }
        }
    }

    /// Sums over the pixels of a copy, with some tiles of x.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and no other thread may have this copy and these
    /// tiles.
    #[inline(always)]
    unsafe fn windows<V: Vector>(
        &self,
        ready: &Ready,
        sources: &[[PieceSource; 2]],
        copy: usize,
        tiles: Range<usize>,
    ) {
        let pass = &self.passes.passes[0];
        let pixels = part(self.gradient.batch * pass.pixels.len(), self.division.sum_copies, copy);
        if pixels.is_empty() {
            // SAFETY: as the caller vouches.
            unsafe { self.zero(copy, tiles.clone()) };
        }
        let chunk = chunk_depth(self.gradient.blocks);
        let [rows, columns] = self.workspace();
        let mut list = [(0, 0); MOST * PANEL];
        let mut targets = [0; MOST * PANEL];
        for first in pixels.clone().step_by(chunk * PANEL) {
            let list = &mut list[..(chunk * PANEL).min(pixels.end - first)];
            let targets = &mut targets[..list.len()];
            pass.list(first, (self.source.image, self.gradient.image), list);
            targets.iter_mut().zip(&*list).for_each(|(target, pixel)| *target = pixel.1);
            // SAFETY: as the caller vouches.
            unsafe {
                self.rows::<V>(targets, rows);
                for tile in tiles.clone() {
                    for (half, piece) in sources[tile].into_iter().enumerate() {
                        let window = |i: usize| {
                            let pixel: Option<&(usize, usize)> = list.get(i);
                            pixel.map(|pixel| self.source.values.as_ptr().wrapping_add(pixel.0))
                        };
                        for two in 0..list.len().div_ceil(PANEL) {
                            let to = columns.wrapping_add((2 * two + half) * WORDS);
                            pairs::<E, V>(piece, |i| window(two * PANEL + i), to);
                        }
                    }
                    let fresh = first == pixels.start;
                    self.multiply(ready, list.len(), Columns::panel(columns), (copy, tile), fresh);
                }
            }
        }
    }

    /// As [`Bf16Gradients::windows`] with strips of some pairs of blocks of x.
    ///
    /// # Safety
    /// As [`Bf16Gradients::windows`].
    #[inline(always)]
    unsafe fn strips<V: Vector>(
        &self,
        ready: &Ready,
        strips: &GradientStrips,
        copy: usize,
        pairs: Range<usize>,
    ) {
        let GradientStrips { stack, chunk_rows, .. } = strips;
        let pass = &self.passes.passes[0];
        let taps = pass.taps.len();
        let rows = part(self.gradient.batch * stack.rows, self.division.sum_copies, copy);
        if rows.is_empty() {
            // SAFETY: as the caller vouches.
            unsafe { self.zero(copy, pairs.start * taps..pairs.end * taps) };
        }
        let [dy, x] = self.workspace();
        let mut targets = [0; MOST * PANEL];
        let mut list = [0; MOST_PIXELS];
        let list = &mut list[..stack.lines(*chunk_rows)];
        for first in rows.clone().step_by(*chunk_rows) {
            let count = (*chunk_rows).min(rows.end - first);
            // Positions that are no pixels have the zeros of the halo.
            let targets = &mut targets[..count * stack.pitch];
            targets.fill(0);
            stack.each(pass, self.gradient.batch, first, count, |position, n, pixel| {
                targets[position] = n * self.gradient.image + pass.pixels[pixel].target as usize;
            });
            // SAFETY: as the caller vouches.
            unsafe {
                self.rows::<V>(targets, dy);
                for pair in pairs.clone() {
                    self.pair::<V>(strips, first, pair, list, x);
                    for (tap, &(strip, at)) in strips.taps.iter().enumerate() {
                        let block = x.wrapping_add(strip * strips.tiles * WORDS + at);
                        let tiles = [block, block.wrapping_add(strips.block_len())];
                        let tiles = tiles.map(<*mut u32>::cast_const);
                        let (columns, tile) = (Columns { tiles, stride: WORDS }, pair * taps + tap);
                        let fresh = first == rows.start;
                        self.multiply(ready, targets.len(), columns, (copy, tile), fresh);
                    }
                }
            }
        }
    }

    /// Multiplies the panels of dy with two tiles' columns of x, over so many pixels.
    ///
    /// # Safety
    /// As [`Bf16Gradients::windows`]; the panels and the columns must have been made.
    #[inline(always)]
    unsafe fn multiply(
        &self,
        ready: &Ready,
        pixels: usize,
        columns: Columns,
        (copy, tile): (usize, usize),
        fresh: bool,
    ) {
        let [rows, _] = self.workspace();
        for panel in 0..panels(self.gradient.blocks) {
            let rows = rows.wrapping_add(panel * chunk_depth(self.gradient.blocks) * 2 * WORDS);
            let sums = self.sums(copy, panel, tile);
            // SAFETY: as the caller vouches.
            unsafe { ready.multiply(rows, columns, pixels.div_ceil(PANEL), sums, fresh) };
        }
    }

    /// Makes the strips of a pair of blocks for a chunk whose first row is `first`.
    ///
    /// # Safety
    /// As [`Bf16Gradients::windows`], and `to` must hold the strips of two blocks.
    #[inline(always)]
    unsafe fn pair<V: Vector>(
        &self,
        strips: &GradientStrips,
        first: usize,
        pair: usize,
        list: &mut [usize],
        to: *mut u32,
    ) {
        let layout = &self.passes.layout;
        let block_len = if layout.pixel == BLOCK { layout.plane } else { BLOCK };
        let whole = PieceSource { count: BLOCK, total: BLOCK, ..PieceSource::default() };
        let mut listed = None;
        for (strip, &(phase, start)) in strips.starts.iter().enumerate() {
            if listed != Some(phase) {
                strips.stack.list(
                    phase,
                    layout,
                    (self.gradient.batch, self.source.image),
                    first,
                    list,
                );
                listed = Some(phase);
            }
            let list = &list[start..];
            for half in 0..2.min(blocks_of_tap(self.passes) - 2 * pair) {
                let from = self.source.values.as_ptr().wrapping_add((2 * pair + half) * block_len);
                let to = to.wrapping_add(half * strips.block_len() + strip * strips.tiles * WORDS);
                for tile in 0..strips.tiles {
                    let pixel = |i| list.get(tile * PANEL + i).map(|at| from.wrapping_add(*at));
                    // SAFETY: as the caller vouches.
                    unsafe { pairs::<E, V>(whole, pixel, to.wrapping_add(tile * WORDS)) };
                }
            }
        }
    }

    /// Makes the panels of dy for the listed pixels, `[panel][tile][block][channel][pixel pair]`. Blocks
    /// and pixels that do not exist are zero.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, the list's offsets must lie in the view, and
    /// the panels must be this thread's.
    #[inline(always)]
    unsafe fn rows<V: Vector>(&self, list: &[usize], to: *mut u32) {
        for block in 0..2 * panels(self.gradient.blocks) {
            let exists = block < self.gradient.blocks;
            let plane = if exists { block * self.gradient.plane } else { 0 };
            let from = self.gradient.values.as_ptr().wrapping_add(plane);
            let count = if exists { BLOCK } else { 0 };
            let piece = PieceSource { count, total: count, ..PieceSource::default() };
            let chunk = chunk_depth(self.gradient.blocks);
            let to = to.wrapping_add((block / 2 * chunk * 2 + block % 2) * WORDS);
            for (tile, list) in list.chunks(PANEL).enumerate() {
                let to = to.wrapping_add(tile * 2 * WORDS);
                let pixel = |i: usize| list.get(i).map(|at| from.wrapping_add(*at));
                // SAFETY: as the caller vouches.
                unsafe {
                    pairs::<E, V>(piece, pixel, to);
                    words::transpose::<V>(to);
                }
            }
        }
    }
}

/// Makes a tile of words of the values of a piece at two pixels each, whose windows `window` gives;
/// pixels that do not exist have zeros.
///
/// # Safety
/// The machine must have the instruction set of `V`, the piece must be readable in every window, and a
/// tile writable at `to`.
#[inline(always)]
unsafe fn pairs<E: Element, V: Vector>(
    piece: PieceSource,
    window: impl Fn(usize) -> Option<*const E>,
    to: *mut u32,
) {
    let values = |pixel: usize| match window(pixel) {
        Some(window) => piece.of(window),
        None => PieceSource::default().of(std::ptr::null()),
    };
    for pair in 0..SIDE {
        // SAFETY: as the caller vouches.
        unsafe { words::pair::<V, _>(values(2 * pair), values(2 * pair + 1), to.add(pair * SIDE)) };
    }
}
