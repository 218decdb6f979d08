//! Pools over windows of a map, and over all of it.

use super::arguments::{
    Division, THREADS, alike, apart, bytes, count, flag, format, holds, is_wide, maps_apart, start,
};
use crate::device::Device;
use crate::error::DeviceError;
use crate::launch::{Cost, Launch, Scalar};
use crate::map::Map;
use crate::memory::Region;

/// Pixels of a thread.
const PIXELS: usize = 4;

/// Windows over a map: `pad` places in front of it on both axes; how many windows there are, the output says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Rows and columns of a window.
    pub kernel: [usize; 2],
    /// Step between windows.
    pub stride: usize,
    /// Places in front of the first row and of the first column.
    pub pad: [usize; 2],
}

/// The largest value of each window; places outside the map never win, and the first of equal ones does, row by
/// row; a NaN always wins. `winners`, where it is given, is `[n][h][w][c]` of the output, a byte each: the place in
/// the window.
pub fn max(
    device: &mut dyn Device,
    windows: Windows,
    x: &Map,
    y: &Map,
    winners: Option<Region>,
) -> Result<(), DeviceError> {
    windows.check(x, y);
    maps_apart(y, x);
    if let Some(winners) = winners {
        windows.check_winners(y, winners);
        apart(&[winners], &[x.region, y.region]);
    }
    let division = Division::each(y.pixels(), y.channels, PIXELS);
    let mut scalars = windows.scalars(x, y, &division).to_vec();
    let wide = is_wide(&[x, y], winners.as_slice());
    scalars.extend([flag(winners.is_some()), format(x.format), flag(wide)]);
    let remembered = if winners.is_some() { y.len() } else { 0 };
    // SAFETY: the kernel reads values of x in windows that it clips to the map, and writes each of y and its winner.
    unsafe {
        device.launch(&Launch {
            kernel: "max_pool",
            blocks: division.blocks(),
            threads: THREADS,
            regions: &[start(x), start(y), winners.unwrap_or(start(y))],
            scalars: &scalars,
            cost: windows.cost(bytes(x) + bytes(y) + remembered, y),
        })
    }
}

/// Gradient of [`max`].
pub fn max_backward(
    device: &mut dyn Device,
    windows: Windows,
    dy: &Map,
    winners: Region,
    dx: &Map,
    accumulate: bool,
) -> Result<(), DeviceError> {
    windows.check(dx, dy);
    windows.check_winners(dy, winners);
    maps_apart(dx, dy);
    apart(&[dx.region], &[winners]);
    let division = Division::each(dx.pixels(), dx.channels, PIXELS);
    let mut scalars = windows.scalars(dx, dy, &division).to_vec();
    scalars.extend([flag(accumulate), format(dx.format), flag(is_wide(&[dx, dy], &[winners]))]);
    // SAFETY: the kernel reads values of dy and winners where a window covers a pixel, and writes each value of dx.
    unsafe {
        device.launch(&Launch {
            kernel: "max_pool_gradient",
            blocks: division.blocks(),
            threads: THREADS,
            regions: &[start(dy), winners, start(dx)],
            scalars: &scalars,
            cost: windows.cost(written(dx, accumulate) + bytes(dy) + dy.len(), dy),
        })
    }
}

/// The mean over `kernel[0] * kernel[1]` places of each window; those outside the map count as 0.
pub fn average(
    device: &mut dyn Device,
    windows: Windows,
    x: &Map,
    y: &Map,
) -> Result<(), DeviceError> {
    windows.check(x, y);
    maps_apart(y, x);
    let division = Division::each(y.pixels(), y.channels, PIXELS);
    let mut scalars = windows.scalars(x, y, &division).to_vec();
    scalars.extend([format(x.format), flag(is_wide(&[x, y], &[]))]);
    // SAFETY: the kernel reads values of x in windows that it clips to the map, and writes each value of y.
    unsafe {
        device.launch(&Launch {
            kernel: "average_pool",
            blocks: division.blocks(),
            threads: THREADS,
            regions: &[start(x), start(y)],
            scalars: &scalars,
            cost: windows.cost(bytes(x) + bytes(y), y),
        })
    }
}

