//! Maps in the layout that everybody knows.

use bninception_kernels::element::Element;
use bninception_kernels::map::BLOCK;
use bninception_kernels::planes::Planes;

/// Values, changed by `of(channel, value)`, as `[n][channel][row][column]`.
pub(super) fn plain<E: Element>(maps: Planes<'_, E>, of: impl Fn(usize, f32) -> f32) -> Vec<f32> {
    let (map, batch) = (maps.map(), maps.batch());
    let mut values = Vec::with_capacity(batch * map.channels * map.height * map.width);
    for image in 0..batch {
        for channel in 0..map.channels {
            let plane = maps.plane(image * map.blocks() + channel / BLOCK);
            for row in 0..map.height {
                let pixels = plane[map.row(row)].iter().skip(channel % BLOCK).step_by(BLOCK);
                values.extend(pixels.map(|value| of(channel, value.value())));
            }
        }
    }
    values
}
