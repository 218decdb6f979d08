//! Batch norm and nonlinearities against their definitions in f64.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use bninception_cuda::ops::batch_norm::{self, Activation, Affine, Running, Statistics};
use bninception_cuda::{Device, Format, Host, Map, Region};
use common::*;

const EPSILON: f64 = 1e-3;
const MOMENTUM: f32 = 0.25;

/// Layers of which everything is random.
struct Layer {
    shape: Shape,
    x: Vec<f32>,
    dy: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    bias: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
}

impl Layer {
    fn new(shape: Shape) -> Layer {
        let mut random = Random::new(shape.len() as u64);
        let channels = shape.channels;
        let mut x = random.values(shape.len(), shape.format);
        // Channels differ in mean and width.
        for (index, x) in x.iter_mut().enumerate() {
            let c = (index % channels) as f64;
            *x = nearest(shape.format, f64::from(*x) * (0.5 + c % 3.0) + (c % 5.0) - 2.0);
        }
        Layer {
            shape,
            x,
            dy: random.values(shape.len(), shape.format),
            gamma: random.floats(channels).iter().map(|value| 1.0 + value / 4.0).collect(),
            beta: random.floats(channels),
            bias: random.floats(channels),
            mean: random.floats(channels),
            variance: random.floats(channels).iter().map(|value| 1.0 + value * value).collect(),
        }
    }

    fn pixels(&self) -> usize {
        self.shape.len() / self.shape.channels
    }

    /// Mean and biased variance of each channel.
    fn statistics(&self) -> Vec<(f64, f64)> {
        let (channels, n) = (self.shape.channels, self.pixels() as f64);
        (0..channels)
            .map(|c| {
                let values = || self.x.iter().skip(c).step_by(channels).map(|&x| f64::from(x));
                let mean = values().sum::<f64>() / n;
                (mean, values().map(|x| (x - mean).powi(2)).sum::<f64>() / n)
            })
            .collect()
    }
}

fn put_affine(device: &mut Host, layer: &Layer) -> Affine {
    Affine { gamma: put_f32(device, &layer.gamma), beta: put_f32(device, &layer.beta) }
}

/// Moments of the batch and running statistics, `[mean, variance, moments]` one behind the other.
fn batch_moments(device: &mut Host, layer: &Layer, x: &Map) -> (Region, Vec<f32>) {
    let channels = layer.shape.channels;
    let from = Statistics {
        mean: put_f32(device, &layer.mean),
        variance: put_f32(device, &layer.variance),
    };
    let to = Statistics {
        mean: device.allocate(4 * channels).unwrap(),
        variance: device.allocate(4 * channels).unwrap(),
    };
    let running = Running {
        from,
        to,
        momentum: put_f32(device, &[MOMENTUM]),
        bias: Some(put_f32(device, &layer.bias)),
    };
    let affine = put_affine(device, layer);
    let moments = device.allocate(16 * channels).unwrap();
    let scratch = device.allocate(batch_norm::scratch_bytes(x)).unwrap();
    batch_norm::batch_moments(device, x, affine, EPSILON, &running, moments, scratch).unwrap();
    assert_eq!(get_f32(device, from.mean), layer.mean, "statistics before stay");
    let found = [to.mean, to.variance, moments].map(|region| get_f32(device, region)).concat();
    (moments, found)
}

#[test]
fn moments_of_a_batch() {
    for shape in SIZES.into_iter().flat_map(variants) {
        let layer = Layer::new(shape);
        let n = layer.pixels() as f64;
        let found = repeated(|device| {
            let x = put_map(device, shape, &layer.x);
            let (_, found) = batch_moments(device, &layer, &x);
            assert_eq!(get_map(device, &x), layer.x, "x stays");
            found
        });
        let channels = shape.channels;
        let expected = layer.statistics();
        let old = |old: f32, new: f64| f64::from(old) * 0.75 + new * 0.25;
        let mut wanted = vec![0.0; 6 * channels];
        for (c, (mean, variance)) in expected.into_iter().enumerate() {
            let inv_std = 1.0 / (variance + EPSILON).sqrt();
            let multiplier = f64::from(layer.gamma[c]) * inv_std;
            let offset = f64::from(layer.beta[c]) - mean * multiplier;
            wanted[c] = old(layer.mean[c], mean + f64::from(layer.bias[c]));
            wanted[channels + c] = old(layer.variance[c], variance * n / (n - 1.0));
            wanted[2 * channels + 4 * c..][..4]
                .copy_from_slice(&[mean, inv_std, multiplier, offset]);
        }
        // A batch of two or three has variances near 0 and multipliers near 1 / sqrt(epsilon).
        expect_near(&found, &wanted, Format::F32, 2e-5);
    }
}

