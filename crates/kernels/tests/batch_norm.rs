//! Batch norm and the plain nonlinearities against their definitions in f64.

mod common;

use bninception_kernels::activation::{self, Activation};
use bninception_kernels::batch_norm::{
    Affine, AffineGradient, BatchSums, GradientSums, MergedMoments, Moments, Running, backward,
    gradient_sums, input_gradient, normalise,
};
use bninception_kernels::dtype::Dtype;
use bninception_kernels::map::Map;
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::run::Run;
use common::{Plain, assert_close, assert_surroundings, each_way, map, random, views};

/// Rounding of the f32 passes over values of size one.
const TOLERANCE: f64 = 2e-5;
const EPSILON: f64 = 1e-3;
const MOMENTUM: f64 = 0.1;

/// Sizes with their batch: the network's widths at small extents, odd extents, a single pixel.
const CASES: [(usize, usize, usize, usize); 5] =
    [(64, 13, 9, 3), (96, 7, 7, 2), (16, 1, 1, 4), (32, 28, 28, 1), (48, 2, 2, 5)];

fn activate(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::Relu => z.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-z).exp()),
    }
}

fn slope(activation: Activation, z: f64) -> f64 {
    match activation {
        Activation::Relu => f64::from(z > 0.0),
        Activation::Sigmoid => activate(activation, z) * (1.0 - activate(activation, z)),
    }
}

/// Mean and biased variance of each channel.
fn statistics(x: &Plain) -> (Vec<f64>, Vec<f64>) {
    let count = (x.values.len() / x.map.channels) as f64;
    let mut mean = vec![0.0; x.map.channels];
    x.each(|n, c, row, column| mean[c] += x.at(n, c, row, column) / count);
    let mut variance = vec![0.0; x.map.channels];
    x.each(|n, c, row, column| variance[c] += (x.at(n, c, row, column) - mean[c]).powi(2) / count);
    (mean, variance)
}

/// The layer's state for `x`, with the oracle's running statistics checked on the way.
fn moments(x: &Plain, gamma: &[f32], beta: &[f32]) -> Moments {
    let channels = x.map.channels;
    let count = x.values.len() / channels;
    let (mut sums, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
    x.each(|n, c, row, column| {
        sums[c] += x.at(n, c, row, column);
        squares[c] += x.at(n, c, row, column).powi(2);
    });
    let (mean, variance) = statistics(x);
    let bias = random(9, channels);
    let (old_mean, old_variance) = (random(10, channels), vec![1.0; channels]);
    let (mut running_mean, mut running_variance) = (old_mean.clone(), old_variance.clone());
    let mut moments = Moments::new(channels);
    let running = Running {
        mean: &mut running_mean,
        variance: &mut running_variance,
        momentum: MOMENTUM,
        bias: Some(&bias),
    };
    let sums = BatchSums { sums: &sums, squares: &squares, count };
    moments.update(sums, EPSILON, Affine { gamma, beta }, running);
    let blend = |old: f32, new: f64| f64::from(old) * (1.0 - MOMENTUM) + new * MOMENTUM;
    let unbiased = count as f64 / (count - 1) as f64;
    let expected_mean: Vec<f64> =
        (0..channels).map(|c| blend(old_mean[c], mean[c] + f64::from(bias[c]))).collect();
    let expected_variance: Vec<f64> =
        (0..channels).map(|c| blend(old_variance[c], variance[c] * unbiased)).collect();
    assert_close("running mean", &running_mean, &expected_mean, 1e-6);
    assert_close("running variance", &running_variance, &expected_variance, 1e-6);
    moments
}

/// Expected y, dx, dgamma, dbeta.
fn oracle(
    activation: Activation,
    x: &Plain,
    dy: &Plain,
    gamma: &[f32],
    beta: &[f32],
) -> (Vec<f64>, Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mean, variance) = statistics(x);
    let count = (x.values.len() / x.map.channels) as f64;
    let inv_std = |c: usize| 1.0 / (variance[c] + EPSILON).sqrt();
    let xhat = |n, c: usize, row, column| (x.at(n, c, row, column) - mean[c]) * inv_std(c);
    let z = |n, c: usize, row, column| {
        f64::from(gamma[c]) * xhat(n, c, row, column) + f64::from(beta[c])
    };
    let dz = |n, c, row, column| dy.at(n, c, row, column) * slope(activation, z(n, c, row, column));
    let (mut dgamma, mut dbeta) = (vec![0.0; x.map.channels], vec![0.0; x.map.channels]);
    let mut y = Vec::new();
    x.each(|n, c, row, column| {
        y.push(activate(activation, z(n, c, row, column)));
        dgamma[c] += dz(n, c, row, column) * xhat(n, c, row, column);
        dbeta[c] += dz(n, c, row, column);
    });
    let mut dx = Vec::new();
    x.each(|n, c, row, column| {
        let centred =
            dz(n, c, row, column) - dbeta[c] / count - xhat(n, c, row, column) * dgamma[c] / count;
        dx.push(f64::from(gamma[c]) * inv_std(c) * centred);
    });
    (y, dx, dgamma, dbeta)
}

