//! How the work of the forward direction or the gradient of the input is divided.

use super::pack::panels;
use super::pieces::{PieceSource, depth, sources};
use super::strips::{MOST_PIXELS, StripLayout, TapOffset};
use super::{CACHED_BYTES, PANEL, SIDE, WORDS};
use crate::conv::geometry::Passes;
use crate::dtype::Bf16;
use crate::map::BLOCK;

/// Most panels of a chunk, so that sums in f32 stay short, as those of [`direct`](crate::conv::direct).
pub(super) const MOST: usize = 28;

/// Units of work of each thread, about.
const UNITS: usize = 8;

/// How the work of a direction is divided: into chunks of pixels, of one size, for a short last one would
/// leave a thread with less to do.
#[derive(Debug)]
pub(in crate::conv) struct Division {
    /// How a chunk's pixels are read.
    pub reading: Reading,
    /// Units of work that share the weights of a chunk, where there are too few chunks.
    pub weight_splits: usize,
}

/// How products read the pixels of a chunk.
#[derive(Debug)]
pub(in crate::conv) enum Reading {
    /// Window by window, in the map or from panels made of them.
    Windows(Windows),
    /// Tile by tile, from strips of the map that are made for each chunk.
    Strips(Strips),
    /// Tile by tile, from the rows of the image that a chunk meets.
    Image(Strips),
}

/// Chunks of windows.
#[derive(Debug)]
pub(in crate::conv) struct Windows {
    /// Panels of pixels of a chunk, which are made once, where products do not read the map, and
    /// multiplied with one panel of weights after the other.
    pub chunk_panels: usize,
    /// The source of each pass.
    pub sources: Vec<Vec<[PieceSource; 2]>>,
    /// Whether each piece of them is a block of channels, or nothing, which products can read in place.
    pub in_place: bool,
}

/// Chunks of a stack's rows.
#[derive(Debug)]
pub(in crate::conv) struct Strips {
    pub stack: StripLayout,
    /// Rows of a chunk.
    pub chunk_rows: usize,
    /// Bytes from one strip of a chunk to the next, a line of 64 bytes being two channel blocks of a pixel;
    /// or those of an image's rows.
    pub strip: usize,
    /// Strips of a chunk, `[phase][pair of channel blocks]`; or one.
    pub strips: usize,
    /// For each pass and each tile of the sum the distance from a row tile's first position to what
    /// products read, in bytes.
    pub steps: Vec<Vec<usize>>,
    /// Bytes from one row of a tile to the next.
    pub pitch: usize,
}

impl Division {
    /// The division of `passes` over `batch` images of a source of `size` rows and columns, with `out_blocks`
    /// blocks of target channels. Units of work share the weights of a chunk until every thread has some
    /// [`UNITS`].
    pub(in crate::conv) fn new(
        passes: &Passes,
        size: (usize, usize),
        batch: usize,
        out_blocks: usize,
        threads: usize,
    ) -> Division {
        let of_pass = |pass| panels(out_blocks) * depth(passes, pass);
        let products: usize = passes.passes.iter().map(of_pass).sum();
        let strips = match passes.aligned {
            true => Strips::new(passes, size, (batch, threads), products),
            false => None,
        };
        let reading = match strips {
            Some(strips) if passes.layout.pixel == BLOCK => Reading::Strips(strips),
            Some(strips) => Reading::Image(strips),
            None => Reading::Windows(Windows::new(passes, batch, threads)),
        };
        let mut division = Division { reading, weight_splits: 1 };
        let pixels = passes.passes.iter().map(|pass| pass.pixels.len()).max().unwrap_or(0);
        let chunks = division.chunks(batch, pixels).max(1);
        if chunks < UNITS * threads / 2 {
            division.weight_splits = (UNITS * threads).div_ceil(chunks).min(panels(out_blocks));
        }
        division
    }

