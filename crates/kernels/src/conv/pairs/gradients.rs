//! The gradient of the weights.
//!
//! For a chunk of pixels each thread makes the panels of dy once, and those of x for two pieces at a time.
//! The sums live in the workspace between chunks, and go on over all pixels of a share: more of f32's
//! rounding than short sums have, and little beside that of bf16.

use super::super::BLOCK;
use super::super::geometry::Passes;
use super::super::share::Shared;
use super::super::vector::{Kernel, Vector};
use super::pack::{panels, sums_len};
use super::product::{Columns, Multiplier, Ready};
use super::{CACHED_BYTES, PANEL, SIDE, Source, WORDS};
use crate::element::Element;
use crate::split::part;

/// Most tiles of a chunk along the sum.
const MOST: usize = 32;

/// Tiles along the sum over a chunk of pixels: what keeps the panels of dy in the cache.
fn chunk_depth(out_blocks: usize) -> usize {
    (CACHED_BYTES / (panels(out_blocks) * 2 * WORDS * size_of::<u32>())).clamp(4, MOST)
}

/// Elements of workspace of each thread: the panels of dy, and one of x.
pub(in crate::conv) fn scratch_len(out_blocks: usize) -> usize {
    (panels(out_blocks) + 1) * chunk_depth(out_blocks) * 2 * WORDS
}

/// The gradient of the weights of one convolution, ready to run.
pub(in crate::conv) struct Gradients<'a, E> {
    pub passes: &'a Passes,
    /// The source of the only pass.
    pub sources: &'a [[Source; 2]],
    pub multiplier: Multiplier,
    pub batch: usize,
    pub out_blocks: usize,
    /// First element of the view of x, and elements from one image to the next.
    pub source: &'a [E],
    pub source_image: usize,
    /// First element of the view of dy; elements from one image and one block to the next.
    pub gradient: &'a [E],
    pub gradient_image: usize,
    pub gradient_plane: usize,
    /// `parts` times [`sums_len`].
    pub sums: Shared<'a>,
    /// Shares of the pixels; `threads / parts` threads split the pieces of each.
    pub parts: usize,
    /// [`scratch_len`] for each thread.
    pub workspace: Shared<'a>,
    pub thread: usize,
    pub threads: usize,
}

impl<E: Element> Kernel for Gradients<'_, E> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let pass = &self.passes.passes[0];
        let per_image = pass.pixels.len();
        let crew = self.threads / self.parts;
        if self.thread >= crew * self.parts {
            return;
        }
        let (share, member) = (self.thread / crew, self.thread % crew);
        let pixels = part(self.batch * per_image, self.parts, share);
        let panels = panels(self.out_blocks);
        let chunk = chunk_depth(self.out_blocks);
        let rows = self.workspace.at(self.thread * scratch_len(self.out_blocks)).cast::<u32>();
        let columns = rows.wrapping_add(panels * chunk * 2 * WORDS);
        let mut list = [(0, 0); MOST * PANEL];
        // SAFETY: the caller vouches for the instruction set; threads have a workspace and sums of
        // their own, which `Conv` has checked to be long enough.
        let ready = unsafe { Ready::new(self.multiplier) };
        for first in pixels.clone().step_by(chunk * PANEL) {
            let list = &mut list[..(chunk * PANEL).min(pixels.end - first)];
            pass.list(first, (self.source_image, self.gradient_image), list);
            let tiles = list.len().div_ceil(PANEL);
            for block in 0..2 * panels {
                let to = rows.wrapping_add((block / 2 * chunk * 2 + block % 2) * WORDS);
                // SAFETY: as above.
                unsafe { self.rows::<V>(block, list, to) };
            }
            for two in part(self.sources.len(), crew, member) {
                // SAFETY: as above.
                unsafe {
                    for (half, piece) in self.sources[two].into_iter().enumerate() {
                        self.columns::<V>(piece, list, columns.wrapping_add(half * WORDS));
                    }
                    for panel in 0..panels {
                        let at = share * sums_len(self.passes, self.out_blocks);
                        let at = at + (panel * self.sources.len() + two) * 4 * WORDS;
                        let rows = rows.wrapping_add(panel * chunk * 2 * WORDS);
                        let fresh = first == pixels.start;
                        let columns = Columns::panel(columns);
                        ready.multiply(rows, columns, tiles, self.sums.at(at), fresh);
                    }
                }
            }
        }
    }
}

impl<E: Element> Gradients<'_, E> {
    /// Makes the tiles of dy of channel block `block` for the listed pixels, `[channel][pixel pair]`,
    /// every second tile from `to` on. Blocks and pixels that do not exist are zero.
    ///
    /// # Safety
    /// The machine must have the instruction set of `V`, the list's offsets must lie in the views, and
    /// the tiles must be this thread's.
    #[inline(always)]
    unsafe fn rows<V: Vector>(&self, block: usize, list: &[(usize, usize)], to: *mut u32) {
        let exists = block < self.out_blocks;
        let plane = if exists { block * self.gradient_plane } else { 0 };
        let from = self.gradient.as_ptr().wrapping_add(plane);
        let count = if exists { BLOCK } else { 0 };
        let piece = Source { count, total: count, ..Source::default() };
        for (tile, list) in list.chunks(PANEL).enumerate() {
            let to = to.wrapping_add(tile * 2 * WORDS);
            // SAFETY: as the caller vouches.
            unsafe {
                pairs::<E, V>(piece, |i| list.get(i).map(|pixel| from.wrapping_add(pixel.1)), to);
                V::transpose(to);
            }
        }
    }

    /// Makes the tiles of a piece of x for the listed pixels, `[pixel pair][value]`, every
    /// second tile from `to` on. Values and pixels that do not exist are zero.
    ///
    /// # Safety
    /// As [`Gradients::rows`].
    #[inline(always)]
    unsafe fn columns<V: Vector>(&self, piece: Source, list: &[(usize, usize)], to: *mut u32) {
        let from = self.source.as_ptr();
        for (tile, list) in list.chunks(PANEL).enumerate() {
            let to = to.wrapping_add(tile * 2 * WORDS);
            // SAFETY: as the caller vouches.
            unsafe {
                pairs::<E, V>(piece, |i| list.get(i).map(|pixel| from.wrapping_add(pixel.0)), to);
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
    piece: Source,
    window: impl Fn(usize) -> Option<*const E>,
    to: *mut u32,
) {
    let values = |pixel: usize| match window(pixel) {
        Some(window) => piece.of(window),
        None => Source::default().of(std::ptr::null()),
    };
    for pair in 0..SIDE {
        // SAFETY: as the caller vouches.
        unsafe { V::pair(values(2 * pair), values(2 * pair + 1), to.add(pair * SIDE)) };
    }
}
