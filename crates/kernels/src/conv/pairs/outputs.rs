//! The forward direction and the gradient of the input.

use std::ops::Range;

use super::super::BLOCK;
use super::super::finish::Finish;
use super::super::geometry::{Cursor, Pass, Passes};
use super::super::share::Shared;
use super::super::vector::{Kernel, Vector};
use super::pack::panels;
use super::product::{MapRows, Multiplier, Ready};
use super::{CACHED_BYTES, PANEL, SIDE, Source, WORDS, sources};
use crate::element::Element;
use crate::split::part;

/// Pixels that are finished together: as many as keep their sums in registers.
const FINISHED: usize = 8;

/// Most panels of a chunk, so that sums in f32 stay short, as those of [`direct`](super::super::direct).
const MOST: usize = 28;

/// How the work of a direction is divided.
#[derive(Debug)]
pub(in crate::conv) struct Division {
    /// Panels of pixels of a chunk, which are made once and multiplied with one panel of weights after
    /// the other.
    pub chunk_panels: usize,
    /// Units of work that share the weights of a chunk, where there are too few chunks.
    pub spans: usize,
    /// The source of each pass.
    sources: Vec<Vec<[Source; 2]>>,
    /// Whether each piece of them is a block of channels, or nothing.
    blocks: bool,
}

impl Division {
    /// The division of `passes` over `batch` images, with `out_blocks` blocks of target channels.
    ///
    /// A chunk is what half a megabyte holds, at most [`MOST`] panels, and every thread gets some eight
    /// units of work.
    pub(in crate::conv) fn new(
        passes: &Passes,
        batch: usize,
        out_blocks: usize,
        threads: usize,
    ) -> Division {
        const UNITS: usize = 8;
        let pixels = passes.passes.iter().map(|pass| pass.pixels.len()).max().unwrap_or(0);
        let sources: Vec<_> = passes.passes.iter().map(|pass| sources(passes, pass)).collect();
        let depth = sources.iter().map(Vec::len).max().unwrap_or(0);
        let total = (batch * pixels).div_ceil(PANEL).max(1);
        let cached = CACHED_BYTES / (depth.max(1) * 2 * WORDS * size_of::<u32>());
        let shared = total / (UNITS * threads);
        let chunks = total.div_ceil(cached.min(shared).clamp(1, MOST));
        // Chunks of one size: a short last one would leave a thread with less to do.
        let chunk_panels = total.div_ceil(chunks);
        let spans = match chunks >= UNITS * threads / 2 {
            true => 1,
            false => (UNITS * threads).div_ceil(chunks).min(panels(out_blocks)),
        };
        let pieces = sources.iter().flatten().flatten();
        let blocks = pieces
            .clone()
            .all(|piece| matches!((piece.count, piece.total), (0, 0) | (BLOCK, BLOCK)));
        Division { chunk_panels, spans, sources, blocks }
    }

    /// Elements of the panels of a chunk.
    fn panels_len(&self) -> usize {
        let depth = self.sources.iter().map(Vec::len).max().unwrap_or(0);
        self.chunk_panels * depth * 2 * WORDS
    }

    /// Chunks of the pixels of one image `per_image`, `batch` times.
    pub(in crate::conv) fn chunks(&self, batch: usize, per_image: usize) -> usize {
        (batch * per_image).div_ceil(PANEL * self.chunk_panels)
    }

    /// Elements of workspace of each thread: the panels of a chunk, and the sums of one.
    pub(in crate::conv) fn scratch_len(&self) -> usize {
        self.panels_len() + 4 * WORDS
    }
}

/// One direction of one convolution, ready to run.
pub(in crate::conv) struct Outputs<'a, E> {
    pub passes: &'a Passes,
    pub division: &'a Division,
    pub multiplier: Multiplier,
    pub batch: usize,
    /// Channel blocks of the target.
    pub out_blocks: usize,
    /// First element of the source's view, and elements from one image to the next.
    pub source: &'a [E],
    pub source_image: usize,
    /// Weights as [`pack`](super::pack) lays them out.
    pub weights: &'a [f32],
    /// First element of the target's view; elements from one image and one block to the next.
    pub target: Shared<'a, E>,
    pub target_image: usize,
    pub target_plane: usize,
    pub finish: Finish<'a>,
    /// Where each chunk leaves its sums and sums of squares, `[chunk][2][channels]`.
    pub sums: Option<Shared<'a>>,
    /// [`Division::scratch_len`] for each thread.
    pub workspace: Shared<'a>,
    pub thread: usize,
    pub threads: usize,
}

