//! Images as the first convolution reads them: `[n][h][w][8]`, of which five channels are zeros. cuDNN pads
//! to eight channels itself otherwise, in each step.

use super::arguments::{THREADS, alike, apart, bytes, count, flag, format, holds, is_wide};
use crate::device::Device;
use crate::error::DeviceError;
use crate::launch::{Cost, Launch, Scalar};
use crate::map::Map;
use crate::memory::Region;

/// Channels of an image in device memory.
pub const CHANNELS: usize = 8;

/// Levels `[n][h][w][3]`, one byte each, as the values of `table`, `[3][256]`.
pub fn levels(
    device: &mut dyn Device,
    levels: Region,
    table: Region,
    to: &Map,
) -> Result<(), DeviceError> {
    let pixels = check(to, &[levels, table]);
    holds(levels, 3 * pixels, 1, "levels");
    holds(table, 3 * 256, 4, "table of levels");
    // SAFETY: the kernel reads 3 levels of each pixel and the table, and writes CHANNELS values of each pixel.
    unsafe {
        device.launch(&Launch {
            kernel: "image_levels",
            blocks: pixels.div_ceil(THREADS),
            threads: THREADS,
            regions: &[levels, table, to.region],
            scalars: &[count(pixels), format(to.format), flag(is_wide(&[to], &[]))],
            cost: Cost { bytes: 3 * pixels + bytes(to), operations: 0 },
        })
    }
}

/// Values `[n][3][h][w]`.
pub fn values(device: &mut dyn Device, values: Region, to: &Map) -> Result<(), DeviceError> {
    let pixels = check(to, &[values]);
    holds(values, 3 * pixels, 4, "values");
    let scalars: [Scalar; 4] =
        [count(pixels), count(to.height * to.width), format(to.format), flag(is_wide(&[to], &[]))];
    // SAFETY: the kernel reads 3 values of each pixel, and writes CHANNELS of each.
    unsafe {
        device.launch(&Launch {
            kernel: "image_values",
            blocks: pixels.div_ceil(THREADS),
            threads: THREADS,
            regions: &[values, to.region],
            scalars: &scalars,
            cost: Cost { bytes: 12 * pixels + bytes(to), operations: 0 },
        })
    }
}

/// The pixels of `to`, if it is as images are and meets none of `read`.
fn check(to: &Map, read: &[Region]) -> usize {
    alike(&[(to, "images")]);
    assert_eq!((to.first, to.channels, to.stride), (0, CHANNELS, CHANNELS), "channels of images");
    apart(&[to.region], read);
    to.pixels()
}