    /// Chunks of the pixels of one image `per_image`, `batch` times.
    pub(in crate::conv) fn chunks(&self, batch: usize, per_image: usize) -> usize {
        match &self.reading {
            Reading::Windows(windows) => (batch * per_image).div_ceil(PANEL * windows.chunk_panels),
            Reading::Strips(strips) | Reading::Image(strips) => {
                (batch * strips.stack.rows).div_ceil(strips.chunk_rows)
            }
        }
    }

    /// Units of work of pass `pass`.
    pub(in crate::conv) fn units(&self, passes: &Passes, pass: usize, batch: usize) -> usize {
        self.chunks(batch, passes.passes[pass].pixels.len()) * self.weight_splits
    }

    /// Tiles of the sum of pass `pass`.
    pub(super) fn depth(&self, pass: usize) -> usize {
        match &self.reading {
            Reading::Windows(windows) => windows.sources[pass].len(),
            Reading::Strips(strips) | Reading::Image(strips) => strips.steps[pass].len(),
        }
    }

    /// Elements of the panels or strips of a chunk.
    pub(super) fn pixels_len(&self) -> usize {
        match &self.reading {
            Reading::Windows(windows) => windows.panels_len(),
            Reading::Strips(strips) | Reading::Image(strips) => {
                strips.strips * strips.strip / size_of::<f32>()
            }
        }
    }

    /// Elements of workspace of each thread: the panels or strips of a chunk, and the products of two panels.
    pub(in crate::conv) fn scratch_len(&self) -> usize {
        self.pixels_len() + 8 * WORDS
    }
}

impl Windows {
    /// A chunk is what half a megabyte holds, at most [`MOST`] panels.
    fn new(passes: &Passes, batch: usize, threads: usize) -> Windows {
        let pixels = passes.passes.iter().map(|pass| pass.pixels.len()).max().unwrap_or(0);
        let sources: Vec<_> = passes.passes.iter().map(|pass| sources(passes, pass)).collect();
        let depth = sources.iter().map(Vec::len).max().unwrap_or(0);
        let total = (batch * pixels).div_ceil(PANEL).max(1);
        let cached = CACHED_BYTES / (depth.max(1) * 2 * WORDS * size_of::<u32>());
        let shared = total / (UNITS * threads);
        let chunks = total.div_ceil(cached.min(shared).clamp(1, MOST));
        let in_place = passes.layout.pixel == BLOCK;
        Windows { chunk_panels: total.div_ceil(chunks), sources, in_place }
    }

    fn panels_len(&self) -> usize {
        let depth = self.sources.iter().map(Vec::len).max().unwrap_or(0);
        self.chunk_panels * depth * 2 * WORDS
    }
}

/// Bytes of a line.
pub(super) const LINE: usize = 2 * BLOCK * size_of::<Bf16>();

impl Strips {
    /// `None` where rows are too long. A chunk is at most what half a megabyte holds. All passes together
    /// multiply a panel of positions `products` times.
    fn new(
        passes: &Passes,
        size: (usize, usize),
        (batch, threads): (usize, usize),
        products: usize,
    ) -> Option<Strips> {
        if passes.layout.pixel != BLOCK {
            return Strips::of_image(passes, batch, threads);
        }
        let stack = StripLayout::new(passes, size)?;
        let pairs = passes.source_blocks.div_ceil(2);
        let strips = stack.phases.len() * pairs;
        let cached = (CACHED_BYTES / (strips.max(1) * LINE)).min(MOST_PIXELS);
        let work = (products, strips * passes.passes.len());
        let chunk_rows = chunk_rows(&stack, stack.rows_of_lines(cached), (batch, threads), work)?;
        // The last tile may reach beyond the last position, and an odd number of lines keeps strips from
        // falling on the same sets of a cache.
        let strip = ((stack.lines(chunk_rows) + PANEL) | 1) * LINE;
        let step = |taps: &[TapOffset], tile: usize| {
            let reach = taps[tile % taps.len()];
            (reach.phase * pairs + tile / taps.len()) * strip + reach.distance * LINE
        };
        let steps = stack
            .taps
            .iter()
            .map(|taps| (0..taps.len() * pairs).map(|tile| step(taps, tile)).collect());
        let steps = steps.collect();
        Some(Strips { stack, chunk_rows, strip, strips, steps, pitch: LINE })
    }

