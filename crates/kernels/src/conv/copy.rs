//! Copies of a source that the kernels cannot read in place: images, and maps whose halo of one
//! pixel is narrower than the filter's reach.

use super::geometry::Layout;
use super::kernel::Kernel;
use super::shape::ConvShape;
use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::BLOCK;
use crate::planes::Planes;
use crate::simd::vector::Vector;
use crate::team::share::Shared;
use crate::team::units::Member;

/// Copies this member's share of the planes of `source` into `copy`, `layout` with its wider zero border.
pub(super) fn with_border<E: Element>(
    source: Planes<'_, E>,
    layout: &Layout,
    copy: Shared<'_, E>,
    member: Member,
) {
    let map = source.map();
    for plane in member.part(source.batch() * map.blocks()) {
        let from = source.plane(plane);
        // SAFETY: each plane belongs to one member.
        let to = unsafe { copy.slice(plane * layout.plane..(plane + 1) * layout.plane) };
        to.fill(E::default());
        for row in 0..map.height {
            let pixels = map.width * BLOCK;
            to[layout.at(row as isize, 0)..][..pixels]
                .copy_from_slice(&from[map.pixel(row, 0)..][..pixels]);
        }
    }
}

/// Images on their way from NCHW into `[height + 2 pad][width + 2 pad][channels]`, rounded to `dtype`, ready
/// to run.
pub(super) struct PackImage<'a, E> {
    pub shape: &'a ConvShape,
    pub layout: &'a Layout,
    pub dtype: Dtype,
    pub images: &'a [f32],
    pub packed: Shared<'a, E>,
    pub member: Member,
}

impl<E: Element> Kernel for PackImage<'_, E> {
    #[inline(always)]
    unsafe fn run<V, const PX: usize, const NI: usize, const NV: usize, const NB: usize>(&self)
    where
        V: Vector,
    {
        let PackImage { shape, layout, images, .. } = self;
        let (channels, height, width) = (shape.in_channels, shape.in_height, shape.in_width);
        let rounds = self.dtype == Dtype::Bf16 || E::DTYPE == Dtype::Bf16;
        // Values are rounded side by side, and then spread over the pixels.
        let (mut padded, mut rounded) = ([0.0; BLOCK], [E::default(); BLOCK]);
        for n in self.member.part(shape.batch) {
            // SAFETY: each image belongs to one member.
            let to = unsafe { self.packed.slice(n * layout.plane..(n + 1) * layout.plane) };
            to.fill(E::default());
            for row in 0..height {
                let line = &mut to[layout.at(row as isize, 0)..][..width * channels];
                for c in 0..channels {
                    let from = &images[((n * channels + c) * height + row) * width..][..width];
                    let pixels = line.chunks_mut(BLOCK * channels);
                    for (values, pixels) in from.chunks(BLOCK).zip(pixels) {
                        padded[..values.len()].copy_from_slice(values);
                        for first in (0..BLOCK).step_by(V::LANES) {
                            // SAFETY: the caller vouches for the instruction set; a vector lies in the
                            // block.
                            unsafe {
                                let value = V::load(padded.as_ptr().add(first));
                                let value = if rounds { value.round_to_bf16() } else { value };
                                E::store_cut(value, rounded.as_mut_ptr().add(first));
                            }
                        }
                        let pixels = pixels.chunks_exact_mut(channels).zip(rounded);
                        pixels.for_each(|(pixel, value)| pixel[c] = value);
                    }
                }
            }
        }
    }
}