#[test]
fn a_mean_far_from_zero_leaves_the_variance() {
    let shape = Shape::whole([2, 56, 56, 24], Format::F32);
    let mut random = Random::new(1);
    let mut layer = Layer::new(shape);
    layer.x = (0..shape.len()).map(|_| (100.0 + 0.1 * random.normal()) as f32).collect();
    let mut device = host(2);
    let x = put_map(&mut device, shape, &layer.x);
    let (_, found) = batch_moments(&mut device, &layer, &x);
    for (c, (mean, variance)) in layer.statistics().into_iter().enumerate() {
        let [found_mean, inv_std] = [found[48 + 4 * c], found[48 + 4 * c + 1]].map(f64::from);
        let found_variance = inv_std.powi(-2) - EPSILON;
        assert!((found_mean - mean).abs() < 1e-5, "mean {found_mean}, expected {mean}");
        assert!((found_variance / variance - 1.0).abs() < 1e-4, "{found_variance}, {variance}");
    }
}

#[test]
fn a_value_that_is_no_number_reaches_moments_and_statistics_of_its_channel_alone() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut layer = Layer::new(Shape::whole([1, 9, 7, 16], Format::Bf16));
        layer.x[16 * 40 + 5] = bad;
        let mut device = host(1);
        let x = put_map(&mut device, layer.shape, &layer.x);
        let (_, found) = batch_moments(&mut device, &layer, &x);
        for (index, value) in found.iter().enumerate() {
            let channel = if index < 32 { index % 16 } else { (index - 32) / 4 };
            assert_eq!(value.is_finite(), channel != 5, "{bad}: number {index} is {value}");
        }
    }
}

#[test]
fn running_statistics_may_move_in_place() {
    let layer = Layer::new(Shape::whole([2, 3, 5, 24], Format::F32));
    let mut device = host(1);
    let x = put_map(&mut device, layer.shape, &layer.x);
    let (_, apart) = batch_moments(&mut device, &layer, &x);
    let statistics = Statistics {
        mean: put_f32(&mut device, &layer.mean),
        variance: put_f32(&mut device, &layer.variance),
    };
    let running = Running {
        from: statistics,
        to: statistics,
        momentum: put_f32(&mut device, &[MOMENTUM]),
        bias: None,
    };
    let affine = put_affine(&mut device, &layer);
    let moments = device.allocate(16 * 24).unwrap();
    let scratch = device.allocate(batch_norm::scratch_bytes(&x)).unwrap();
    batch_norm::batch_moments(&mut device, &x, affine, EPSILON, &running, moments, scratch)
        .unwrap();
    assert_eq!(get_f32(&mut device, statistics.variance), apart[24..48]);
    for (c, mean) in get_f32(&mut device, statistics.mean).into_iter().enumerate() {
        let expected = apart[c] - MOMENTUM * layer.bias[c];
        assert!((mean - expected).abs() < 1e-6, "{mean}, expected {expected}: there is no bias");
    }
}

#[test]
#[should_panic(expected = "the variance of 1 value")]
fn one_value_has_no_variance() {
    let layer = Layer::new(Shape::whole([1, 1, 1, 8], Format::F32));
    let mut device = host(1);
    let x = put_map(&mut device, layer.shape, &layer.x);
    batch_moments(&mut device, &layer, &x);
}

#[test]
fn moments_of_running_statistics_and_of_a_bias() {
    for channels in [1, 24, 300] {
        let layer = Layer::new(Shape::whole([1, 1, 2, channels], Format::F32));
        let mut device = host(1);
        let statistics = Statistics {
            mean: put_f32(&mut device, &layer.mean),
            variance: put_f32(&mut device, &layer.variance),
        };
        let affine = put_affine(&mut device, &layer);
        let bias = put_f32(&mut device, &layer.bias);
        let moments = device.allocate(16 * channels).unwrap();
        for bias in [None, Some(bias)] {
            batch_norm::running_moments(&mut device, affine, statistics, bias, EPSILON, moments)
                .unwrap();
            let mut expected = Vec::new();
            for c in 0..channels {
                let own = if bias.is_some() { f64::from(layer.bias[c]) } else { 0.0 };
                let mean = f64::from(layer.mean[c]) - own;
                let inv_std = 1.0 / (f64::from(layer.variance[c]) + EPSILON).sqrt();
                let multiplier = f64::from(layer.gamma[c]) * inv_std;
                let offset = f64::from(layer.beta[c]) - mean * multiplier;
                expected.extend([mean, inv_std, multiplier, offset]);
            }
            expect_near(&get_f32(&mut device, moments), &expected, Format::F32, 0.0);

            batch_norm::bias_moments(&mut device, channels, bias, moments).unwrap();
            let found = get_f32(&mut device, moments);
            for (c, found) in found.chunks_exact(4).enumerate() {
                let offset = if bias.is_some() { layer.bias[c] } else { 0.0 };
                assert_eq!(found, [0.0, 1.0, 1.0, offset]);
            }
        }
    }
}

