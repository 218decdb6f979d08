//! The forward direction and the gradient of the input.

use super::division::{Division, LINE, MOST, Reading, Strips};
use super::multiply::{Columns, Multiplier, Ready};
use super::pack::panels;
use super::pieces::PieceSource;
use super::strips::MOST_PIXELS;
use super::words::{self, Values};
use super::{PANEL, SIDE, WORDS};
use crate::conv::finish::Finish;
use crate::conv::geometry::{Pass, Passes};
use crate::conv::kernel::Kernel;
use crate::conv::operands::{Source, Target};
use crate::dtype::Bf16;
use crate::element::Element;
use crate::map::BLOCK;
use crate::simd::vector::Vector;
use crate::team::share::Shared;
use crate::team::units::{Units, part};

/// Pixels that are finished together: as many as keep their sums in registers.
const FINISHED: usize = 8;

/// One direction of one convolution, ready to run.
pub(in crate::conv) struct Bf16Outputs<'a, E> {
    pub passes: &'a Passes,
    pub division: &'a Division,
    pub multiplier: Multiplier,
    pub source: Source<'a, E>,
    /// Weights as [`pack`](super::pack) lays them out.
    pub weights: &'a [f32],
    pub target: Target<'a, E>,
    /// Its units are chunks.
    pub finish: Finish<'a>,
    /// [`Division::scratch_len`] for each thread.
    pub workspace: Shared<'a>,
    pub thread: usize,
    /// [`Division::units`].
    pub units: Units<'a>,
}

impl<E: Element> Kernel for Bf16Outputs<'_, E> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let weight_splits = self.division.weight_splits;
        let scratch = self.workspace.at(self.thread * self.division.scratch_len());
        let sums = scratch.wrapping_add(self.division.pixels_len());
        let panels = panels(self.target.blocks);
        // SAFETY: the caller vouches for the instruction set.
        let ready = unsafe { Ready::new(self.multiplier) };
        let mut lists = Lists::new();
        let units = |pass: usize| self.division.units(self.passes, pass, self.target.batch);
        let panel_len = |pass: usize| self.division.depth(pass) * 2 * WORDS;
        while let Some(unit) = self.units.take() {
            let (index, unit) = self.passes.pass_of(unit, units);
            let (chunk, split) = (unit / weight_splits, unit % weight_splits);
            let first_weight = panels * (0..index).map(panel_len).sum::<usize>();
            let panel_len = panel_len(index);
            // SAFETY: the caller vouches for the instruction set; units write different targets, and
            // each thread has a workspace of its own.
            unsafe {
                let chunk = self.chunk::<V>(&ready, (index, chunk), scratch.cast(), &mut lists);
                for panel in part(panels, weight_splits, split) {
                    let weights = first_weight + panel * panel_len;
                    let columns = self.weights[weights..][..panel_len].as_ptr().cast();
                    self.multiply::<V, NB>(&ready, &chunk, panel, columns, sums);
                }
            }
        }
    }
}

/// What is listed of a chunk.
struct Lists {
    /// For each pixel the row of the products that is its, counted over panels, and its place in the
    /// target.
    pixels: [(usize, usize); MOST * PANEL],
    /// Where the windows of pixels start in the source, or where the pixels of a strip lie in it, or row
    /// tiles in the workspace.
    sources: [usize; MOST_PIXELS],
    /// Pixels up to the end of each panel.
    ends: [usize; MOST],
}

impl Lists {
    fn new() -> Lists {
        Lists { pixels: [(0, 0); MOST * PANEL], sources: [0; MOST_PIXELS], ends: [0; MOST] }
    }
}

/// Pixels that go through one panel of weights after the other.
struct Chunk<'a> {
    /// Number of the chunk in its pass.
    index: usize,
    /// As [`Lists::pixels`].
    pixels: &'a [(usize, usize)],
    /// As [`Lists::ends`].
    ends: &'a [usize],
    rows: Rows<'a>,
}

/// Where products read the values of pixels.
enum Rows<'a> {
    /// In panels with so many tiles of the sum, made of windows.
    Panels(*const u32, usize),
    /// In the map, at the pieces of each of these windows.
    Map { map: &'a [Bf16], windows: &'a [usize], sources: &'a [[PieceSource; 2]] },
    /// In the workspace, from where row tiles start; their steps and their pitch.
    Tiles { first: *const u8, tiles: &'a [usize], steps: &'a [usize], pitch: usize },
}

