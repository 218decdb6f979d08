//! Normalisation across channels against its definition in f64.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use bninception_cuda::Format;
use bninception_cuda::ops::lrn::{self, Lrn};
use common::*;

/// GoogLeNet's, with an alpha at which the neighbours count, and others.
const KINDS: [Lrn; 4] = [
    Lrn { size: 5, alpha: 1e-4, beta: 0.75 },
    Lrn { size: 5, alpha: 0.5, beta: 0.75 },
    Lrn { size: 1, alpha: 0.5, beta: 0.5 },
    Lrn { size: 33, alpha: 2.0, beta: 1.25 },
];

const SIZES: [[usize; 4]; 7] = [
    [1, 56, 56, 64],
    [1, 28, 28, 192],
    [2, 1, 1, 2048],
    [3, 1, 1, 1],
    [1, 3, 5, 24],
    [3, 7, 9, 10],
    [1, 9, 7, 3],
];

/// Sums over the channels around each.
fn around(values: &[f64], channels: usize, size: usize) -> Vec<f64> {
    let of = |index: usize| {
        let (pixel, c) = (index / channels * channels, index % channels);
        let range = c.saturating_sub(size / 2)..(c + size / 2 + 1).min(channels);
        values[pixel + range.start..pixel + range.end].iter().sum()
    };
    (0..values.len()).map(of).collect()
}

#[test]
fn values_and_gradients() {
    for shape in SIZES.into_iter().flat_map(variants) {
        for kind in KINDS {
            let mut random = Random::new(shape.len() as u64);
            let [x_values, dy_values, before] =
                [(); 3].map(|()| random.values(shape.len(), shape.format));
            let (alpha, beta) = (f64::from(kind.alpha), f64::from(kind.beta));
            let wide: Vec<f64> = x_values.iter().map(|&x| x.into()).collect();
            let squares: Vec<f64> = wide.iter().map(|x| x * x).collect();
            let scales: Vec<f64> = around(&squares, shape.channels, kind.size)
                .into_iter()
                .map(|sum| 1.0 + alpha / kind.size as f64 * sum)
                .collect();
            let expected: Vec<f64> =
                wide.iter().zip(&scales).map(|(x, scale)| x * scale.powf(-beta)).collect();
            let mut device = host(2);
            let x = put_map(&mut device, shape, &x_values);
            // Another place in memory than that of x.
            let y = new_map(&mut device, Shape { first: 0, stride: shape.channels + 8, ..shape });
            lrn::forward(&mut device, kind, &x, &y).unwrap();
            expect_near(&get_map(&mut device, &y), &expected, shape.format, 1e-6);

            let ratios: Vec<f64> = (0..shape.len())
                .map(|i| f64::from(dy_values[i]) * wide[i] * scales[i].powf(-beta - 1.0))
                .collect();
            let sums = around(&ratios, shape.channels, kind.size);
            let factor = 2.0 * alpha * beta / kind.size as f64;
            for accumulate in [false, true] {
                let dy = put_map(&mut device, shape, &dy_values);
                let dx = put_map(&mut device, shape, &before);
                lrn::backward(&mut device, kind, &x, &dy, &dx, accumulate).unwrap();
                let of = |i: usize| {
                    let value = f64::from(dy_values[i]) * scales[i].powf(-beta);
                    let before = if accumulate { f64::from(before[i]) } else { 0.0 };
                    value - factor * wide[i] * sums[i] + before
                };
                let expected: Vec<f64> = (0..shape.len()).map(of).collect();
                expect_near(&get_map(&mut device, &dx), &expected, shape.format, 4e-6);
                assert_eq!(get_map(&mut device, &dy), dy_values, "dy stays");
            }
        }
    }
}

#[test]
fn threads_never_change_a_bit() {
    let shape = Shape::whole([2, 56, 56, 64], Format::F32);
    let mut random = Random::new(2);
    let (x_values, dy_values) = (random.floats(shape.len()), random.floats(shape.len()));
    repeated(|device| {
        let (x, dy) = (put_map(device, shape, &x_values), put_map(device, shape, &dy_values));
        let (y, dx) = (new_map(device, shape), new_map(device, shape));
        lrn::forward(device, KINDS[1], &x, &y).unwrap();
        lrn::backward(device, KINDS[1], &x, &dy, &dx, false).unwrap();
        [get_map(device, &y), get_map(device, &dx)].concat()
    });
}