impl<E: Element> Kernel for Outputs<'_, E> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let Division { spans, chunk_panels, .. } = *self.division;
        let scratch = self.workspace.at(self.thread * self.division.scratch_len());
        let sums = scratch.wrapping_add(self.division.panels_len());
        let panels = panels(self.out_blocks);
        // SAFETY: the caller vouches for the instruction set.
        let ready = unsafe { Ready::new(self.multiplier) };
        let map = match self.division.blocks && ready.reads_maps() {
            true => E::as_bf16(self.source),
            false => None,
        };
        let mut windows = [(0, 0); MOST * PANEL];
        let mut first_weight = 0;
        for (pass, sources) in self.passes.passes.iter().zip(&self.division.sources) {
            let depth = sources.len();
            let pixels = self.batch * pass.pixels.len();
            let chunks = self.division.chunks(self.batch, pass.pixels.len());
            for unit in part(chunks * spans, self.threads, self.thread) {
                let chunk = unit / spans;
                let first = chunk * chunk_panels * PANEL;
                let pixels = first..pixels.min(first + chunk_panels * PANEL);
                let windows = &mut windows[..pixels.len()];
                pass.list(first, (self.source_image, self.target_image), windows);
                // SAFETY: the caller vouches for the instruction set; units of different threads
                // write different targets, and each thread has a workspace of its own.
                unsafe {
                    if map.is_none() {
                        self.gather::<V>(sources, windows, scratch.cast());
                    }
                    for panel in part(panels, spans, unit % spans) {
                        let weights = first_weight + panel * depth * 2 * WORDS;
                        let weights = &self.weights[weights..][..depth * 2 * WORDS];
                        let columns = weights.as_ptr().cast();
                        let (pixels, place) = (pixels.clone(), (chunk, panel));
                        self.multiply::<V, NB>(
                            pass,
                            pixels,
                            place,
                            sums,
                            |panel: usize, sums: *mut f32| match map {
                                _ if depth == 0 => sums.write_bytes(0, 4 * WORDS),
                                Some(map) => {
                                    let last = windows.len() - 1;
                                    let row = |i: usize| {
                                        map.as_ptr()
                                            .wrapping_add(windows[(panel * PANEL + i).min(last)].0)
                                    };
                                    let rows = MapRows {
                                        rows: &std::array::from_fn(row),
                                        pieces: sources,
                                    };
                                    ready.multiply_map(&rows, columns, sums);
                                }
                                None => {
                                    let rows = scratch.cast_const().cast::<u32>();
                                    let rows = rows.add(panel * depth * 2 * WORDS);
                                    ready.multiply(rows, columns, depth, sums, true);
                                }
                            },
                        );
                    }
                }
            }
            first_weight += panels * depth * 2 * WORDS;
        }
    }
}