    /// As [`Strips::new`] for images.
    fn of_image(passes: &Passes, batch: usize, threads: usize) -> Option<Strips> {
        let (pass, pixel) = (&passes.passes[0], size_of::<Bf16>());
        let stack = StripLayout::of_windows(pass, SIDE)?;
        let chunk_rows = chunk_rows(&stack, usize::MAX, (batch, threads), (1, 0))?;
        let taps = pass.taps.len();
        let at = |tile: usize| pass.steps[tile % taps] + tile / taps * 2 * BLOCK;
        let steps: Vec<_> = (0..depth(passes, pass)).map(|tile| at(tile) * pixel).collect();
        let pitch = passes.stride * passes.layout.pixel * pixel;
        let mut strips =
            Strips { stack, chunk_rows, strip: 0, strips: 1, steps: vec![steps], pitch };
        let total = batch * strips.stack.rows;
        let rows = |first: usize| {
            let last = (first + chunk_rows).min(total) - 1;
            strips.row(passes, last) - strips.row(passes, first)
        };
        let between = (0..total).step_by(chunk_rows).map(rows).max().unwrap_or(0);
        let last_step = strips.steps[0].iter().max().copied().unwrap_or(0);
        let row = strips.stack.pitch * pitch;
        strips.strip = (between * pixel + last_step + row + LINE).next_multiple_of(LINE);
        Some(strips)
    }

    /// Where the windows of row `row` of an image's stack start.
    pub(super) fn row(&self, passes: &Passes, row: usize) -> usize {
        let pass = &passes.passes[0];
        let (n, row) = (row / self.stack.rows, row % self.stack.rows);
        n * passes.layout.plane + pass.pixels[row * pass.columns].source as usize
    }
}

/// Rows of a chunk, at most `cached`, and [`MOST`] panels: those that take the least time together, by whole
/// panels of positions that are multiplied `products` times and lines that are copied to `strips` strips; and
/// so few that every thread finds some units of work. `None` where a row is too long.
fn chunk_rows(
    stack: &StripLayout,
    cached: usize,
    (batch, threads): (usize, usize),
    (products, strips): (usize, usize),
) -> Option<usize> {
    // Cycles of a product of two row tiles and two column tiles (16 each), and of a copied line, about.
    const PRODUCT: usize = 64;
    const COPY: usize = 8;
    let most = cached.min(MOST * PANEL / stack.pitch);
    let total = batch * stack.rows;
    let cost = |rows: usize| {
        let of_chunk = |rows: usize| {
            let panels = (rows * stack.pitch).div_ceil(PANEL);
            panels * products * PRODUCT + stack.lines(rows) * strips * COPY
        };
        let rest = if total.is_multiple_of(rows) { 0 } else { of_chunk(total % rows) };
        total / rows * of_chunk(rows) + rest
    };
    let shared = |rows: &usize| *rows == 1 || total.div_ceil(*rows) >= UNITS * threads / 2;
    (1..=most).filter(shared).min_by_key(|rows| (cost(*rows), *rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::shape::ConvShape;

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
        for (shape, threads, chunk_panels, weight_splits) in [
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
            let size = (shape.in_height, shape.in_width);
            let division = Division::new(&passes, size, shape.batch, blocks, threads);
            let Reading::Windows(windows) = division.reading else { panic!("not aligned") };
            let found = (windows.chunk_panels, division.weight_splits);
            assert_eq!(found, (chunk_panels, weight_splits), "{shape:?}, {threads} threads");
        }
    }
}
