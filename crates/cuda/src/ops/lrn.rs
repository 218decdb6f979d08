//! Normalisation across channels: `y = x * scale^-beta` with `scale = 1 + alpha / size * sum of x^2` over
//! the `size` channels around each.

use super::arguments::{
    GROUP, THREADS, bytes, congruent, count, flag, format, is_wide, maps_apart, start,
};
use crate::device::Device;
use crate::error::DeviceError;
use crate::launch::{Cost, Launch, Scalar};
use crate::map::Map;

/// Its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lrn {
    /// Channels summed over, the middle one included.
    pub size: usize,
    /// Weight of the mean square.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
}

/// Forward. The channels of a map that are meant are all that there are.
pub fn forward(device: &mut dyn Device, lrn: Lrn, x: &Map, y: &Map) -> Result<(), DeviceError> {
    congruent(&[(x, "x"), (y, "y")]);
    maps_apart(y, x);
    // SAFETY: the kernel reads each value of x and writes each of y.
    unsafe {
        device.launch(&Launch {
            kernel: "lrn",
            blocks: lrn.blocks(x),
            threads: THREADS,
            regions: &[start(x), start(y)],
            scalars: &[
                count(x.pixels()),
                count(x.channels),
                count(x.stride),
                count(y.stride),
                count(lrn.size),
                Scalar::F32(lrn.alpha),
                Scalar::F32(lrn.beta),
                format(x.format),
                flag(is_wide(&[x, y], &[])),
            ],
            cost: Cost { bytes: bytes(x) + bytes(y), operations: (2 * lrn.size + 6) * x.len() },
        })
    }
}

/// Its gradient.
pub fn backward(
    device: &mut dyn Device,
    lrn: Lrn,
    x: &Map,
    dy: &Map,
    dx: &Map,
    accumulate: bool,
) -> Result<(), DeviceError> {
    congruent(&[(x, "x"), (dy, "dy"), (dx, "dx")]);
    maps_apart(dx, x);
    maps_apart(dx, dy);
    let again = if accumulate { bytes(dx) } else { 0 };
    // SAFETY: the kernel reads each value of x and dy and writes each of dx.
    unsafe {
        device.launch(&Launch {
            kernel: "lrn_gradient",
            blocks: lrn.blocks(x),
            threads: THREADS,
            regions: &[start(x), start(dy), start(dx)],
            scalars: &[
                count(x.pixels()),
                count(x.channels),
                count(x.stride),
                count(dy.stride),
                count(dx.stride),
                count(lrn.size),
                Scalar::F32(lrn.alpha),
                Scalar::F32(lrn.beta),
                flag(accumulate),
                format(x.format),
                flag(is_wide(&[x, dy, dx], &[])),
            ],
            cost: Cost { bytes: 3 * bytes(x) + again, operations: (3 * lrn.size + 12) * x.len() },
        })
    }
}

impl Lrn {
    /// Blocks over the pixels of `x`, each of which holds whole ones.
    fn blocks(&self, x: &Map) -> usize {
        let groups = x.channels.div_ceil(GROUP);
        assert!(groups <= THREADS, "normalisation across {} channels", x.channels);
        assert!(self.size % 2 == 1, "normalisation over {} channels around one", self.size);
        x.pixels().div_ceil(THREADS / groups)
    }
}
