//! Maps of bf16: every kernel leaves in them, bit by bit, the rounding of what it leaves in f32 maps of
//! the same values, the halo and what lies around its view included, and other results are the same. So
//! what the other tests show of f32 maps holds for them too.

mod common;

use bninception_kernels::activation::{self, Activation};
use bninception_kernels::batch_norm::{self, AffineGradient};
use bninception_kernels::conv::{Algorithm, Algorithms, Conv, ConvInput, ConvShape, Epilogue};
use bninception_kernels::dtype::{Bf16, Dtype, round_to_bf16};
use bninception_kernels::element::Element;
use bninception_kernels::flatten::{flat, flatten, flatten_backward};
use bninception_kernels::lrn::{self, Lrn};
use bninception_kernels::map::{Map, View};
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::pool::{self, MaxPool};
use bninception_kernels::run::Run;
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;
use bninception_kernels::window_average::WindowAverage;

use common::{Plain, each_way, map, moments, network_shapes, odd_shapes, random};

/// What a kernel leaves behind.
#[derive(Default)]
struct Outcome {
    /// Values of maps.
    maps: Vec<f32>,
    /// Everything else.
    others: Vec<f64>,
}

impl Outcome {
    fn map<E: Element>(mut self, values: &[E]) -> Outcome {
        self.maps.extend(values.iter().map(|value| value.value()));
        self
    }

    fn other<T: Copy + Into<f64>>(mut self, values: &[T]) -> Outcome {
        self.others.extend(values.iter().map(|&value| value.into()));
        self
    }
}

fn assert_same(what: &str, f32_maps: Outcome, bf16_maps: Outcome) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let rounded: Vec<f32> = f32_maps.maps.iter().map(|&value| round_to_bf16(value)).collect();
    assert_eq!(bits(&bf16_maps.maps), bits(&rounded), "{what}");
    assert_eq!(bf16_maps.others, f32_maps.others, "{what}: what is no map");
    assert!(rounded.iter().any(|&value| value != 0.0 && value != REST), "{what}: nothing was done");
}

/// Fills buffers before a kernel writes them.
const REST: f32 = 7.0;

/// A blocked buffer of random bf16 numbers.
fn input<E: Element>(seed: u64, map: &Map, batch: usize, view: View) -> Vec<E> {
    let mut values: Vec<E> =
        Plain::random(seed, *map, batch).blocked(view, REST).into_iter().map(bf16).collect();
    PlanesMut::new(&mut values, map, view, batch).zero_halo();
    values
}

fn bf16<E: Element>(value: f32) -> E {
    E::of(round_to_bf16(value))
}

/// A pointwise kernel on maps of one size.
#[derive(Clone, Copy, Debug)]
enum Pointwise {
    Normalise(Activation),
    BatchNormBackward(Activation),
    ActivationBackward(Activation),
    MaxPool(usize),
    MaxPoolBackward(usize, bool),
    Average,
    AverageBackward(bool),
    WindowAverage,
    WindowAverageBackward(bool),
    GlobalAverage,
    GlobalAverageBackward,
    Flatten,
    FlattenBackward(bool),
    Lrn,
    LrnBackward(bool),
}

fn pointwise() -> Vec<Pointwise> {
    use Pointwise::*;
    let mut kernels = vec![Average, WindowAverage, GlobalAverage, GlobalAverageBackward];
    kernels.extend([Flatten, Lrn, MaxPool(1), MaxPool(2)]);
    for g in [Activation::Relu, Activation::Sigmoid] {
        kernels.extend([Normalise(g), BatchNormBackward(g), ActivationBackward(g)]);
    }
    for add in [false, true] {
        kernels.extend([MaxPoolBackward(1, add), MaxPoolBackward(2, add), AverageBackward(add)]);
        kernels.extend([WindowAverageBackward(add), FlattenBackward(add), LrnBackward(add)]);
    }
    kernels
}