impl<E: Element> Outputs<'_, E> {
    /// Makes the panels of pixels with these windows, `[panel][tile of the sum][pixel][word]`. The last
    /// pixel stands in for those that are missing.
    ///
    /// Goes through the pixels of one tile of the sum after the other, so that a block is read and a
    /// tile written from end to end, as caches like it.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and `to` must hold the panels.
    #[inline(always)]
    unsafe fn gather<V: Vector>(
        &self,
        sources: &[[Source; 2]],
        windows: &[(usize, usize)],
        to: *mut u32,
    ) {
        let last = windows.len() - 1;
        for (tile, &[first, second]) in sources.iter().enumerate() {
            for index in 0..windows.len().next_multiple_of(PANEL) {
                let (panel, row) = (index / PANEL, index % PANEL);
                let to = to.wrapping_add((panel * sources.len() + tile) * 2 * WORDS + row * SIDE);
                let window = self.source.as_ptr().wrapping_add(windows[index.min(last)].0);
                // SAFETY: `Conv` has checked that the source holds every image of its view, so that
                // windows and steps lie inside; the rest is vouched for by the caller.
                unsafe { V::join(first.of(window), second.of(window), to) };
            }
        }
    }

    /// Multiplies the panels of pixels with one panel of weights and finishes the results.
    ///
    /// # Safety
    /// As [`Outputs::gather`], which has made the panels; no other thread may touch these targets.
    #[inline(always)]
    unsafe fn multiply<V: Vector, const NB: usize>(
        &self,
        pass: &Pass,
        pixels: Range<usize>,
        (chunk, panel): (usize, usize),
        products: *mut f32,
        product: impl Fn(usize, *mut f32),
    ) {
        let blocks = 2.min(self.out_blocks - 2 * panel);
        let mut cursor = Cursor::at(pass, pixels.start);
        // SAFETY: as for `gather`; products are four tiles of this thread's own.
        unsafe {
            let mut sums = [[[V::splat(0.0); NB]; 2]; 2];
            for first in pixels.clone().step_by(PANEL) {
                product((first - pixels.start) / PANEL, products);
                for row in (0..PANEL.min(pixels.end - first)).step_by(FINISHED) {
                    let valid = FINISHED.min(pixels.end - first - row);
                    let mut targets = [std::ptr::null_mut(); FINISHED];
                    for (p, target) in targets.iter_mut().enumerate() {
                        // The last pixel stands in for those that are missing.
                        let pixel = pass.pixels[cursor.q];
                        let at = cursor.n * self.target_image + pixel.target as usize;
                        *target = self.target.at(at + 2 * panel * self.target_plane);
                        if first + row + p + 1 < pixels.end {
                            cursor.step(pass);
                        }
                    }
                    for block in 0..blocks {
                        let from = (row / SIDE * 2 + block) * WORDS + row % SIDE * SIDE;
                        let mut tile = [[V::splat(0.0); NB]; FINISHED];
                        for (p, vectors) in tile.iter_mut().enumerate() {
                            for (v, vector) in vectors.iter_mut().enumerate() {
                                let at = from + p * SIDE + v * V::LANES;
                                *vector = V::load(products.add(at));
                            }
                        }
                        let channel = (2 * panel + block) * BLOCK;
                        let plane = self.target_plane;
                        let sums = &mut sums[block];
                        self.finish.store(&mut tile, &targets, plane, valid, channel, sums);
                        for target in &mut targets {
                            *target = target.wrapping_add(self.target_plane);
                        }
                    }
                }
            }
            if let Some(partial) = self.sums {
                for (block, kinds) in sums.iter().enumerate().take(blocks) {
                    for (kind, vectors) in kinds.iter().enumerate() {
                        let at = (2 * chunk + kind) * self.out_blocks * BLOCK;
                        let at = at + (2 * panel + block) * BLOCK;
                        for (v, vector) in vectors.iter().enumerate() {
                            vector.store(partial.at(at + v * V::LANES));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::ConvShape;

    #[test]
    fn work_is_divided_among_the_threads() {
        let shape = |batch, channels: (usize, usize), size, filter: [usize; 3]| ConvShape {
            batch,
            in_channels: channels.0,
            out_channels: channels.1,
            in_height: size,
            in_width: size,
            kernel: filter[0],
            stride: filter[1],
            pad: filter[2],
        };
        for (shape, threads, chunk_panels, spans) in [
            // 3,136 panels of two tiles.
            (shape(32, (64, 64), 56, [1, 1, 0]), 2, 28, 1),
            // 49 panels of 54 tiles, 108 KB each, hardly enough for eight units a thread.
            (shape(32, (192, 320), 7, [3, 1, 1]), 2, 3, 1),
            // The same for 16 threads: each panel three times, for a third of the weights each.
            (shape(32, (192, 320), 7, [3, 1, 1]), 16, 1, 3),
            (shape(1, (16, 16), 1, [1, 1, 0]), 3, 1, 1),
        ] {
            let passes = Passes::forward(&shape);
            let blocks = shape.out_channels / BLOCK;
            let division = Division::new(&passes, shape.batch, blocks, threads);
            let found = (division.chunk_panels, division.spans);
            assert_eq!(found, (chunk_panels, spans), "{shape:?}, {threads} threads");
        }
    }
}
