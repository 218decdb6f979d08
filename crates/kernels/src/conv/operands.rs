//! What a convolution reads and writes.

use crate::element::Element;
use crate::planes::{Planes, PlanesMut};
use crate::team::share::Shared;

/// The source of a convolution.
#[derive(Clone, Copy, Debug)]
pub enum ConvInput<'a, E> {
    /// Maps, `[n][c_block][h][w][16]`.
    Maps(Planes<'a, E>),
    /// Images as [`Conv::pack_image`](super::Conv::pack_image) leaves them,
    /// `[n][h + 2 pad][w + 2 pad][c]`.
    Image(&'a [E]),
}

impl<'a, E> From<Planes<'a, E>> for ConvInput<'a, E> {
    fn from(maps: Planes<'a, E>) -> ConvInput<'a, E> {
        ConvInput::Maps(maps)
    }
}

/// What kernels read: maps of the caller, a copy of them with a wider border, or images.
#[derive(Clone, Copy)]
pub(super) struct Source<'a, E = f32> {
    /// From the first channel block of the first image on.
    pub values: &'a [E],
    /// Elements from one image to the next.
    pub image: usize,
    /// Elements from one channel block to the next.
    pub plane: usize,
    /// Channel blocks; one for images.
    pub blocks: usize,
    /// Images.
    pub batch: usize,
}

impl<'a, E: Element> Source<'a, E> {
    pub(super) fn of(planes: Planes<'a, E>) -> Source<'a, E> {
        let (map, image, batch) = (planes.map(), planes.image(), planes.batch());
        let (plane, blocks) = (map.plane(), map.blocks());
        Source { values: planes.values(), image, plane, blocks, batch }
    }

    /// The same, if it is f32.
    pub(super) fn as_f32(self) -> Option<Source<'a>> {
        let Source { image, plane, blocks, batch, .. } = self;
        Some(Source { values: E::as_f32(self.values)?, image, plane, blocks, batch })
    }
}

/// What kernels write: maps of the caller, each thread at pixels or channels of its own.
#[derive(Clone, Copy)]
pub(super) struct Target<'a, E = f32> {
    /// From the first channel block of the first image on.
    pub values: Shared<'a, E>,
    /// Elements from one image to the next.
    pub image: usize,
    /// Elements from one channel block to the next.
    pub plane: usize,
    /// Channel blocks.
    pub blocks: usize,
    /// Images.
    pub batch: usize,
}

impl<'a, E: Element> Target<'a, E> {
    pub(super) fn of(planes: PlanesMut<'a, E>) -> Target<'a, E> {
        let (map, image, batch) = (*planes.map(), planes.image(), planes.batch());
        let (plane, blocks) = (map.plane(), map.blocks());
        Target { values: Shared::new(planes.into_values()), image, plane, blocks, batch }
    }

    /// The same, if it is f32.
    pub(super) fn of_f32(planes: PlanesMut<'a, E>) -> Option<Target<'a>> {
        let (map, image, batch) = (*planes.map(), planes.image(), planes.batch());
        let (plane, blocks) = (map.plane(), map.blocks());
        let values = Shared::new(E::as_f32_mut(planes.into_values())?);
        Some(Target { values, image, plane, blocks, batch })
    }
}
