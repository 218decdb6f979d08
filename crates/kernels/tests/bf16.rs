//! Rounding to bf16: a kernel asked for it gives, bit by bit, the rounding of what it gives without;
//! so what the other tests show of f32 holds for it too.

mod common;

use bninception_kernels::activation::{self, Activation};
use bninception_kernels::batch_norm::{self, AffineGradient};
use bninception_kernels::conv::{Algorithm, Algorithms, Conv, ConvInput, ConvShape, Epilogue};
use bninception_kernels::dtype::{Dtype, round_to_bf16};
use bninception_kernels::lrn::{self, Lrn};
use bninception_kernels::map::{Map, View};
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::pool;
use bninception_kernels::run::Run;
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;

use common::{Plain, each_way, map, moments, random};

/// Channels, rows, columns, images.
const CASES: [(usize, usize, usize, usize); 3] = [(16, 1, 1, 3), (48, 7, 5, 2), (32, 28, 28, 1)];

/// What `pass` leaves in a buffer with bf16, beside the rounding of what it leaves with f32.
fn assert_rounded(what: &str, mut pass: impl FnMut(Dtype) -> Vec<f32>) {
    let (full, found) = (pass(Dtype::F32), pass(Dtype::Bf16));
    let bits = |values: &mut dyn Iterator<Item = f32>| values.map(f32::to_bits).collect::<Vec<_>>();
    let expected = bits(&mut full.iter().map(|&value| round_to_bf16(value)));
    assert_eq!(bits(&mut found.iter().copied()), expected, "{what}");
    assert_ne!(bits(&mut full.iter().copied()), expected, "{what}: nothing was there to round");
}

#[test]
fn pointwise_kernels_round_what_convolutions_read() {
    for (channels, height, width, batch) in CASES {
        let map: Map = map(channels, height, width);
        let view = View::whole(&map);
        let moments = moments(channels);
        let x = Plain::random(1, map, batch).blocked(view, 0.0);
        let dy = Plain::random(2, map, batch).blocked(view, 0.0);
        each_way(|isa, team| {
            for g in [Activation::Relu, Activation::Sigmoid] {
                let what =
                    |name: &str| format!("{name} {g:?} {map:?} {isa:?} {} threads", team.len());
                assert_rounded(&what("normalise"), |dtype| {
                    let mut y = vec![0.0; x.len()];
                    let y_maps = PlanesMut::whole(&mut y, &map, batch);
                    let x = Planes::whole(&x, &map, batch);
                    batch_norm::normalise(Run { team, isa, dtype }, g, &moments, x, y_maps);
                    y
                });
                assert_rounded(&what("batch norm's gradient"), |dtype| {
                    let mut x = x.clone();
                    let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
                    let mut partial = vec![0.0; 2 * batch * channels];
                    batch_norm::backward(
                        Run { team, isa, dtype },
                        g,
                        &moments,
                        Planes::whole(&dy, &map, batch),
                        PlanesMut::whole(&mut x, &map, batch),
                        AffineGradient { gamma: &mut dgamma, beta: &mut dbeta },
                        &mut partial,
                    );
                    x
                });
                assert_rounded(&what("gradient"), |dtype| {
                    let mut dy = dy.clone();
                    let (mut dbias, mut partial) =
                        (vec![0.0; channels], vec![0.0; batch * channels]);
                    activation::backward(
                        Run { team, isa, dtype },
                        g,
                        Planes::whole(&x, &map, batch),
                        PlanesMut::whole(&mut dy, &map, batch),
                        &mut dbias,
                        &mut partial,
                    );
                    dy
                });
            }
            assert_rounded(&format!("average pool {map:?} {isa:?}"), |dtype| {
                let mut y = vec![0.0; x.len()];
                let y_maps = PlanesMut::whole(&mut y, &map, batch);
                pool::average(Run { team, isa, dtype }, Planes::whole(&x, &map, batch), y_maps);
                y
            });
            assert_rounded(&format!("LRN {map:?} {isa:?}"), |dtype| {
                let mut y = vec![0.0; x.len()];
                let lrn = Lrn { size: 5, alpha: 1e-4, beta: 0.75 };
                let y_maps = PlanesMut::whole(&mut y, &map, batch);
                let x = Planes::whole(&x, &map, batch);
                lrn::forward(Run { team, isa, dtype }, &lrn, x, y_maps);
                y
            });
        });
    }
}

