//! The same values in another order or format.

use super::arguments::{
    GROUP, PIECE, THREADS, alike, apart, bytes, count, flag, floats, format, holds, is_wide,
    maps_apart, start,
};
use crate::device::Device;
use crate::error::DeviceError;
use crate::launch::{Cost, Launch};
use crate::map::Map;
use crate::memory::Region;

/// Maps as `[n][c][h][w]` in f32.
pub fn to_planes(device: &mut dyn Device, x: &Map, planes: Region) -> Result<(), DeviceError> {
    alike(&[(x, "x")]);
    holds(planes, x.len(), 4, "planes");
    apart(&[planes], &[x.region]);
    // SAFETY: the kernel reads each value of x once and writes it once.
    unsafe {
        device.launch(&Launch {
            kernel: "to_planes",
            blocks: x.pixels().div_ceil(THREADS) * x.channels.div_ceil(GROUP),
            threads: THREADS,
            regions: &[start(x), planes],
            scalars: &[
                count(x.pixels()),
                count(x.height * x.width),
                count(x.channels),
                count(x.stride),
                format(x.format),
                flag(is_wide(&[x], &[])),
            ],
            cost: Cost { bytes: bytes(x) + 4 * x.len(), operations: 0 },
        })
    }
}

/// All values of an image as the channels of one pixel, channel by channel: `y` is `[n][1][1][c * h * w]`.
pub fn flatten(device: &mut dyn Device, x: &Map, y: &Map) -> Result<(), DeviceError> {
    check_flat(x, y);
    maps_apart(y, x);
    // SAFETY: the kernel reads each value of x once and writes it once to y.
    unsafe {
        device.launch(&Launch {
            kernel: "flatten",
            blocks: x.len().div_ceil(THREADS),
            threads: THREADS,
            regions: &[start(x), start(y)],
            scalars: &[
                count(x.len()),
                count(x.height * x.width),
                count(x.channels),
                count(x.stride),
                count(y.stride),
                format(x.format),
            ],
            cost: Cost { bytes: bytes(x) + bytes(y), operations: 0 },
        })
    }
}

/// Gradient of [`flatten`].
pub fn flatten_backward(
    device: &mut dyn Device,
    dy: &Map,
    dx: &Map,
    accumulate: bool,
) -> Result<(), DeviceError> {
    check_flat(dx, dy);
    maps_apart(dx, dy);
    let again = if accumulate { bytes(dx) } else { 0 };
    // SAFETY: the kernel reads each value of dy once and writes each of dx once.
    unsafe {
        device.launch(&Launch {
            kernel: "flatten_gradient",
            blocks: dx.len().div_ceil(THREADS),
            threads: THREADS,
            regions: &[start(dy), start(dx)],
            scalars: &[
                count(dx.len()),
                count(dx.height * dx.width),
                count(dx.channels),
                count(dx.stride),
                count(dy.stride),
                flag(accumulate),
                format(dx.format),
            ],
            cost: Cost { bytes: bytes(dx) + bytes(dy) + again, operations: 0 },
        })
    }
}

/// Values of f32 rounded to bf16, to the nearest, of two the even one.
pub fn to_bf16(device: &mut dyn Device, from: Region, to: Region) -> Result<(), DeviceError> {
    let values = floats(from, "values");
    assert_eq!(to.bytes(), 2 * values, "bytes of {values} values in bf16");
    holds(to, values, 2, "values in bf16");
    apart(&[to], &[from]);
    // SAFETY: the kernel reads each value once and writes it once.
    unsafe {
        device.launch(&Launch {
            kernel: "to_bf16",
            blocks: values.div_ceil(PIECE),
            threads: THREADS,
            regions: &[from, to],
            scalars: &[count(values)],
            cost: Cost { bytes: 6 * values, operations: 0 },
        })
    }
}

/// Values of bf16 as f32, added to those in `to` if `accumulate`.
pub fn from_bf16(
    device: &mut dyn Device,
    from: Region,
    to: Region,
    accumulate: bool,
) -> Result<(), DeviceError> {
    let values = floats(to, "values");
    assert_eq!(from.bytes(), 2 * values, "bytes of {values} values in bf16");
    holds(from, values, 2, "values in bf16");
    apart(&[to], &[from]);
    let again = if accumulate { 4 * values } else { 0 };
    // SAFETY: the kernel reads each value once and writes it once.
    unsafe {
        device.launch(&Launch {
            kernel: "from_bf16",
            blocks: values.div_ceil(PIECE),
            threads: THREADS,
            regions: &[from, to],
            scalars: &[count(values), flag(accumulate)],
            cost: Cost { bytes: 6 * values + again, operations: 0 },
        })
    }
}

/// Panics unless `flat` has the values of `map` as channels of one pixel.
fn check_flat(map: &Map, flat: &Map) {
    alike(&[(map, "map")]);
    alike(&[(flat, "flat map")]);
    let of = |map: &Map, values: usize| (map.format, map.batch, values);
    assert_eq!(
        of(map, map.channels * map.height * map.width),
        of(flat, flat.channels),
        "format, images and values of an image of the flat map"
    );
    assert_eq!((flat.height, flat.width), (1, 1), "rows and columns of the flat map");
}
