//! Every convolution kernel against the definition in f64.
//!
//! A result `a` passes for the expected `b` if `|a - b| <= tolerance * scale`, with the largest
//! magnitude among the expected values checked as `scale`.

mod common;

use bninception_kernels::conv::reference::{backward_input_at, backward_weights_at, forward_at};
use bninception_kernels::conv::{Algorithm, Algorithms, Conv, ConvInput, ConvShape, Epilogue};
use bninception_kernels::dtype::round_to_bf16;
use bninception_kernels::map::{BLOCK, Map, View};
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;

use common::{network_shapes, odd_shapes, shape};

/// Rounding of a sum of a few thousand products in f32; with bf16 factors the products are exact.
const DIRECT: f64 = 1e-5;
/// Winograd F(4x4, 3x3) multiplies by constants up to 8 and subtracts; about ten times as much.
const WINOGRAD: f64 = 1e-4;

/// A small generator with the same values on every machine (Steele et al. 2014, SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }
}

/// What a convolution reads in a buffer of maps or of images.
fn input_of<'a>(s: &ConvShape, values: &'a [f32], view: View) -> ConvInput<'a, f32> {
    match s.reads_image() {
        true => ConvInput::Image(values),
        false => ConvInput::Maps(Planes::new(values, &s.in_map(), view, s.batch)),
    }
}

/// Offset of an element of the channels that `view` shows.
fn element(map: &Map, view: View, n: usize, c: usize, row: usize, column: usize) -> usize {
    (n * view.blocks + view.first + c / BLOCK) * map.plane() + map.pixel(row, column) + c % BLOCK
}

/// A buffer of `batch` images with room for `view`, all elements `fill`.
fn buffer(map: &Map, batch: usize, view: View, fill: f32) -> Vec<f32> {
    vec![fill; Map { channels: view.blocks * BLOCK, ..*map }.buffer(batch)]
}

/// Indices of `count` values: all if there are few, else the first, the last and a random choice.
fn sample(random: &mut Random, count: usize, limit: usize) -> Vec<usize> {
    if count <= limit {
        return (0..count).collect();
    }
    let mut chosen: Vec<usize> = (0..limit).map(|_| random.below(count)).collect();
    chosen.extend([0, count - 1]);
    chosen
}

/// (n, c, row, column) of element `index` of an NCHW tensor.
fn split(map: &Map, index: usize) -> (usize, usize, usize, usize) {
    let (rest, column) = (index / map.width, index % map.width);
    let (rest, row) = (rest / map.height, rest % map.height);
    (rest / map.channels, rest % map.channels, row, column)
}

fn assert_close(what: &str, tolerance: f64, pairs: &[(f64, f64)]) {
    let scale = pairs.iter().map(|p| p.1.abs()).fold(0.0, f64::max);
    for (i, (found, expected)) in pairs.iter().enumerate() {
        assert!(
            (found - expected).abs() <= tolerance * scale,
            "{what}: value {i} is {found} and should be {expected} (scale {scale})"
        );
    }
}

/// A convolution with operands in both layouts. Blocked x and y lie inside wider maps.
struct Fixture {
    conv: Conv,
    team: Team,
    name: String,
    tolerance: f64,
    weights: Vec<f32>,
    images: Vec<f32>,
    gradients: Vec<f32>,
    x: Vec<f32>,
    xv: View,
    dy: Vec<f32>,
    yv: View,
    workspace: Vec<f32>,
    random: Random,
}