impl Chunk<'_> {
    /// The products of panel `panel` of the pixels with one of weights.
    ///
    /// # Safety
    /// The chunk must have been made, `columns` and `products` must hold theirs, and the windows of the
    /// pixels must lie in the map.
    unsafe fn product(&self, ready: &Ready, panel: usize, columns: *const u32, products: *mut f32) {
        // SAFETY: as the caller vouches.
        unsafe {
            match self.rows {
                // Pixels that no tap of the filter reaches.
                Rows::Panels(_, 0)
                | Rows::Map { sources: [], .. }
                | Rows::Tiles { steps: [], .. } => {
                    products.write_bytes(0, 4 * WORDS);
                }
                Rows::Panels(first, depth) => {
                    let rows = first.add(panel * depth * 2 * WORDS);
                    ready.multiply(rows, Columns::panel(columns), depth, products, true);
                }
                Rows::Map { map, windows, sources } => {
                    // The last pixel stands in for those that are missing.
                    let rows = std::array::from_fn(|row| {
                        let window = windows[(panel * PANEL + row).min(windows.len() - 1)];
                        map.as_ptr().wrapping_add(window)
                    });
                    ready.multiply_map(&rows, sources, columns, products);
                }
                Rows::Tiles { first, tiles, steps, pitch } => {
                    let rows = [0, 1].map(|half| first.wrapping_add(tiles[2 * panel + half]));
                    ready.multiply_in_place(rows, pitch, steps, columns, products);
                }
            }
        }
    }
}

