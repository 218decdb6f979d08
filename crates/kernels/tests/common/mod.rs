//! What the oracle tests share: seeded values, the blocked layout, and the comparison.
#![allow(dead_code)] // each test binary uses a part of it

use bninception_kernels::batch_norm::{Affine, BatchSums, Moments, Running};
use bninception_kernels::conv::ConvShape;
use bninception_kernels::map::{Map, View};
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;

/// Runs `test` for every instruction set of the machine with 1, 2 and 3 threads.
pub(crate) fn each_way(mut test: impl FnMut(Isa, &Team)) {
    for threads in 1..=3 {
        let team = Team::new(threads);
        for isa in Isa::available() {
            test(isa, &team);
        }
    }
}

/// A map of blocks of sixteen channels.
pub(crate) fn map(channels: usize, height: usize, width: usize) -> Map {
    Map { channels, height, width }
}

/// Values between -1 and 1 from a linear congruential generator (Knuth's MMIX constants).
pub(crate) fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Statistics of a batch, seeded.
pub(crate) fn moments(channels: usize) -> Moments {
    let mut moments = Moments::new(channels);
    let (mut mean, mut variance) = (vec![0.0; channels], vec![1.0; channels]);
    let sums: Vec<f64> = random(5, channels).iter().map(|&v| f64::from(v)).collect();
    let squares: Vec<f64> = random(6, channels).iter().map(|&v| f64::from(v) + 10.0).collect();
    let (gamma, beta) = (random(7, channels), random(8, channels));
    let running = Running { mean: &mut mean, variance: &mut variance, momentum: 0.1, bias: None };
    let sums = BatchSums { sums: &sums, squares: &squares, count: 10 };
    moments.update(sums, 1e-3, Affine { gamma: &gamma, beta: &beta }, running);
    moments
}

/// A batch of maps `[n][channel][row][column]`.
pub(crate) struct Plain {
    pub(crate) map: Map,
    pub(crate) batch: usize,
    pub(crate) values: Vec<f32>,
}

impl Plain {
    pub(crate) fn random(seed: u64, map: Map, batch: usize) -> Plain {
        Plain { map, batch, values: random(seed, batch * map.channels * map.height * map.width) }
    }

    pub(crate) fn index(&self, n: usize, channel: usize, row: usize, column: usize) -> usize {
        ((n * self.map.channels + channel) * self.map.height + row) * self.map.width + column
    }

    pub(crate) fn at(&self, n: usize, channel: usize, row: usize, column: usize) -> f64 {
        f64::from(self.values[self.index(n, channel, row, column)])
    }

    /// Calls `visit` with every (n, channel, row, column).
    pub(crate) fn each(&self, mut visit: impl FnMut(usize, usize, usize, usize)) {
        for n in 0..self.batch {
            for channel in 0..self.map.channels {
                for row in 0..self.map.height {
                    for column in 0..self.map.width {
                        visit(n, channel, row, column);
                    }
                }
            }
        }
    }

    fn offset(&self, view: View, n: usize, channel: usize, row: usize, column: usize) -> usize {
        let block = n * view.blocks + view.first + channel / 16;
        block * self.map.plane() + self.map.pixel(row, column) + channel % 16
    }

    /// The blocked buffer of `view` with these values; everything else, the halo and the guard
    /// too, is `rest`.
    pub(crate) fn blocked(&self, view: View, rest: f32) -> Vec<f32> {
        let whole = Map { channels: view.blocks * 16, ..self.map };
        let mut buffer = vec![rest; whole.buffer(self.batch)];
        self.each(|n, c, row, column| {
            buffer[self.offset(view, n, c, row, column)] =
                self.values[self.index(n, c, row, column)];
        });
        buffer
    }

    /// Reads the values of `view` back from a blocked buffer.
    pub(crate) fn read(map: Map, batch: usize, view: View, buffer: &[f32]) -> Plain {
        let len = batch * map.channels * map.height * map.width;
        let mut plain = Plain { map, batch, values: vec![0.0; len] };
        let mut values = Vec::with_capacity(len);
        plain.each(|n, c, row, column| values.push(buffer[plain.offset(view, n, c, row, column)]));
        plain.values = values;
        plain
    }
}

/// Views with nothing, something in front, and something on both sides of a map.
pub(crate) fn views(map: &Map) -> [View; 3] {
    let blocks = map.blocks();
    [
        View { blocks, first: 0 },
        View { blocks: blocks + 1, first: 1 },
        View { blocks: blocks + 3, first: 2 },
    ]
}

/// Asserts that every value is within `tolerance * (1 + |expected|)`.
pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(
            error <= tolerance * (1.0 + expected.abs()),
            "{what}, value {index}: found {found}, expected {expected}"
        );
    }
}