impl Fixture {
    fn new(s: ConvShape, isa: Isa, threads: usize, algorithm: Algorithm) -> Fixture {
        let conv = Conv::with_algorithms(s, isa, threads, Algorithms::all(algorithm));
        let team = Team::new(threads);
        let mut random = Random(7);
        let fan_in = (s.in_channels * s.taps()) as f32;
        // Factors that are bf16 numbers leave the rounding of sums alone to be seen.
        let factors = |values: Vec<f32>| match algorithm {
            Algorithm::Bf16 => values.into_iter().map(round_to_bf16).collect(),
            _ => values,
        };
        let weights = random.values(s.weights()).into_iter().map(|w| w * (3.0 / fan_in).sqrt());
        let weights = factors(weights.collect());
        let (in_map, out_map) = (s.in_map(), s.out_map());
        let mut values = |len| factors(random.values(len));
        let images = values(s.batch * s.in_channels * s.in_height * s.in_width);
        let gradients = values(s.batch * s.out_channels * s.out_height() * s.out_width());
        let xv = View { blocks: in_map.blocks() + 3, first: 2 };
        let yv = View { blocks: out_map.blocks() + 2, first: 1 };
        let blocked = |map: &Map, view: View, from: &[f32]| {
            // What lies outside the view must not matter.
            let mut to = buffer(map, s.batch, view, f32::NAN);
            PlanesMut::new(&mut to, map, view, s.batch).zero_halo();
            for (index, value) in from.iter().enumerate() {
                let (n, c, row, column) = split(map, index);
                to[element(map, view, n, c, row, column)] = *value;
            }
            to
        };
        let x = if s.reads_image() {
            let mut x = vec![f32::NAN; conv.image_len()];
            conv.pack_image(&team, &images, &mut x);
            x
        } else {
            blocked(&in_map, xv, &images)
        };
        let dy = blocked(&out_map, yv, &gradients);
        let workspace = vec![f32::NAN; conv.workspace_len()];
        let name = format!("{algorithm:?}, {}, {threads} threads, {s:?}", isa.name());
        let tolerance = if algorithm == Algorithm::Winograd { WINOGRAD } else { DIRECT };
        Fixture {
            conv,
            team,
            name,
            tolerance,
            weights,
            images,
            gradients,
            x,
            xv,
            dy,
            yv,
            workspace,
            random,
        }
    }

    fn forward(&mut self, epilogue: Epilogue) -> Vec<f32> {
        let s = *self.conv.shape();
        let mut packed = vec![f32::NAN; self.conv.packed_len()];
        self.conv.pack(&self.team, &[&self.weights], &mut packed);
        let mut y = buffer(&s.out_map(), s.batch, self.yv, 77.0);
        let y_maps = PlanesMut::new(&mut y, &s.out_map(), self.yv, s.batch);
        let x = input_of(&s, &self.x, self.xv);
        self.conv.forward(&self.team, x, &packed, y_maps, epilogue, &mut self.workspace);
        y
    }

    fn backward_input(&mut self, fill: f32, accumulate: bool) -> Vec<f32> {
        let s = *self.conv.shape();
        let mut packed = vec![f32::NAN; self.conv.packed_backward_len()];
        self.conv.pack_backward(&self.team, &[&self.weights], &mut packed);
        let mut dx = buffer(&s.in_map(), s.batch, self.xv, fill);
        let dy = Planes::new(&self.dy, &s.out_map(), self.yv, s.batch);
        let dx_maps = PlanesMut::new(&mut dx, &s.in_map(), self.xv, s.batch);
        let ws = &mut self.workspace;
        self.conv.backward_input(&self.team, dy, &packed, dx_maps, accumulate, ws);
        dx
    }

    fn backward_weights(&mut self) -> Vec<f32> {
        let mut dw = vec![f32::NAN; self.conv.shape().weights()];
        let s = self.conv.shape();
        let dy = Planes::new(&self.dy, &s.out_map(), self.yv, s.batch);
        let x = input_of(s, &self.x, self.xv);
        self.conv.backward_weights(&self.team, x, dy, &mut [&mut dw], &mut self.workspace);
        dw
    }

    /// Whether only pixels of the view differ from `fill`.
    fn assert_rest_is(&self, map: &Map, view: View, buffer: &[f32], fill: f32) {
        let mut rest = buffer.to_vec();
        for index in 0..self.conv.shape().batch * map.channels * map.height * map.width {
            let (n, c, row, column) = split(map, index);
            rest[element(map, view, n, c, row, column)] = fill;
        }
        assert!(rest.iter().all(|v| *v == fill), "{}: wrote outside its view", self.name);
    }

