//! Copies of a source that the kernels cannot read in place: images, and maps whose halo of one
//! pixel is narrower than the filter's reach.

use super::geometry::Layout;
use super::share::Shared;
use super::{BLOCK, ConvShape, View};
use crate::dtype::{Dtype, round_to_bf16};
use crate::element::Element;
use crate::map::Map;
use crate::split::part;

/// Copies this thread's share of the planes of `view` into `layout` with its wider zero border.
pub(super) fn widen<E: Element>(
    map: &Map,
    view: View,
    batch: usize,
    layout: &Layout,
    source: &[E],
    copy: Shared<E>,
    thread: usize,
    threads: usize,
) {
    let blocks = map.blocks();
    for plane in part(batch * blocks, threads, thread) {
        let from = ((plane / blocks) * view.blocks + view.first + plane % blocks) * map.plane();
        let from = &source[from..][..map.plane()];
        // SAFETY: each plane belongs to one thread.
        let to = unsafe { copy.slice(plane * layout.plane..(plane + 1) * layout.plane) };
        to.fill(E::default());
        for row in 0..map.height {
            let pixels = map.width * BLOCK;
            to[layout.at(row as isize, 0)..][..pixels]
                .copy_from_slice(&from[map.pixel(row, 0)..][..pixels]);
        }
    }
}

/// Copies this thread's share of NCHW images into `[height + 2 pad][width + 2 pad][channels]`,
/// rounded to `dtype`.
pub(super) fn pack_image<E: Element>(
    shape: &ConvShape,
    layout: &Layout,
    dtype: Dtype,
    images: &[f32],
    packed: Shared<E>,
    thread: usize,
    threads: usize,
) {
    let (channels, height, width) = (shape.in_channels, shape.in_height, shape.in_width);
    for n in part(shape.batch, threads, thread) {
        // SAFETY: each image belongs to one thread.
        let to = unsafe { packed.slice(n * layout.plane..(n + 1) * layout.plane) };
        to.fill(E::default());
        for row in 0..height {
            let line = &mut to[layout.at(row as isize, 0)..][..width * channels];
            for c in 0..channels {
                let from = &images[((n * channels + c) * height + row) * width..][..width];
                let pixels = line.chunks_exact_mut(channels).zip(from);
                match dtype {
                    Dtype::F32 => pixels.for_each(|(pixel, &value)| pixel[c] = E::of(value)),
                    Dtype::Bf16 => {
                        pixels.for_each(|(pixel, &value)| pixel[c] = E::of(round_to_bf16(value)));
                    }
                }
            }
        }
    }
}