impl Pointwise {
    fn run<E: Element>(self, isa: Isa, team: &Team, map: &Map, batch: usize) -> Outcome {
        let channels = map.channels;
        // LRN has no views.
        let view = match self {
            Pointwise::Lrn | Pointwise::LrnBackward(_) => View::whole(map),
            _ => View { blocks: map.blocks() + 2, first: 1 },
        };
        let wide = |map: &Map| Map { channels: view.blocks * 16, ..*map };
        let rest = |map: &Map| vec![E::of(REST); wide(map).buffer(batch)];
        let (x, done) = (input::<E>(1, map, batch, view), Outcome::default());
        let lrn = Lrn { size: 5, alpha: 0.1, beta: 0.75 };
        let run = Run { team, isa, dtype: Dtype::F32 };
        let of = |values, map: &Map| Planes::<E>::new(values, map, view, batch);
        match self {
            Pointwise::Normalise(g) => {
                let (mut y, moments) = (rest(map), moments(channels));
                batch_norm::normalise(
                    run,
                    g,
                    &moments,
                    of(&x, map),
                    PlanesMut::new(&mut y, map, view, batch),
                );
                done.map(&y)
            }
            Pointwise::BatchNormBackward(g) => {
                let (mut x, dy) = (x, input::<E>(2, map, batch, view));
                let (mut dgamma, mut dbeta) = (vec![0.0_f32; channels], vec![0.0_f32; channels]);
                let (mut partial, moments) = (vec![0.0; 2 * batch * channels], moments(channels));
                let gradient = AffineGradient { gamma: &mut dgamma, beta: &mut dbeta };
                let (dy, dx) = (of(&dy, map), PlanesMut::new(&mut x, map, view, batch));
                batch_norm::backward(run, g, &moments, dy, dx, gradient, &mut partial);
                done.map(&x).other(&dgamma).other(&dbeta)
            }
            Pointwise::ActivationBackward(g) => {
                let mut dy = input::<E>(2, map, batch, view);
                let (mut dbias, mut partial) =
                    (vec![0.0_f32; channels], vec![0.0; batch * channels]);
                let (x, dy_maps) = (of(&x, map), PlanesMut::new(&mut dy, map, view, batch));
                activation::backward(run, g, x, dy_maps, &mut dbias, &mut partial);
                done.map(&dy).other(&dbias)
            }
            Pointwise::MaxPool(stride) => {
                let pool = MaxPool { input: *map, stride };
                let (mut y, mut winners) =
                    (rest(&pool.output()), vec![0_u8; pool.winners_len(batch)]);
                let output = pool.output();
                let y_maps = PlanesMut::new(&mut y, &output, view, batch);
                pool.forward(run, of(&x, map), y_maps, Some(&mut winners));
                let mut without = rest(&pool.output());
                pool.forward(
                    run,
                    of(&x, map),
                    PlanesMut::new(&mut without, &output, view, batch),
                    None,
                );
                assert_eq!(y, without, "with and without winners");
                done.map(&y).other(&winners)
            }
            Pointwise::MaxPoolBackward(stride, accumulate) => {
                let pool = MaxPool { input: *map, stride };
                let output = pool.output();
                let (mut dx, dy) = (x, input::<E>(2, &output, batch, view));
                let winners: Vec<u8> =
                    (0..pool.winners_len(batch)).map(|i| (i * 7 % 9) as u8).collect();
                let (dy, dx_maps) = (of(&dy, &output), PlanesMut::new(&mut dx, map, view, batch));
                pool.backward(run, dy, &winners, dx_maps, accumulate);
                done.map(&dx)
            }
            Pointwise::Average => {
                let mut y = rest(map);
                pool::average(run, of(&x, map), PlanesMut::new(&mut y, map, view, batch));
                done.map(&y)
            }
            Pointwise::AverageBackward(accumulate) => {
                let (mut dx, dy) = (x, input::<E>(2, map, batch, view));
                pool::average_backward(
                    run,
                    of(&dy, map),
                    PlanesMut::new(&mut dx, map, view, batch),
                    accumulate,
                );
                done.map(&dx)
            }
            Pointwise::WindowAverage => {
                let pool = WindowAverage { input: *map, kernel: 5, stride: 3 };
                let output = pool.output();
                let mut y = rest(&output);
                pool.forward(run, of(&x, map), PlanesMut::new(&mut y, &output, view, batch));
                done.map(&y)
            }
            Pointwise::WindowAverageBackward(accumulate) => {
                let pool = WindowAverage { input: *map, kernel: 5, stride: 3 };
                let output = pool.output();
                let (mut dx, dy) = (x, input::<E>(2, &output, batch, view));
                pool.backward(
                    run,
                    of(&dy, &output),
                    PlanesMut::new(&mut dx, map, view, batch),
                    accumulate,
                );
                done.map(&dx)
            }
            Pointwise::GlobalAverage => {
                let mut y = vec![0.0_f32; batch * channels];
                pool::global_average(run, of(&x, map), &mut y);
                done.map(&x).other(&y)
            }
            Pointwise::GlobalAverageBackward => {
                let (dy, mut dx) = (random(2, batch * channels), x);
                pool::global_average_backward(team, &dy, PlanesMut::new(&mut dx, map, view, batch));
                done.map(&dx)
            }
            Pointwise::Flatten => {
                let flat = flat(map);
                let mut y = vec![E::of(REST); flat.buffer(batch)];
                flatten(team, of(&x, map), PlanesMut::whole(&mut y, &flat, batch));
                done.map(&y)
            }
            Pointwise::FlattenBackward(accumulate) => {
                let (flat, mut dx) = (flat(map), x);
                let dy = input::<E>(2, &flat, batch, View::whole(&flat));
                let dy = Planes::whole(&dy, &flat, batch);
                flatten_backward(team, dy, PlanesMut::new(&mut dx, map, view, batch), accumulate);
                done.map(&dx)
            }
            Pointwise::Lrn => {
                let mut y = rest(map);
                lrn::forward(run, &lrn, of(&x, map), PlanesMut::new(&mut y, map, view, batch));
                done.map(&y)
            }
            Pointwise::LrnBackward(accumulate) => {
                let (dy, mut dx) =
                    (input::<E>(2, map, batch, view), input::<E>(3, map, batch, view));
                let (x, dy) = (of(&x, map), of(&dy, map));
                lrn::backward(
                    run,
                    &lrn,
                    x,
                    dy,
                    PlanesMut::new(&mut dx, map, view, batch),
                    accumulate,
                );
                done.map(&dx)
            }
        }
    }
}