    /// Holds all three directions against the definition.
    fn check(&mut self, limit: usize) {
        let s = *self.conv.shape();
        let (in_map, out_map) = (s.in_map(), s.out_map());
        let y = self.forward(Epilogue::None);
        self.assert_rest_is(&out_map, self.yv, &y, 77.0);
        let pairs: Vec<_> = sample(&mut self.random, self.gradients.len(), limit)
            .into_iter()
            .map(|index| {
                let (n, k, row, column) = split(&out_map, index);
                let found = y[element(&out_map, self.yv, n, k, row, column)];
                let expected = forward_at(&s, &self.images, &self.weights, n, k, row, column);
                (f64::from(found), expected)
            })
            .collect();
        assert_close(&format!("y, {}", self.name), self.tolerance, &pairs);

        if !s.reads_image() {
            let dx = self.backward_input(77.0, false);
            self.assert_rest_is(&in_map, self.xv, &dx, 77.0);
            let pairs: Vec<_> = sample(&mut self.random, self.images.len(), limit)
                .into_iter()
                .map(|index| {
                    let (n, c, row, column) = split(&in_map, index);
                    let found = dx[element(&in_map, self.xv, n, c, row, column)];
                    let (dy, w) = (&self.gradients, &self.weights);
                    (f64::from(found), backward_input_at(&s, dy, w, n, c, row, column))
                })
                .collect();
            assert_close(&format!("dx, {}", self.name), self.tolerance, &pairs);
        }

        let dw = self.backward_weights();
        let filter = Map { channels: s.in_channels, height: s.kernel, width: s.kernel };
        let pairs: Vec<_> = sample(&mut self.random, dw.len(), limit)
            .into_iter()
            .map(|index| {
                let (k, c, r, q) = split(&filter, index);
                let expected = backward_weights_at(&s, &self.images, &self.gradients, k, c, r, q);
                (f64::from(dw[index]), expected)
            })
            .collect();
        assert_close(&format!("dw, {}", self.name), self.tolerance, &pairs);
    }
}

fn algorithms(s: &ConvShape) -> Vec<Algorithm> {
    let all = [Algorithm::Direct, Algorithm::Winograd, Algorithm::Bf16];
    all.into_iter().filter(|a| a.supports(s)).collect()
}

#[test]
fn odd_shapes_agree_with_the_definition() {
    for s in odd_shapes() {
        for isa in Isa::available() {
            for algorithm in algorithms(&s) {
                for threads in 1..=3 {
                    Fixture::new(s, isa, threads, algorithm).check(2000);
                }
            }
        }
    }
}

#[test]
fn network_shapes_agree_with_the_definition() {
    for s in network_shapes() {
        for isa in Isa::available() {
            for algorithm in algorithms(&s) {
                Fixture::new(s, isa, 2, algorithm).check(300);
            }
        }
    }
}

#[test]
fn runs_repeat_bit_for_bit_and_maps_do_not_depend_on_threads() {
    for s in [
        shape(2, (48, 80), (13, 9), (3, 1, 1)),
        shape(4, (16, 48), (45, 38), (3, 1, 1)),
        shape(2, (64, 32), (14, 14), (1, 1, 0)),
        shape(2, (32, 32), (8, 8), (3, 2, 1)),
    ] {
        for algorithm in algorithms(&s) {
            let isa = Isa::chosen();
            let run = |threads| {
                let mut fixture = Fixture::new(s, isa, threads, algorithm);
                let y = fixture.forward(Epilogue::None);
                (y, fixture.backward_input(0.0, false), fixture.backward_weights())
            };
            let (y, dx, dw) = run(3);
            let (again_y, again_dx, again_dw) = run(3);
            assert!(y == again_y && dx == again_dx && dw == again_dw, "{algorithm:?} {s:?}");
            let (other_y, other_dx, _) = run(1);
            assert!(y == other_y && dx == other_dx, "{algorithm:?} {s:?}");
        }
    }
}

#[test]
fn input_gradients_accumulate() {
    for s in [
        shape(1, (16, 32), (5, 5), (3, 1, 1)),
        shape(3, (48, 16), (7, 7), (1, 1, 0)),
        shape(1, (16, 16), (5, 5), (1, 2, 0)),
    ] {
        for isa in Isa::available() {
            for algorithm in algorithms(&s) {
                let mut fixture = Fixture::new(s, isa, 2, algorithm);
                let alone = fixture.backward_input(0.0, false);
                let added = fixture.backward_input(2.0, true);
                let map = s.in_map();
                fixture.assert_rest_is(&map, fixture.xv, &added, 2.0);
                for index in 0..fixture.images.len() {
                    let (n, c, row, column) = split(&map, index);
                    let at = element(&map, fixture.xv, n, c, row, column);
                    assert_eq!(added[at], alone[at] + 2.0, "{}", fixture.name);
                }
            }
        }
    }
}