fn value(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::Relu => z.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-z).exp()),
    }
}

fn slope(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::Relu => f64::from(z > 0.0),
        Activation::Sigmoid => value(activation, z) * (1.0 - value(activation, z)),
    }
}

/// z of each value, from the moments that the device has: of f32 as there, so that both agree where it is 0.
fn enters(layer: &Layer, moments: &[f32]) -> Vec<f64> {
    let of = |(index, x): (usize, &f32)| {
        let c = index % layer.shape.channels;
        f64::from(x * moments[4 * c + 2] + moments[4 * c + 3])
    };
    layer.x.iter().enumerate().map(of).collect()
}

/// Slices of x in slices of y: all pairs of places.
fn pairs() -> impl Iterator<Item = (Shape, Shape)> {
    SIZES.into_iter().flat_map(|sizes| {
        let shapes = variants(sizes);
        let pairs = |x: Shape| {
            let same = shapes.iter().filter(move |y| y.format == x.format);
            same.map(move |&y| (x, y)).collect::<Vec<_>>()
        };
        shapes.iter().flat_map(|&x| pairs(x)).collect::<Vec<_>>()
    })
}

#[test]
fn normalised_values() {
    for (shape, to) in pairs() {
        let layer = Layer::new(shape);
        for activation in [Activation::Relu, Activation::Sigmoid] {
            let mut device = host(2);
            let x = put_map(&mut device, shape, &layer.x);
            let (moments, found) = batch_moments(&mut device, &layer, &x);
            let z = enters(&layer, &found[2 * shape.channels..]);
            let y = new_map(&mut device, to);
            batch_norm::normalise(&mut device, activation, moments, &x, &y).unwrap();
            let expected: Vec<f64> = z.into_iter().map(|z| value(activation, z)).collect();
            expect_near(&get_map(&mut device, &y), &expected, shape.format, 3e-7);
            assert_eq!(get_map(&mut device, &x), layer.x, "x stays");

            batch_norm::normalise(&mut device, activation, moments, &x, &x).unwrap();
            assert_eq!(get_map(&mut device, &x), get_map(&mut device, &y), "in place");
        }
    }
}

#[test]
fn relu_passes_nan_on_and_stops_its_gradient() {
    let shape = Shape::whole([1, 1, 2, 8], Format::Bf16);
    let mut device = host(1);
    let mut values = [1.0_f32; 16];
    (values[3], values[4], values[5], values[6]) =
        (f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -2.0);
    let x = put_map(&mut device, shape, &values);
    let y = new_map(&mut device, shape);
    let moments = device.allocate(16 * 8).unwrap();
    batch_norm::bias_moments(&mut device, 8, None, moments).unwrap();
    batch_norm::normalise(&mut device, Activation::Relu, moments, &x, &y).unwrap();
    let found = get_map(&mut device, &y);
    assert!(found[3].is_nan());
    assert_eq!(found[4..7], [f32::INFINITY, 0.0, 0.0]);
    let dy = put_map(&mut device, shape, &[2.0; 16]);
    batch_norm::activation_gradient(&mut device, Activation::Relu, moments, &dy, &x).unwrap();
    assert_eq!(get_map(&mut device, &x)[2..8], [2.0, 0.0, 2.0, 0.0, 0.0, 2.0]);
}

/// Sums of dz and of dz * xhat, and the gradient of x through them.
fn gradients(layer: &Layer, activation: Activation, moments: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let (channels, n) = (layer.shape.channels, layer.pixels() as f64);
    let z = enters(layer, moments);
    let dz: Vec<f64> =
        z.iter().zip(&layer.dy).map(|(&z, &dy)| f64::from(dy) * slope(activation, z)).collect();
    let moment = |index: usize, number: usize| f64::from(moments[index % channels * 4 + number]);
    let xhat = |index: usize| (f64::from(layer.x[index]) - moment(index, 0)) * moment(index, 1);
    let mut sums = vec![0.0; 2 * channels];
    for (index, dz) in dz.iter().enumerate() {
        sums[index % channels] += dz;
        sums[channels + index % channels] += dz * xhat(index);
    }
    let dx = |(index, dz): (usize, &f64)| {
        let c = index % channels;
        moment(index, 2) * (dz - sums[c] / n - xhat(index) * sums[channels + c] / n)
    };
    let dx = dz.iter().enumerate().map(dx).collect();
    (sums, dx)
}