/// Shapes for both algorithms, strides 1 and 2, and an image.
fn shapes() -> [ConvShape; 4] {
    let shape = |in_channels, size, kernel, stride, pad| ConvShape {
        batch: 2,
        in_channels,
        out_channels: 48,
        in_height: size,
        in_width: size - 1,
        kernel,
        stride,
        pad,
    };
    [shape(32, 9, 3, 1, 1), shape(32, 9, 3, 2, 1), shape(48, 7, 1, 1, 0), shape(3, 19, 7, 2, 3)]
}

#[test]
fn convolutions_round_weights_images_and_finished_outputs() {
    for s in shapes() {
        for algorithm in [Algorithm::Direct, Algorithm::Winograd, Algorithm::Bf16] {
            if algorithm.supports(&s) {
                each_way(|isa, team| check_convolution(s, algorithm, isa, team));
            }
        }
    }
}

fn check_convolution(s: ConvShape, algorithm: Algorithm, isa: Isa, team: &Team) {
    let conv = |dtype| {
        Conv::with_algorithms(s, isa, team.len(), Algorithms::all(algorithm)).with_dtype(dtype)
    };
    let round = |values: &[f32]| values.iter().map(|&v| round_to_bf16(v)).collect::<Vec<_>>();
    let what = format!("{algorithm:?} {s:?} {isa:?} {} threads", team.len());
    let (weights, bias) = (random(3, s.weights()), random(4, s.out_channels));
    let (full, bf16) = (conv(Dtype::F32), conv(Dtype::Bf16));

    let mut x = Vec::new();
    let xv = View::whole(&s.in_map());
    if s.reads_image() {
        let images = random(1, s.batch * s.in_channels * s.in_height * s.in_width);
        let mut expected = vec![0.0; full.image_len()];
        full.pack_image(team, &round(&images), &mut expected);
        x = vec![0.0; bf16.image_len()];
        bf16.pack_image(team, &images, &mut x);
        assert_eq!(x, expected, "images, {what}");
    } else {
        x.extend(round(&Plain::random(1, s.in_map(), s.batch).blocked(xv, 0.0)));
    }

    let packed = |conv: &Conv, weights: &[f32]| {
        let mut packed = vec![0.0; conv.packed_len()];
        conv.pack(team, &[weights], &mut packed);
        packed
    };
    // Compared as bits, because pairs of bf16 numbers may look like a NaN.
    let bits = |packed: &[f32]| packed.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let rounded = packed(&bf16, &weights);
    assert_eq!(bits(&rounded), bits(&packed(&full, &round(&weights))), "weights, {what}");
    if !s.reads_image() {
        let packed = |conv: &Conv, weights: &[f32]| {
            let mut packed = vec![0.0; conv.packed_backward_len()];
            conv.pack_backward(team, &[weights], &mut packed);
            packed
        };
        let expected = bits(&packed(&full, &round(&weights)));
        assert_eq!(bits(&packed(&bf16, &weights)), expected, "weights backward, {what}");
    }

    let forward = |conv: &Conv, epilogue: Epilogue<'_>| {
        let map = s.out_map();
        let mut y = vec![0.0; map.buffer(s.batch)];
        let mut workspace = vec![0.0; conv.workspace_len()];
        let x = match s.reads_image() {
            true => ConvInput::Image(&x[..]),
            false => ConvInput::Maps(Planes::whole(&x, &s.in_map(), s.batch)),
        };
        let y_maps = PlanesMut::whole(&mut y, &map, s.batch);
        conv.forward(team, x, &rounded, y_maps, epilogue, &mut workspace);
        y
    };
    let mut sums = [vec![0.0; 2 * s.out_channels], vec![0.0; 2 * s.out_channels]];
    let [of_full, of_bf16] = &mut sums;
    let expected = forward(&full, Epilogue::Sums(of_full));
    assert_eq!(forward(&bf16, Epilogue::Sums(of_bf16)), expected, "outputs in f32, {what}");
    assert_eq!(sums[0], sums[1], "sums, {what}");
    assert_rounded(&format!("ReLU, {what}"), |dtype| {
        forward(if dtype == Dtype::F32 { &full } else { &bf16 }, Epilogue::BiasRelu(&bias))
    });
    assert_rounded(&format!("sigmoid, {what}"), |dtype| {
        forward(if dtype == Dtype::F32 { &full } else { &bf16 }, Epilogue::BiasSigmoid(&bias))
    });
}
