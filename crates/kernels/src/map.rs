//! The blocked layout of an activation map.
//!
//! A map of `channels` x `height` x `width` is stored per image as
//! `[channels / B][height + 2][width + 1][B]` with B = 16: one cache line holds one pixel of one
//! channel block in f32, and two in bf16. Row 0 and row `height + 1` are a zero halo, and so
//! is column 0; the right halo of a row is column 0 of the next one. A 3x3 filter with padding 1
//! therefore reads its neighbours by plain pointer offsets, with no border case, and one shared
//! halo column costs half of what two would. The pixel after the last plane is read too, so every
//! buffer ends with [`GUARD_PIXELS`] further zero pixels.
//!
//! Concatenation along channels is free: a branch writes its own channel blocks of the wide map.

use std::ops::Range;

use crate::element::Element;
use crate::simd::lanes::LANES;

/// Channels of one block, see [`Map`]; as many as lanes that kernels go through at a time.
pub const BLOCK: usize = LANES;

/// Zero pixels behind the last plane of a buffer, which edge taps and vector loads may read.
pub const GUARD_PIXELS: usize = 64;

/// Sizes of an activation map in the blocked layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Channels; a multiple of [`BLOCK`].
    pub channels: usize,
    /// Rows without the halo.
    pub height: usize,
    /// Columns without the halo.
    pub width: usize,
}

impl Map {
    /// Channel blocks of one image.
    pub fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK)
    }

    /// Pixels from one row to the next: the width and the shared halo column.
    pub fn pitch(&self) -> usize {
        self.width + 1
    }

    /// Elements of one channel block of one image.
    pub fn plane(&self) -> usize {
        (self.height + 2) * self.pitch() * BLOCK
    }

    /// Elements of one image.
    pub fn image(&self) -> usize {
        self.blocks() * self.plane()
    }

    /// Elements of a buffer of `batch` images, the guard included.
    pub fn buffer(&self, batch: usize) -> usize {
        batch * self.image() + GUARD_PIXELS * BLOCK
    }

    /// Offset of the first channel of pixel (`row`, `column`) of a block within its plane.
    pub fn pixel(&self, row: usize, column: usize) -> usize {
        ((row + 1) * self.pitch() + column + 1) * BLOCK
    }

    /// Elements of the pixels of `row` within a plane.
    pub fn row(&self, row: usize) -> Range<usize> {
        let start = self.pixel(row, 0);
        start..start + self.width * BLOCK
    }

    /// Zeroes the halo of one plane.
    pub fn zero_halo<E: Element>(&self, plane: &mut [E]) {
        let (pitch, zero) = (self.pitch() * BLOCK, E::default());
        // Row 0 and the first pixel of row 1 are neighbours, and so are those at the other end.
        plane[..pitch + BLOCK].fill(zero);
        for row in 2..=self.height {
            plane[row * pitch..][..BLOCK].fill(zero);
        }
        plane[(self.height + 1) * pitch..].fill(zero);
    }
}

/// Which channel blocks of a wider map a kernel reads or writes: those from `first` on.
/// With it a branch writes its slice of a concatenated map in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Channel blocks of the whole map.
    pub blocks: usize,
    /// First block that belongs to the view.
    pub first: usize,
}

impl View {
    /// The view of all of `map`.
    pub fn whole(map: &Map) -> View {
        View { blocks: map.blocks(), first: 0 }
    }
}