#[test]
fn training_passes_match_the_definition() {
    for (channels, height, width, batch) in CASES {
        let map = map(channels, height, width);
        let (x, dy) = (Plain::random(1, map, batch), Plain::random(2, map, batch));
        let (gamma, beta) = (random(3, channels), random(4, channels));
        let moments = moments(&x, &gamma, &beta);
        for activation in [Activation::Relu, Activation::Sigmoid] {
            let (y, dx, dgamma, dbeta) = oracle(activation, &x, &dy, &gamma, &beta);
            let mut first_bits: Option<Vec<f32>> = None;
            each_way(|isa, team| {
                let what = format!("{activation:?} {map:?} {isa:?} {} threads", team.len());
                for view in views(&map) {
                    let mut x_buffer = x.blocked(view, 7.0);
                    let mut y_buffer = vec![7.0; x_buffer.len()];
                    let run = Run { team, isa, dtype: Dtype::F32 };
                    normalise(
                        run,
                        activation,
                        &moments,
                        Planes::new(&x_buffer, &map, view, batch),
                        PlanesMut::new(&mut y_buffer, &map, view, batch),
                    );
                    let found = Plain::read(map, batch, view, &y_buffer);
                    assert_close(&what, &found.values, &y, TOLERANCE);
                    assert_surroundings(&map, batch, view, &y_buffer, 7.0);

                    let dy_buffer = dy.blocked(view, 7.0);
                    let (mut found_dgamma, mut found_dbeta) =
                        (vec![7.0; channels], vec![7.0; channels]);
                    let mut partial = vec![7.0; 2 * batch * channels];
                    backward(
                        run,
                        activation,
                        &moments,
                        Planes::new(&dy_buffer, &map, view, batch),
                        PlanesMut::new(&mut x_buffer, &map, view, batch),
                        AffineGradient { gamma: &mut found_dgamma, beta: &mut found_dbeta },
                        &mut partial,
                    );
                    assert_close(&format!("dgamma, {what}"), &found_dgamma, &dgamma, TOLERANCE);
                    assert_close(&format!("dbeta, {what}"), &found_dbeta, &dbeta, TOLERANCE);
                    // 1 / sqrt(epsilon) bounds the multiplier of a channel without variance.
                    let found = Plain::read(map, batch, view, &x_buffer);
                    assert_close(&format!("dx, {what}"), &found.values, &dx, 30.0 * TOLERANCE);
                    assert_surroundings(&map, batch, view, &x_buffer, 7.0);
                    match &first_bits {
                        Some(bits) => assert_eq!(bits, &found.values, "bits, {what}"),
                        None => first_bits = Some(found.values),
                    }
                }
            });
        }
    }
}

#[test]
fn groups_of_channels_that_fill_the_cache_change_nothing() {
    // 40 images of 8 blocks of 30x30 exceed the cache limit several times.
    let map = map(128, 30, 30);
    let batch = 40;
    let (x, dy) = (Plain::random(1, map, batch), Plain::random(2, map, batch));
    let (gamma, beta) = (random(3, 128), random(4, 128));
    let (_, dx, dgamma, dbeta) = oracle(Activation::Relu, &x, &dy, &gamma, &beta);
    let moments = moments(&x, &gamma, &beta);
    let view = views(&map)[2];
    let mut buffer = x.blocked(view, 0.0);
    let (mut found_dgamma, mut found_dbeta) = (vec![0.0; 128], vec![0.0; 128]);
    let mut partial = vec![0.0; 2 * batch * 128];
    let team = bninception_kernels::team::Team::new(2);
    let isa = bninception_kernels::simd::Isa::chosen();
    backward(
        Run { team: &team, isa, dtype: Dtype::F32 },
        Activation::Relu,
        &moments,
        Planes::new(&dy.blocked(view, 0.0), &map, view, batch),
        PlanesMut::new(&mut buffer, &map, view, batch),
        AffineGradient { gamma: &mut found_dgamma, beta: &mut found_dbeta },
        &mut partial,
    );
    // Sums of 36,000 values of size one.
    assert_close("dgamma", &found_dgamma, &dgamma, 1e-4);
    assert_close("dbeta", &found_dbeta, &dbeta, 1e-4);
    let found = Plain::read(map, batch, view, &buffer);
    assert_close("dx", &found.values, &dx, TOLERANCE);
}

