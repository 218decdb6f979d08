//! The forward direction and the gradient of the input.

use super::super::BLOCK;
use super::super::finish::Finish;
use super::super::geometry::Passes;
use super::super::share::Shared;
use super::super::vector::{Kernel, Vector};
use super::pack::panels;
use super::product::{Multiplier, Ready};
use super::{CACHED_BYTES, PANEL, SIDE, Source, WORDS, sources};
use crate::element::{Bf16, Element};
use crate::split::part;

/// Pixels that are finished together: as many as keep their sums in registers.
const FINISHED: usize = 8;

/// Most panels of a chunk, so that sums in f32 stay short, as those of [`direct`](super::super::direct).
const MOST: usize = 28;

/// How the work of a direction is divided.
#[derive(Debug)]
pub(in crate::conv) struct Division {
    /// Panels of pixels of a chunk, which are made once, where products do not read the map, and
    /// multiplied with one panel of weights after the other.
    pub chunk_panels: usize,
    /// Units of work that share the weights of a chunk, where there are too few chunks.
    pub spans: usize,
    /// The source of each pass.
    sources: Vec<Vec<[Source; 2]>>,
    /// Whether each piece of them is a block of channels, or nothing, which products can read in place.
    in_place: bool,
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
        Division { chunk_panels, spans, sources, in_place: passes.layout.pixel == BLOCK }
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
        let map = match self.division.in_place && ready.reads_maps() {
            true => E::as_bf16(self.source),
            false => None,
        };
        let mut pixels = [(0, 0); MOST * PANEL];
        let mut first_weight = 0;
        for (pass, sources) in self.passes.passes.iter().zip(&self.division.sources) {
            let panel_len = sources.len() * 2 * WORDS;
            let total = self.batch * pass.pixels.len();
            let chunks = self.division.chunks(self.batch, pass.pixels.len());
            for unit in part(chunks * spans, self.threads, self.thread) {
                let index = unit / spans;
                let first = index * chunk_panels * PANEL;
                let pixels = &mut pixels[..(total - first).min(chunk_panels * PANEL)];
                pass.list(first, (self.source_image, self.target_image), pixels);
                let rows = match map {
                    Some(map) => Rows::Map(map),
                    None => Rows::Panels(scratch.cast()),
                };
                let chunk = Chunk { index, sources, pixels, rows };
                // SAFETY: the caller vouches for the instruction set; units of different threads
                // write different targets, and each thread has a workspace of its own.
                unsafe {
                    if let Rows::Panels(panels) = chunk.rows {
                        self.gather::<V>(&chunk, panels);
                    }
                    for panel in part(panels, spans, unit % spans) {
                        let weights = first_weight + panel * panel_len;
                        let columns = self.weights[weights..][..panel_len].as_ptr().cast();
                        self.multiply::<V, NB>(&ready, &chunk, panel, columns, sums);
                    }
                }
            }
            first_weight += panels * panel_len;
        }
    }
}

/// Pixels that go through one panel of weights after the other.
struct Chunk<'a> {
    /// Number of the chunk in its pass.
    index: usize,
    /// The pieces of the sum.
    sources: &'a [[Source; 2]],
    /// Offsets of each pixel's window in the source, and of its place in the target.
    pixels: &'a [(usize, usize)],
    rows: Rows<'a>,
}

/// Where products read the values of pixels.
enum Rows<'a> {
    /// In panels that [`Outputs::gather`] makes.
    Panels(*mut u32),
    /// In the map.
    Map(&'a [Bf16]),
}

impl Chunk<'_> {
    /// The products of panel `panel` of the pixels with one of weights. The last pixel stands in for
    /// those that are missing.
    ///
    /// # Safety
    /// The panels must have been made, `columns` and `products` must hold theirs, and the windows of
    /// the pixels must lie in the map.
    unsafe fn product(&self, ready: &Ready, panel: usize, columns: *const u32, products: *mut f32) {
        let depth = self.sources.len();
        // SAFETY: as the caller vouches.
        unsafe {
            match self.rows {
                // Pixels that no tap of the filter reaches.
                _ if depth == 0 => products.write_bytes(0, 4 * WORDS),
                Rows::Panels(rows) => {
                    let rows = rows.add(panel * depth * 2 * WORDS);
                    ready.multiply(rows, columns, depth, products, true);
                }
                Rows::Map(map) => {
                    let last = self.pixels.len() - 1;
                    let rows = std::array::from_fn(|row| {
                        let (window, _) = self.pixels[(panel * PANEL + row).min(last)];
                        map.as_ptr().wrapping_add(window)
                    });
                    ready.multiply_map(&rows, self.sources, columns, products);
                }
            }
        }
    }
}

impl<E: Element> Outputs<'_, E> {
    /// Makes the panels of a chunk's pixels, `[panel][tile of the sum][pixel][word]`. The last pixel
    /// stands in for those that are missing.
    ///
    /// Goes through the pixels of one tile of the sum after the other, so that a block is read and a
    /// tile written from end to end, as caches like it.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, and `to` must hold the panels.
    #[inline(always)]
    unsafe fn gather<V: Vector>(&self, chunk: &Chunk<'_>, to: *mut u32) {
        let Chunk { sources, pixels, .. } = chunk;
        let last = pixels.len() - 1;
        for (tile, &[first, second]) in sources.iter().enumerate() {
            for index in 0..pixels.len().next_multiple_of(PANEL) {
                let (panel, row) = (index / PANEL, index % PANEL);
                let to = to.wrapping_add((panel * sources.len() + tile) * 2 * WORDS + row * SIDE);
                let window = self.source.as_ptr().wrapping_add(pixels[index.min(last)].0);
                // SAFETY: `Conv` has checked that the source holds every image of its view, so that
                // windows and steps lie inside; the rest is vouched for by the caller.
                unsafe { V::join(first.of(window), second.of(window), to) };
            }
        }
    }

    /// Multiplies a chunk's pixels with one panel of weights and finishes the results.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, as for [`Chunk::product`], and no other thread
    /// may touch these targets; `products` is four tiles of this thread's own.
    #[inline(always)]
    unsafe fn multiply<V: Vector, const NB: usize>(
        &self,
        ready: &Ready,
        chunk: &Chunk<'_>,
        panel: usize,
        columns: *const u32,
        products: *mut f32,
    ) {
        let blocks = 2.min(self.out_blocks - 2 * panel);
        // SAFETY: as the caller vouches.
        unsafe {
            let mut sums = [[[V::splat(0.0); NB]; 2]; 2];
            for (index, pixels) in chunk.pixels.chunks(PANEL).enumerate() {
                chunk.product(ready, index, columns, products);
                for (group, pixels) in pixels.chunks(FINISHED).enumerate() {
                    let (row, valid) = (group * FINISHED, pixels.len());
                    // The last pixel stands in for those that are missing.
                    let mut targets: [_; FINISHED] = std::array::from_fn(|p| {
                        let (_, target) = pixels[p.min(valid - 1)];
                        self.target.at(target + 2 * panel * self.target_plane)
                    });
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
                        let at = (2 * chunk.index + kind) * self.out_blocks * BLOCK;
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