#[test]
fn gradients_through_a_batch() {
    for (shape, of_y) in pairs() {
        let layer = Layer::new(shape);
        let channels = shape.channels;
        for activation in [Activation::Relu, Activation::Sigmoid] {
            let mut device = host(2);
            let x = put_map(&mut device, shape, &layer.x);
            let dy = put_map(&mut device, of_y, &layer.dy);
            let (moments, found) = batch_moments(&mut device, &layer, &x);
            let (sums, dx) = gradients(&layer, activation, &found[2 * channels..]);
            let gradient = Affine {
                gamma: device.allocate(4 * channels).unwrap(),
                beta: device.allocate(4 * channels).unwrap(),
            };
            let scratch = device.allocate(batch_norm::scratch_bytes(&x)).unwrap();
            batch_norm::gradient_sums(&mut device, activation, moments, &dy, &x, gradient, scratch)
                .unwrap();
            let of_beta = get_f32(&mut device, gradient.beta);
            let found = [of_beta.clone(), get_f32(&mut device, gradient.gamma)].concat();
            expect_near(&found, &sums, Format::F32, 1e-6 * layer.pixels() as f64);
            assert_eq!(get_map(&mut device, &x), layer.x, "x stays");

            let alone = device.allocate(4 * channels).unwrap();
            batch_norm::bias_gradient(&mut device, activation, moments, &dy, &x, alone, scratch)
                .unwrap();
            assert_eq!(get_f32(&mut device, alone), of_beta);

            batch_norm::input_gradient(&mut device, activation, moments, &dy, &x, gradient)
                .unwrap();
            // Multipliers go up to 1 / sqrt(epsilon) where a batch has hardly any variance.
            expect_near(&get_map(&mut device, &x), &dx, shape.format, 1e-4);
            assert_eq!(get_map(&mut device, &dy), layer.dy, "dy stays");
        }
    }
}

#[test]
fn gradients_of_a_nonlinearity_alone() {
    for (shape, of_y) in pairs() {
        let layer = Layer::new(shape);
        for activation in [Activation::Relu, Activation::Sigmoid] {
            let mut device = host(2);
            let x = put_map(&mut device, shape, &layer.x);
            let dy = put_map(&mut device, of_y, &layer.dy);
            let moments = device.allocate(16 * shape.channels).unwrap();
            let bias = put_f32(&mut device, &layer.bias);
            batch_norm::bias_moments(&mut device, shape.channels, Some(bias), moments).unwrap();
            let z = enters(&layer, &get_f32(&mut device, moments));
            let expected: Vec<f64> = z
                .iter()
                .zip(&layer.dy)
                .map(|(&z, &dy)| f64::from(dy) * slope(activation, z))
                .collect();
            batch_norm::activation_gradient(&mut device, activation, moments, &dy, &x).unwrap();
            expect_near(&get_map(&mut device, &x), &expected, shape.format, 1e-6);
        }
    }
}

#[test]
fn threads_never_change_a_bit() {
    let shape = Shape::whole([2, 112, 112, 64], Format::F32);
    let layer = Layer::new(shape);
    repeated(|device| {
        let x = put_map(device, shape, &layer.x);
        let dy = put_map(device, shape, &layer.dy);
        let y = new_map(device, shape);
        let (moments, found) = batch_moments(device, &layer, &x);
        batch_norm::normalise(device, Activation::Relu, moments, &x, &y).unwrap();
        let gradient =
            Affine { gamma: device.allocate(256).unwrap(), beta: device.allocate(256).unwrap() };
        let scratch = device.allocate(batch_norm::scratch_bytes(&x)).unwrap();
        batch_norm::gradient_sums(device, Activation::Relu, moments, &dy, &x, gradient, scratch)
            .unwrap();
        batch_norm::input_gradient(device, Activation::Relu, moments, &dy, &x, gradient).unwrap();
        let maps = [get_map(device, &y), get_map(device, &x)];
        let sums = [gradient.gamma, gradient.beta].map(|region| get_f32(device, region));
        [found, maps.concat(), sums.concat()].concat()
    });
}

#[test]
#[should_panic(expected = "is written and meets")]
fn a_map_is_not_written_over_another() {
    let shape = Shape::whole([1, 2, 2, 16], Format::F32);
    let mut device = host(1);
    let x = put_map(&mut device, shape, &[0.0; 64]);
    let moments = device.allocate(16 * 8).unwrap();
    let (from, to) = (x.part(0, 8), x.part(4, 8));
    let _ = batch_norm::normalise(&mut device, Activation::Relu, moments, &from, &to);
}