#[test]
fn pointwise_kernels_do_the_same_to_maps_of_bf16() {
    for (channels, height, width, batch) in [(16, 1, 1, 3), (48, 7, 5, 2), (32, 14, 14, 1)] {
        let map = map(channels, height, width);
        for kernel in pointwise() {
            each_way(|isa, team| {
                let what = format!("{kernel:?} {map:?} {isa:?} {} threads", team.len());
                let f32_maps = kernel.run::<f32>(isa, team, &map, batch);
                assert_same(&what, f32_maps, kernel.run::<Bf16>(isa, team, &map, batch));
            });
        }
    }
}

/// What a convolution is asked to do.
#[derive(Clone, Copy, Debug)]
enum Pass {
    Forward,
    ForwardRelu,
    ForwardSigmoid,
    BackwardInput(bool),
    BackwardWeights,
}

const PASSES: [Pass; 6] = [
    Pass::Forward,
    Pass::ForwardRelu,
    Pass::ForwardSigmoid,
    Pass::BackwardInput(false),
    Pass::BackwardInput(true),
    Pass::BackwardWeights,
];

/// What a convolution reads in a buffer of maps or of images.
fn input_of<'a, E: Element>(s: &ConvShape, values: &'a [E], view: View) -> ConvInput<'a, E> {
    match s.reads_image() {
        true => ConvInput::Image(values),
        false => ConvInput::Maps(Planes::new(values, &s.in_map(), view, s.batch)),
    }
}

/// Operands of a convolution whose maps lie within wider ones.
struct Operands<'a, E> {
    conv: &'a Conv,
    team: &'a Team,
    x: Vec<E>,
    dy: Vec<E>,
    xv: View,
    yv: View,
    weights: Vec<f32>,
    workspace: Vec<f32>,
}

impl<'a, E: Element> Operands<'a, E> {
    fn new(conv: &'a Conv, team: &'a Team) -> Operands<'a, E> {
        let s = *conv.shape();
        let (in_map, out_map) = (s.in_map(), s.out_map());
        let xv = View { blocks: in_map.blocks() + 2, first: 1 };
        let yv = View { blocks: out_map.blocks() + 3, first: 2 };
        let x = if s.reads_image() {
            let images = random(1, s.batch * s.in_channels * s.in_height * s.in_width);
            let mut x = vec![E::of(REST); conv.image_len()];
            conv.pack_image(team, &images, &mut x);
            x
        } else {
            input(1, &in_map, s.batch, xv)
        };
        let dy = input(2, &out_map, s.batch, yv);
        let (weights, workspace) = (random(3, s.weights()), vec![f32::NAN; conv.workspace_len()]);
        Operands { conv, team, x, dy, xv, yv, weights, workspace }
    }

    /// Outputs, from a map that holds [`REST`].
    fn forward(&mut self, epilogue: Epilogue<'_>) -> Vec<E> {
        let s = self.conv.shape();
        let mut packed = vec![0.0; self.conv.packed_len()];
        self.conv.pack(self.team, &[&self.weights], &mut packed);
        let wide = Map { channels: self.yv.blocks * 16, ..s.out_map() };
        let mut y = vec![E::of(REST); wide.buffer(s.batch)];
        let y_maps = PlanesMut::new(&mut y, &s.out_map(), self.yv, s.batch);
        let x = input_of(s, &self.x, self.xv);
        self.conv.forward(self.team, x, &packed, y_maps, epilogue, &mut self.workspace);
        y
    }

    fn run(&mut self, pass: Pass) -> Outcome {
        let (s, done) = (*self.conv.shape(), Outcome::default());
        let bias = random(4, s.out_channels);
        match pass {
            Pass::Forward => {
                let y = self.forward(Epilogue::None);
                done.map(&y).map(&self.x)
            }
            Pass::ForwardRelu => done.map(&self.forward(Epilogue::BiasRelu(&bias))),
            Pass::ForwardSigmoid => done.map(&self.forward(Epilogue::BiasSigmoid(&bias))),
            Pass::BackwardInput(accumulate) => {
                let mut packed = vec![0.0; self.conv.packed_backward_len()];
                self.conv.pack_backward(self.team, &[&self.weights], &mut packed);
                let (mut dx, ws) = (self.x.clone(), &mut self.workspace);
                let dy = Planes::new(&self.dy, &s.out_map(), self.yv, s.batch);
                let dx_maps = PlanesMut::new(&mut dx, &s.in_map(), self.xv, s.batch);
                self.conv.backward_input(self.team, dy, &packed, dx_maps, accumulate, ws);
                done.map(&dx)
            }
            Pass::BackwardWeights => {
                let (mut dw, ws) = (vec![0.0_f32; s.weights()], &mut self.workspace);
                let targets = &mut [&mut dw[..]];
                let x = input_of(&s, &self.x, self.xv);
                let dy = Planes::new(&self.dy, &s.out_map(), self.yv, s.batch);
                self.conv.backward_weights(self.team, x, dy, targets, ws);
                done.map(&self.dy).other(&dw)
            }
        }
    }
}