/// Gradient of [`average`].
pub fn average_backward(
    device: &mut dyn Device,
    windows: Windows,
    dy: &Map,
    dx: &Map,
    accumulate: bool,
) -> Result<(), DeviceError> {
    windows.check(dx, dy);
    maps_apart(dx, dy);
    let division = Division::each(dx.pixels(), dx.channels, PIXELS);
    let mut scalars = windows.scalars(dx, dy, &division).to_vec();
    scalars.extend([flag(accumulate), format(dx.format), flag(is_wide(&[dx, dy], &[]))]);
    // SAFETY: the kernel reads values of dy where a window covers a pixel, and writes each value of dx.
    unsafe {
        device.launch(&Launch {
            kernel: "average_pool_gradient",
            blocks: division.blocks(),
            threads: THREADS,
            regions: &[start(dy), start(dx)],
            scalars: &scalars,
            cost: windows.cost(written(dx, accumulate) + bytes(dy), dy),
        })
    }
}

/// The mean of each channel over all pixels of an image: `features` is `[n][c]`.
pub fn global_average(
    device: &mut dyn Device,
    x: &Map,
    features: Region,
) -> Result<(), DeviceError> {
    alike(&[(x, "x")]);
    holds(features, x.batch * x.channels, 4, "features");
    apart(&[features], &[x.region]);
    let map = x.height * x.width;
    let division = Division::of_chunks(x.pixels(), x.channels, map);
    // SAFETY: the kernel reads each value of x, and writes a feature of each image and channel.
    unsafe {
        device.launch(&Launch {
            kernel: "global_average",
            blocks: division.blocks(),
            threads: THREADS,
            regions: &[start(x), features],
            scalars: &[
                count(x.batch),
                count(map),
                count(x.channels),
                count(x.stride),
                format(x.format),
                flag(is_wide(&[x], &[])),
            ],
            cost: Cost { bytes: bytes(x) + 4 * x.batch * x.channels, operations: x.len() },
        })
    }
}

/// Gradient of [`global_average`].
pub fn global_average_backward(
    device: &mut dyn Device,
    dfeatures: Region,
    dx: &Map,
    accumulate: bool,
) -> Result<(), DeviceError> {
    alike(&[(dx, "dx")]);
    holds(dfeatures, dx.batch * dx.channels, 4, "gradient of features");
    apart(&[dx.region], &[dfeatures]);
    let division = Division::each(dx.pixels(), dx.channels, PIXELS);
    // SAFETY: the kernel reads a number of each image and channel, and writes each value of dx.
    unsafe {
        device.launch(&Launch {
            kernel: "global_average_gradient",
            blocks: division.blocks(),
            threads: THREADS,
            regions: &[dfeatures, start(dx)],
            scalars: &[
                count(dx.batch),
                count(dx.height * dx.width),
                count(dx.channels),
                count(dx.stride),
                count(division.chunk),
                flag(accumulate),
                format(dx.format),
                flag(is_wide(&[dx], &[dfeatures])),
            ],
            cost: Cost {
                bytes: written(dx, accumulate) + 4 * dx.batch * dx.channels,
                operations: dx.len(),
            },
        })
    }
}

impl Windows {
    /// Panics unless `input` and `output` are alike, and each window begins inside or in front of the map and
    /// reaches into it.
    fn check(&self, input: &Map, output: &Map) {
        alike(&[(input, "input"), (output, "output")]);
        let axes = [(input.height, output.height, 0), (input.width, output.width, 1)];
        for (places, windows, axis) in axes {
            let (kernel, pad) = (self.kernel[axis], self.pad[axis]);
            let reaches = windows > 0 && (windows - 1) * self.stride < places + pad;
            assert!(
                reaches && self.stride > 0 && pad < kernel,
                "{windows} windows over {places} places: {self:?}"
            );
        }
    }

    /// Panics unless `winners` holds a byte of each output value, and a window's places fit it.
    fn check_winners(&self, output: &Map, winners: Region) {
        holds(winners, output.len(), 1, "winners");
        assert!(self.kernel[0] * self.kernel[1] <= 256, "more places than a byte counts: {self:?}");
    }

    fn scalars(&self, input: &Map, output: &Map, division: &Division) -> [Scalar; 14] {
        [
            count(input.batch),
            count(input.height),
            count(input.width),
            count(output.height),
            count(output.width),
            count(input.channels),
            count(input.stride),
            count(output.stride),
            count(self.kernel[0]),
            count(self.kernel[1]),
            count(self.stride),
            count(self.pad[0]),
            count(self.pad[1]),
            count(division.chunk),
        ]
    }

    /// What a pass costs that moves `bytes`: an operation for each place of each window.
    fn cost(&self, bytes: usize, output: &Map) -> Cost {
        Cost { bytes, operations: output.len() * self.kernel[0] * self.kernel[1] }
    }
}

/// Bytes of a map that is written, and read before where it accumulates.
fn written(map: &Map, accumulate: bool) -> usize {
    bytes(map) * if accumulate { 2 } else { 1 }
}