impl<E: Element> Bf16Outputs<'_, E> {
    /// Lists chunk `index` of pass `pass` and brings its pixels into the workspace, as far as products do
    /// not read the map.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and `to` must hold [`Division::pixels_len`].
    #[inline(always)]
    unsafe fn chunk<'a, V: Vector>(
        &'a self,
        ready: &Ready,
        (index, chunk): (usize, usize),
        to: *mut u32,
        lists: &'a mut Lists,
    ) -> Chunk<'a> {
        let pass = &self.passes.passes[index];
        // SAFETY: as the caller vouches.
        unsafe {
            match &self.division.reading {
                Reading::Windows(windows) => {
                    let first = chunk * windows.chunk_panels * PANEL;
                    let count = self.target.batch * pass.pixels.len() - first;
                    let count = count.min(windows.chunk_panels * PANEL);
                    let Lists { pixels, sources: starts, ends } = lists;
                    let (pixels, starts) = (&mut pixels[..count], &mut starts[..count]);
                    pass.list(first, (self.source.image, self.target.image), pixels);
                    for (i, (pixel, start)) in pixels.iter_mut().zip(&mut *starts).enumerate() {
                        (*start, pixel.0) = (pixel.0, i);
                    }
                    let ends = &mut ends[..count.div_ceil(PANEL)];
                    let sources = &windows.sources[index];
                    let map = if windows.in_place && ready.reads_maps() {
                        E::as_bf16(self.source.values)
                    } else {
                        None
                    };
                    let rows = match map {
                        Some(map) => Rows::Map { map, windows: starts, sources },
                        None => {
                            self.gather::<V>(sources, starts, to);
                            Rows::Panels(to, sources.len())
                        }
                    };
                    Chunk { index: chunk, pixels, ends: ends_of(pixels, ends), rows }
                }
                Reading::Strips(strips) => {
                    let first = chunk * strips.chunk_rows;
                    let Lists { pixels, sources, ends } = lists;
                    self.strips::<V>(strips, first, sources, to.cast());
                    let (pixels, ends) = self.positions(strips, pass, first, pixels, ends);
                    let tiles = &mut sources[..2 * ends.len()];
                    tiles
                        .iter_mut()
                        .enumerate()
                        .for_each(|(i, tile)| *tile = i * SIDE * strips.pitch);
                    let (steps, pitch) = (&strips.steps[index], strips.pitch);
                    let rows = Rows::Tiles { first: to.cast(), tiles, steps, pitch };
                    Chunk { index: chunk, pixels, ends, rows }
                }
                Reading::Image(strips) => {
                    let first = chunk * strips.chunk_rows;
                    let Lists { pixels, sources, ends } = lists;
                    let start = strips.row(self.passes, first);
                    self.image::<V>(strips, start, to.cast());
                    let (pixels, ends) = self.positions(strips, pass, first, pixels, ends);
                    let tiles = &mut sources[..2 * ends.len()];
                    // Behind the last row of a chunk, and in a pass without pixels, there is none.
                    let last =
                        (first + strips.chunk_rows).min(self.target.batch * strips.stack.rows) - 1;
                    for (i, tile) in tiles.iter_mut().enumerate() {
                        let (row, column) =
                            (i * SIDE / strips.stack.pitch, i * SIDE % strips.stack.pitch);
                        let row = strips.row(self.passes, (first + row).min(last)) - start;
                        *tile = row * size_of::<Bf16>() + column * strips.pitch;
                    }
                    let (steps, pitch) = (&strips.steps[index], strips.pitch);
                    let rows = Rows::Tiles { first: to.cast(), tiles, steps, pitch };
                    Chunk { index: chunk, pixels, ends, rows }
                }
            }
        }
    }

    /// Lists the pixels among the positions of a chunk whose first row is `first`, and the ends of panels.
    fn positions<'a>(
        &self,
        strips: &Strips,
        pass: &Pass,
        first: usize,
        pixels: &'a mut [(usize, usize); MOST * PANEL],
        ends: &'a mut [usize; MOST],
    ) -> (&'a [(usize, usize)], &'a [usize]) {
        let mut count = 0;
        strips.stack.each(
            pass,
            self.target.batch,
            first,
            strips.chunk_rows,
            |position, n, pixel| {
                let target = n * self.target.image + pass.pixels[pixel].target as usize;
                pixels[count] = (position, target);
                count += 1;
            },
        );
        let pixels = &pixels[..count];
        let panels = pixels.last().map_or(0, |last| last.0 / PANEL + 1);
        (pixels, ends_of(pixels, &mut ends[..panels]))
    }

    /// Makes the panels of windows, `[panel][tile of the sum][pixel][word]`. The last pixel stands in for
    /// those that are missing.
    ///
    /// Goes through the pixels of one tile of the sum after the other, so that a block is read and a
    /// tile written from end to end, as caches like it.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and `to` must hold the panels.
    #[inline(always)]
    unsafe fn gather<V: Vector>(
        &self,
        sources: &[[PieceSource; 2]],
        windows: &[usize],
        to: *mut u32,
    ) {
        let last = windows.len() - 1;
        for (tile, &[first, second]) in sources.iter().enumerate() {
            for index in 0..windows.len().next_multiple_of(PANEL) {
                let (panel, row) = (index / PANEL, index % PANEL);
                let to = to.wrapping_add((panel * sources.len() + tile) * 2 * WORDS + row * SIDE);
                let window = self.source.values.as_ptr().wrapping_add(windows[index.min(last)]);
                // SAFETY: `Conv` has checked that the source is that of the passes, so that
                // windows and steps lie inside; the rest is vouched for by the caller.
                unsafe { words::join::<V, _>(first.of(window), second.of(window), to) };
            }
        }
    }

    /// Makes the strips of a chunk whose first row is `first`. The second block of the last pair is zero
    /// where the source has none.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and `to` must hold the strips.
    #[inline(always)]
    unsafe fn strips<V: Vector>(
        &self,
        strips: &Strips,
        first: usize,
        list: &mut [usize; MOST_PIXELS],
        to: *mut u8,
    ) {
        let Passes { layout, source_blocks, .. } = self.passes;
        let list = &mut list[..strips.stack.lines(strips.chunk_rows)];
        let nothing = PieceSource::default();
        let mut strip = to;
        for phase in 0..strips.stack.phases.len() {
            strips.stack.list(phase, layout, (self.target.batch, self.source.image), first, list);
            for block in (0..*source_blocks).step_by(2) {
                let first = self.source.values.as_ptr().wrapping_add(block * layout.plane);
                let second = first.wrapping_add(layout.plane);
                for (line, &pixel) in list.iter().enumerate() {
                    let to = strip.wrapping_add(line * LINE).cast();
                    let values = Values::block(first.wrapping_add(pixel));
                    // SAFETY: `Conv` has checked that the source is that of the passes; the
                    // rest is vouched for by the caller.
                    unsafe {
                        match block + 1 < *source_blocks {
                            true => words::join::<V, _>(
                                values,
                                Values::block(second.wrapping_add(pixel)),
                                to,
                            ),
                            false => words::join::<V, _>(values, nothing.of(first), to),
                        }
                    }
                }
                strip = strip.wrapping_add(strips.strip);
            }
        }
    }

    /// Copies what a chunk meets of the images, from element `start` on; what is behind the last is zero.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and `to` must hold the rows.
    #[inline(always)]
    unsafe fn image<V: Vector>(&self, strips: &Strips, start: usize, to: *mut Bf16) {
        let end = self.source.values.len().min(self.target.batch * self.source.image);
        let values = &self.source.values[start..end];
        let len = strips.strip / size_of::<Bf16>();
        // SAFETY: as the caller vouches.
        let to = unsafe { std::slice::from_raw_parts_mut(to, len) };
        let (to, rest) = to.split_at_mut(len.min(values.len()));
        match E::as_bf16(values) {
            Some(values) => to.copy_from_slice(&values[..to.len()]),
            None => to.iter_mut().zip(values).for_each(|(to, value)| *to = value.cut()),
        }
        rest.fill(Bf16::default());
    }

    /// Multiplies a chunk's pixels with one panel of weights and finishes the results: those of a panel of
    /// pixels while the next is multiplied, because finishing has to wait for the last product otherwise, and
    /// the next product for the end of finishing.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, as for [`Chunk::product`], and no other thread
    /// may touch these targets; `products` is twice four tiles of this thread's own.
    #[inline(always)]
    unsafe fn multiply<V: Vector, const NB: usize>(
        &self,
        ready: &Ready,
        chunk: &Chunk<'_>,
        panel: usize,
        columns: *const u32,
        products: *mut f32,
    ) {
        let blocks = 2.min(self.target.blocks - 2 * panel);
        let buffer = |index: usize| products.wrapping_add(index % 2 * 4 * WORDS);
        // SAFETY: as the caller vouches.
        unsafe {
            let mut sums = [[[V::splat(0.0); NB]; 2]; 2];
            let mut last: &[(usize, usize)] = &[];
            let mut first = 0;
            for (index, &end) in chunk.ends.iter().enumerate() {
                let pixels = &chunk.pixels[first..end];
                if !pixels.is_empty() {
                    chunk.product(ready, index, columns, buffer(index));
                }
                self.finish(last, panel, buffer(index + 1), &mut sums);
                (last, first) = (pixels, end);
            }
            self.finish(last, panel, buffer(chunk.ends.len() + 1), &mut sums);
            if let Some(partial) = self.finish.sums {
                for (block, kinds) in sums.iter().enumerate().take(blocks) {
                    for (kind, vectors) in kinds.iter().enumerate() {
                        let at = (2 * chunk.index + kind) * self.target.blocks * BLOCK;
                        let at = at + (2 * panel + block) * BLOCK;
                        for (v, vector) in vectors.iter().enumerate() {
                            vector.store(partial.at(at + v * V::LANES));
                        }
                    }
                }
            }
        }
    }

    /// Finishes the products of a panel of pixels with panel `panel` of weights, and adds to the sums.
    ///
    /// # Safety
    /// As [`Bf16Outputs::multiply`].
    #[inline(always)]
    unsafe fn finish<V: Vector, const NB: usize>(
        &self,
        pixels: &[(usize, usize)],
        panel: usize,
        products: *const f32,
        sums: &mut [[[V; NB]; 2]; 2],
    ) {
        let (blocks, plane) = (2.min(self.target.blocks - 2 * panel), self.target.plane);
        for pixels in pixels.chunks(FINISHED) {
            let valid = pixels.len();
            // The last pixel stands in for those that are missing.
            let pixel = |p: usize| pixels[p.min(valid - 1)];
            let rows: [_; FINISHED] = std::array::from_fn(|p| {
                let row = pixel(p).0 % PANEL;
                row / SIDE * 2 * WORDS + row % SIDE * SIDE
            });
            let mut targets: [_; FINISHED] =
                std::array::from_fn(|p| self.target.values.at(pixel(p).1 + 2 * panel * plane));
            for (block, sums) in sums.iter_mut().enumerate().take(blocks) {
                // SAFETY: as the caller vouches.
                unsafe {
                    let mut tile = [[V::splat(0.0); NB]; FINISHED];
                    for (row, vectors) in rows.iter().zip(&mut tile) {
                        for (v, vector) in vectors.iter_mut().enumerate() {
                            *vector = V::load(products.add(row + block * WORDS + v * V::LANES));
                        }
                    }
                    let channel = (2 * panel + block) * BLOCK;
                    self.finish.store(&mut tile, &targets, plane, valid, channel, sums);
                }
                for target in &mut targets {
                    *target = target.wrapping_add(plane);
                }
            }
        }
    }
}

/// Pixels up to the end of each panel, by the rows of the products that are theirs.
fn ends_of<'a>(pixels: &[(usize, usize)], ends: &'a mut [usize]) -> &'a [usize] {
    for (panel, end) in ends.iter_mut().enumerate() {
        *end = pixels.partition_point(|pixel| pixel.0 < (panel + 1) * PANEL);
    }
    ends
}