fn check_convolution(s: ConvShape, isa: Isa, team: &Team) {
    for algorithm in [Algorithm::Winograd, Algorithm::Bf16] {
        if !algorithm.supports(&s) {
            continue;
        }
        let conv = Conv::with_algorithms(s, isa, team.len(), Algorithms::all(algorithm));
        let conv = conv.with_dtype(Dtype::Bf16);
        for pass in PASSES {
            if s.reads_image() && matches!(pass, Pass::BackwardInput(_)) {
                continue;
            }
            let what = format!("{pass:?} {algorithm:?} {s:?} {isa:?} {}", team.len());
            let f32_maps = Operands::<f32>::new(&conv, team).run(pass);
            assert_same(&what, f32_maps, Operands::<Bf16>::new(&conv, team).run(pass));
        }
    }
}

#[test]
fn convolutions_do_the_same_to_maps_of_bf16() {
    for s in odd_shapes() {
        each_way(|isa, team| check_convolution(s, isa, team));
    }
}

/// With f32 maps, `conv.rs` holds them against the definition.
#[test]
fn the_networks_convolutions_do_the_same_to_maps_of_bf16() {
    for threads in 1..=3 {
        let team = Team::new(threads);
        for s in network_shapes() {
            check_convolution(s, Isa::chosen(), &team);
        }
    }
}

#[test]
fn sums_for_batch_norm_are_those_of_the_rounded_outputs() {
    for s in odd_shapes() {
        for algorithm in [Algorithm::Winograd, Algorithm::Bf16] {
            if !algorithm.supports(&s) {
                continue;
            }
            each_way(|isa, team| {
                let conv = Conv::with_algorithms(s, isa, team.len(), Algorithms::all(algorithm));
                let mut operands = Operands::<Bf16>::new(&conv, team);
                let mut sums = vec![0.0; 2 * s.out_channels];
                let y: Vec<f32> =
                    operands.forward(Epilogue::Sums(&mut sums)).iter().map(|y| y.value()).collect();
                let y = Plain::read(s.out_map(), s.batch, operands.yv, &y);
                let mut expected = vec![0.0; 2 * s.out_channels];
                let mut magnitude = vec![0.0; 2 * s.out_channels];
                y.each(|n, channel, row, column| {
                    let value = y.at(n, channel, row, column);
                    expected[channel] += value;
                    magnitude[channel] += value.abs();
                    expected[s.out_channels + channel] += value * value;
                    magnitude[s.out_channels + channel] += value * value;
                });
                for (index, (found, expected)) in sums.iter().zip(&expected).enumerate() {
                    // Sums of unrounded outputs are off by a thousandth.
                    let error = (found - expected).abs();
                    let what = format!("{algorithm:?} {s:?} {isa:?} {} threads", team.len());
                    assert!(error <= 1e-5 * magnitude[index], "{what}: {found} for {expected}");
                }
            });
        }
    }
}

#[test]
#[should_panic(expected = "the direct algorithm reads and writes f32 maps")]
fn the_direct_algorithm_refuses_maps_of_bf16() {
    let team = Team::new(1);
    let s = odd_shapes()[0];
    let conv = Conv::with_algorithms(s, Isa::Scalar, 1, Algorithms::all(Algorithm::Direct));
    Operands::<Bf16>::new(&conv, &team).run(Pass::Forward);
}