/// Asserts that a kernel that wrote `view` of a buffer filled with `rest` left the other planes
/// alone, and zeroed the halo of its own planes and the guard.
pub(crate) fn assert_surroundings(map: &Map, batch: usize, view: View, buffer: &[f32], rest: f32) {
    let plane = map.plane();
    for n in 0..batch {
        for block in 0..view.blocks {
            let plane_values = &buffer[(n * view.blocks + block) * plane..][..plane];
            if !(view.first..view.first + map.blocks()).contains(&block) {
                assert!(plane_values.iter().all(|&v| v == rest), "plane {block} is not the view's");
                continue;
            }
            let mut inside = vec![false; plane];
            for row in 0..map.height {
                inside[map.row(row)].fill(true);
            }
            let halo = plane_values.iter().zip(&inside).filter(|(_, inside)| !**inside);
            assert!(halo.clone().count() > 0);
            assert!(halo.into_iter().all(|(&value, _)| value == 0.0), "halo of plane {block}");
        }
    }
    assert!(buffer[batch * view.blocks * plane..].iter().all(|&value| value == 0.0), "guard");
}

/// A convolution of maps: images, channels in and out, rows and columns, and kernel, stride, padding.
pub(crate) fn shape(
    batch: usize,
    channels: (usize, usize),
    size: (usize, usize),
    filter: (usize, usize, usize),
) -> ConvShape {
    ConvShape {
        batch,
        in_channels: channels.0,
        out_channels: channels.1,
        in_height: size.0,
        in_width: size.1,
        kernel: filter.0,
        stride: filter.1,
        pad: filter.2,
    }
}

/// Shapes with everything that a tile can stumble over.
pub(crate) fn odd_shapes() -> Vec<ConvShape> {
    vec![
        shape(1, (16, 16), (1, 1), (1, 1, 0)),
        shape(3, (16, 48), (1, 1), (3, 1, 1)),
        shape(1, (48, 16), (13, 9), (3, 1, 1)),
        shape(2, (16, 48), (13, 9), (1, 1, 0)),
        shape(3, (48, 80), (2, 2), (3, 1, 1)),
        shape(5, (32, 32), (4, 4), (3, 1, 1)),
        shape(3, (32, 64), (8, 8), (3, 1, 1)),
        shape(2, (16, 32), (13, 9), (3, 2, 1)),
        shape(2, (32, 16), (8, 8), (3, 2, 1)),
        shape(1, (16, 16), (1, 1), (3, 2, 1)),
        shape(1, (16, 16), (2, 1), (3, 2, 1)),
        shape(2, (16, 32), (7, 6), (1, 2, 0)),
        shape(2, (16, 32), (9, 6), (5, 1, 2)),
        shape(1, (16, 16), (6, 5), (3, 1, 0)),
        shape(1, (16, 16), (6, 7), (3, 1, 2)),
        shape(1, (16, 16), (11, 10), (7, 3, 3)),
        shape(1, (16, 16), (16, 16), (1, 16, 0)), // fewer outputs than threads
        shape(2, (3, 48), (17, 12), (7, 2, 3)),
        shape(2, (1, 16), (9, 9), (3, 1, 1)),
        shape(1, (4, 32), (10, 11), (5, 2, 1)),
        shape(1, (4, 16), (9, 9), (4, 1, 0)), // rows of the filter that are a block,
        shape(1, (5, 16), (9, 9), (7, 1, 3)), // and more than two
        shape(1, (1, 16), (17, 17), (16, 1, 0)), // and of one row
        shape(2, (3, 32), (5, 4), (1, 1, 0)),
        shape(40, (48, 16), (3, 3), (3, 1, 1)), // chunks that begin and end within images
        shape(40, (16, 48), (5, 3), (3, 2, 1)),
        shape(1, (16, 32), (2, 700), (3, 1, 1)), // rows longer than a chunk
        shape(1, (32, 16), (1, 1000), (1, 1, 0)),
        shape(1, (3, 16), (9, 2000), (7, 2, 3)),
        shape(4, (16, 48), (45, 38), (3, 1, 1)), // sums of its own for each thread, in several blocks
    ]
}

/// The network's own shapes at 224 pixels with few images.
pub(crate) fn network_shapes() -> Vec<ConvShape> {
    vec![
        shape(1, (3, 64), (224, 224), (7, 2, 3)),
        shape(1, (64, 64), (56, 56), (1, 1, 0)),
        shape(1, (64, 192), (56, 56), (3, 1, 1)),
        shape(2, (192, 160), (28, 28), (1, 1, 0)),
        shape(2, (96, 96), (28, 28), (3, 1, 1)),
        shape(2, (128, 160), (28, 28), (3, 2, 1)),
        shape(2, (576, 224), (14, 14), (1, 1, 0)),
        shape(2, (128, 160), (14, 14), (3, 1, 1)),
        shape(2, (192, 256), (14, 14), (3, 1, 1)),
        shape(2, (256, 256), (14, 14), (3, 2, 1)),
        shape(3, (1024, 352), (7, 7), (1, 1, 0)),
        shape(3, (192, 320), (7, 7), (3, 1, 1)),
    ]
}
