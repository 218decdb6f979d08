//! Whole maps as vectors: what a fully connected layer on a map reads.
//!
//! A map of `channels` x `height` x `width` becomes one of 1x1 with as many channels as it has
//! values, channel by channel and row by row, as PyTorch and Caffe flatten it. A fully connected
//! layer then is a 1x1 convolution. The maps are small (128 x 4 x 4), so plain loops do.

use crate::element::Element;
use crate::map::{BLOCK, Map};
use crate::planes::{Planes, PlanesMut};
use crate::team::pieces::{planes, split};
use crate::team::threads::Team;

/// The map of one pixel that holds all values of `map`.
pub fn flat(map: &Map) -> Map {
    Map { channels: map.channels * map.height * map.width, height: 1, width: 1 }
}

/// Copies the values of `x`, `[n][c_block][h][w][16]`, to `y`, [`flat`] maps
/// (`[n][c_block][1][1][16]`). Writes whole planes of `y`, the halo as zeros.
///
/// # Panics
/// If `y` is not flat maps of `x`.
pub fn flatten<E: Element>(team: &Team, x: Planes<'_, E>, y: PlanesMut<'_, E>) {
    let (map, batch, output) = (x.map(), x.batch(), flat(x.map()));
    y.expect("y", &output, batch);
    let pixels = map.height * map.width;
    split(team, batch * output.blocks(), planes(y), |index, y| {
        y.fill(E::default());
        let (image, block) = (index / output.blocks(), index % output.blocks());
        let values = &mut y[output.row(0)];
        for (value, place) in values.iter_mut().zip(block * BLOCK..) {
            let (channel, pixel) = (place / pixels, place % pixels);
            let x = x.plane(image * map.blocks() + channel / BLOCK);
            *value = x[map.pixel(pixel / map.width, pixel % map.width) + channel % BLOCK];
        }
    });
}

/// Gradient of [`flatten`], from that of its output, `dy`, laid out as there: overwrites the pixels of `dx`
/// (`[n][c_block][h][w][16]`), or adds to them.
///
/// # Panics
/// If `dy` is not flat maps of `dx`.
pub fn flatten_backward<E: Element>(
    team: &Team,
    dy: Planes<'_, E>,
    dx: PlanesMut<'_, E>,
    accumulate: bool,
) {
    let (map, batch, output) = (*dx.map(), dx.batch(), flat(dx.map()));
    dy.expect("dy", &output, batch);
    let pixels = map.height * map.width;
    split(team, batch * map.blocks(), planes(dx), |index, dx| {
        let (image, block) = (index / map.blocks(), index % map.blocks());
        for pixel in 0..pixels {
            let start = map.pixel(pixel / map.width, pixel % map.width);
            for (lane, dx) in dx[start..start + BLOCK].iter_mut().enumerate() {
                let place = (block * BLOCK + lane) * pixels + pixel;
                let dy = dy.plane(image * output.blocks() + place / BLOCK);
                let before = if accumulate { dx.value() } else { 0.0 };
                *dx = E::of(before + dy[output.pixel(0, 0) + place % BLOCK].value());
            }
        }
    });
}