#[test]
fn gradient_without_batch_norm_matches_the_definition() {
    for (channels, height, width, batch) in CASES {
        let map: Map = map(channels, height, width);
        let (z, dy) = (Plain::random(1, map, batch), Plain::random(2, map, batch));
        for activation in [Activation::Relu, Activation::Sigmoid] {
            let mut y = Plain::random(1, map, batch);
            for value in &mut y.values {
                *value = activate(activation, f64::from(*value)) as f32;
            }
            let (mut dz, mut dbias) = (Vec::new(), vec![0.0; channels]);
            z.each(|n, c, row, column| {
                let value = dy.at(n, c, row, column) * slope(activation, z.at(n, c, row, column));
                dz.push(value);
                dbias[c] += value;
            });
            each_way(|isa, team| {
                let what = format!("{activation:?} {map:?} {isa:?} {} threads", team.len());
                for view in views(&map) {
                    let mut buffer = dy.blocked(view, 7.0);
                    let mut found_dbias = vec![7.0; channels];
                    let mut partial = vec![7.0; batch * channels];
                    activation::backward(
                        Run { team, isa, dtype: Dtype::F32 },
                        activation,
                        Planes::new(&y.blocked(view, 7.0), &map, view, batch),
                        PlanesMut::new(&mut buffer, &map, view, batch),
                        &mut found_dbias,
                        &mut partial,
                    );
                    let found = Plain::read(map, batch, view, &buffer);
                    assert_close(&what, &found.values, &dz, TOLERANCE);
                    assert_close(&format!("bias, {what}"), &found_dbias, &dbias, TOLERANCE);
                    assert_surroundings(&map, batch, view, &buffer, 7.0);
                }
            });
        }
    }
}

/// Two processes with 4 and 3 images of the same 7.
#[test]
fn parts_of_a_batch_with_merged_statistics_match_the_definition() {
    let of_part = |x: &Plain, images: std::ops::Range<usize>| {
        let image = x.values.len() / x.batch;
        let values = x.values[images.start * image..images.end * image].to_vec();
        Plain { map: x.map, batch: images.len(), values }
    };
    for (channels, height, width, _) in CASES {
        let map = map(channels, height, width);
        let (x, dy) = (Plain::random(1, map, 7), Plain::random(2, map, 7));
        let (gamma, beta) = (random(3, channels), random(4, channels));
        let (mean, variance) = statistics(&x);
        let count = (7 * height * width) as f64;
        let m2: Vec<f64> = variance.iter().map(|variance| variance * count).collect();
        let (mut running_mean, mut running_variance) = (vec![0.0; channels], vec![0.0; channels]);
        let mut moments = Moments::new(channels);
        moments.update_merged(
            MergedMoments { mean: &mean, m2: &m2, count },
            EPSILON,
            Affine { gamma: &gamma, beta: &beta },
            Running {
                mean: &mut running_mean,
                variance: &mut running_variance,
                momentum: 1.0,
                bias: None,
            },
        );
        assert_close("running mean", &running_mean, &mean, 1e-6);
        let unbiased: Vec<f64> = m2.iter().map(|m2| m2 / (count - 1.0)).collect();
        assert_close("running variance", &running_variance, &unbiased, 1e-6);

        let view = views(&map)[2];
        for activation in [Activation::Relu, Activation::Sigmoid] {
            let (_, dx, dgamma, dbeta) = oracle(activation, &x, &dy, &gamma, &beta);
            each_way(|isa, team| {
                let what = format!("{activation:?} {map:?} {isa:?} {} threads", team.len());
                let run = Run { team, isa, dtype: Dtype::F32 };
                let (mut betas, mut gammas) = (vec![0.0; channels], vec![0.0; channels]);
                for part in [0..4, 4..7] {
                    let batch = part.len();
                    let (x, dy) = (of_part(&x, part.clone()), of_part(&dy, part));
                    let (mut beta, mut gamma) = (vec![7.0; channels], vec![7.0; channels]);
                    gradient_sums(
                        run,
                        activation,
                        &moments,
                        Planes::new(&dy.blocked(view, 7.0), &map, view, batch),
                        Planes::new(&x.blocked(view, 7.0), &map, view, batch),
                        [&mut beta, &mut gamma],
                        &mut vec![7.0; 2 * batch * channels],
                    );
                    betas.iter_mut().zip(&beta).for_each(|(sum, value)| *sum += value);
                    gammas.iter_mut().zip(&gamma).for_each(|(sum, value)| *sum += value);
                }
                let f32s = |values: &[f64]| -> Vec<f32> {
                    values.iter().map(|&value| value as f32).collect()
                };
                assert_close(&format!("dgamma, {what}"), &f32s(&gammas), &dgamma, TOLERANCE);
                assert_close(&format!("dbeta, {what}"), &f32s(&betas), &dbeta, TOLERANCE);
                let mut found = Vec::new();
                for part in [0..4, 4..7] {
                    let batch = part.len();
                    let (x, dy) = (of_part(&x, part.clone()), of_part(&dy, part));
                    let mut buffer = x.blocked(view, 7.0);
                    input_gradient(
                        run,
                        activation,
                        &moments,
                        Planes::new(&dy.blocked(view, 7.0), &map, view, batch),
                        PlanesMut::new(&mut buffer, &map, view, batch),
                        GradientSums { beta: &betas, gamma: &gammas, count },
                    );
                    found.extend(Plain::read(map, batch, view, &buffer).values);
                    assert_surroundings(&map, batch, view, &buffer, 7.0);
                }
                assert_close(&format!("dx, {what}"), &found, &dx, 30.0 * TOLERANCE);
            });
        }
    }
}