#[test]
fn epilogues_finish_the_plain_result() {
    for s in [
        shape(3, (16, 48), (9, 7), (1, 1, 0)),
        shape(2, (32, 32), (9, 7), (3, 1, 1)),
        shape(2, (3, 48), (9, 7), (7, 2, 3)),
    ] {
        for isa in Isa::available() {
            for algorithm in algorithms(&s) {
                let mut fixture = Fixture::new(s, isa, 2, algorithm);
                let bias = Random(3).values(s.out_channels);
                let plain = fixture.forward(Epilogue::None);
                let biased = fixture.forward(Epilogue::Bias(&bias));
                let relu = fixture.forward(Epilogue::BiasRelu(&bias));
                let sigmoid = fixture.forward(Epilogue::BiasSigmoid(&bias));
                let mut sums = vec![f64::NAN; 2 * s.out_channels];
                let summed = fixture.forward(Epilogue::Sums(&mut sums));
                assert!(summed == plain, "{}", fixture.name);
                let map = s.out_map();
                let mut expected = vec![0.0; 2 * s.out_channels];
                for index in 0..fixture.gradients.len() {
                    let (n, k, row, column) = split(&map, index);
                    let at = element(&map, fixture.yv, n, k, row, column);
                    let y = plain[at] + bias[k];
                    assert_eq!(biased[at], y, "{}", fixture.name);
                    assert_eq!(relu[at], y.max(0.0), "{}", fixture.name);
                    let exact = 1.0 / (1.0 + (-f64::from(y)).exp());
                    assert!((f64::from(sigmoid[at]) - exact).abs() < 1e-6, "{}", fixture.name);
                    let y = f64::from(plain[at]);
                    expected[k] += y;
                    expected[s.out_channels + k] += y * y;
                }
                let pairs: Vec<_> = sums.into_iter().zip(expected).collect();
                assert_close(&format!("sums, {}", fixture.name), 1e-6, &pairs);
            }
        }
    }
}

#[test]
fn not_a_number_passes_through_relu() {
    let s = shape(1, (16, 16), (4, 4), (3, 1, 1));
    for isa in Isa::available() {
        for algorithm in algorithms(&s) {
            let mut fixture = Fixture::new(s, isa, 1, algorithm);
            fixture.weights[0] = f32::NAN;
            let y = fixture.forward(Epilogue::BiasRelu(&[0.0; 16]));
            let at = element(&s.out_map(), fixture.yv, 0, 0, 1, 1);
            assert!(y[at].is_nan(), "{}: a diverged run must show", fixture.name);
        }
    }
}

#[test]
fn merged_siblings_are_their_parts() {
    let s = shape(2, (32, 96), (6, 6), (1, 1, 0));
    let ways = Isa::available().into_iter();
    for (isa, algorithm) in ways.flat_map(|isa| [(isa, Algorithm::Direct), (isa, Algorithm::Bf16)])
    {
        let mut fixture = Fixture::new(s, isa, 2, algorithm);
        let (first, rest) = fixture.weights.split_at(48 * 32);
        let (second, third) = rest.split_at(16 * 32);
        let slices: [&[f32]; 3] = [first, second, third];
        let (conv, team) = (&fixture.conv, &fixture.team);
        // Compared as bits, because pairs of bf16 numbers may look like a NaN.
        let bits = |packed: Vec<f32>| packed.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let pack = |weights: &[&[f32]]| {
            let mut packed = vec![0.0; conv.packed_len()];
            conv.pack(team, weights, &mut packed);
            bits(packed)
        };
        assert!(pack(&[&fixture.weights]) == pack(&slices));
        let pack_backward = |weights: &[&[f32]]| {
            let mut packed = vec![0.0; conv.packed_backward_len()];
            conv.pack_backward(team, weights, &mut packed);
            bits(packed)
        };
        assert!(pack_backward(&[&fixture.weights]) == pack_backward(&slices));

        let whole = fixture.backward_weights();
        let (mut a, mut b, mut c) = (vec![0.0; 48 * 32], vec![0.0; 16 * 32], vec![0.0; 32 * 32]);
        fixture.conv.backward_weights(
            &fixture.team,
            input_of(&s, &fixture.x, fixture.xv),
            Planes::new(&fixture.dy, &s.out_map(), fixture.yv, s.batch),
            &mut [&mut a, &mut b, &mut c],
            &mut fixture.workspace,
        );
        assert!(whole == [a, b, c].concat());
    }
}
