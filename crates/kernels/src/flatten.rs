//! Whole maps as vectors: what a fully connected layer on a map reads.
//!
//! A map of `channels` x `height` x `width` becomes one of 1x1 with as many channels as it has
//! values, channel by channel and row by row, as PyTorch and Caffe flatten it. A fully connected
//! layer then is a 1x1 convolution. The maps are small (128 x 4 x 4), so plain loops do.

use crate::element::Element;
use crate::map::Map;
use crate::map::View;
use crate::simd::lanes::LANES;
use crate::team::pieces::{check_planes, plane, planes, split};
use crate::team::threads::Team;

/// The map of one pixel that holds all values of `map`.
pub fn flat(map: &Map) -> Map {
    Map { channels: map.channels * map.height * map.width, height: 1, width: 1, ..*map }
}

/// Copies the values of `x` to `y`, a buffer of [`flat`] maps. Writes whole planes of `y`, the halo
/// as zeros.
///
/// # Panics
/// If a buffer is too short for `batch` images of its view.
pub fn flatten<E: Element>(
    team: &Team,
    map: &Map,
    batch: usize,
    x: &[E],
    x_view: View,
    y: &mut [E],
    y_view: View,
) {
    check_planes(map, batch, x, x_view);
    let output = flat(map);
    let pixels = map.height * map.width;
    split(team, batch * output.blocks(), planes(&output, batch, y, y_view), |index, y| {
        y.fill(E::default());
        let (image, block) = (index / output.blocks(), index % output.blocks());
        let values = &mut y[output.row(0)];
        for (value, place) in values.iter_mut().zip(block * LANES..) {
            let (channel, pixel) = (place / pixels, place % pixels);
            let x = plane(map, x, x_view, image * map.blocks() + channel / LANES);
            *value = x[map.pixel(pixel / map.width, pixel % map.width) + channel % LANES];
        }
    });
}

/// Gradient of [`flatten`]: overwrites the pixels of `dx`, or adds to them.
///
/// # Panics
/// If a buffer is too short for `batch` images of its view.
pub fn flatten_backward<E: Element>(
    team: &Team,
    map: &Map,
    batch: usize,
    dy: &[E],
    dy_view: View,
    dx: &mut [E],
    dx_view: View,
    accumulate: bool,
) {
    let output = flat(map);
    check_planes(&output, batch, dy, dy_view);
    let pixels = map.height * map.width;
    split(team, batch * map.blocks(), planes(map, batch, dx, dx_view), |index, dx| {
        let (image, block) = (index / map.blocks(), index % map.blocks());
        for pixel in 0..pixels {
            let start = map.pixel(pixel / map.width, pixel % map.width);
            for (lane, dx) in dx[start..start + LANES].iter_mut().enumerate() {
                let place = (block * LANES + lane) * pixels + pixel;
                let dy = plane(&output, dy, dy_view, image * output.blocks() + place / LANES);
                let before = if accumulate { dx.value() } else { 0.0 };
                *dx = E::of(before + dy[output.pixel(0, 0) + place % LANES].value());
            }
        }
    });
}
