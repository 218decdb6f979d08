//! Times the fast engine's convolutions one by one. Each is first checked against its definition.

use std::collections::HashSet;
use std::time::Instant;

use bninception_kernels::arena::Arena;
use bninception_kernels::conv::reference::{backward_input_at, backward_weights_at, forward_at};
use bninception_kernels::conv::{Algorithm, Algorithms, Conv, ConvInput, ConvShape, Epilogue};
use bninception_kernels::dtype::{Dtype, round_to_bf16};
use bninception_kernels::element::{Element, region_len};
use bninception_kernels::map::{BLOCK, Map};
use bninception_kernels::peak::peak_gflops;
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::team::Team;
use bninception_kernels::with_element;
use bninception_model::Network;
use bninception_model::layer::Op;

use crate::error::EngineError;
use crate::fast::FastOptions;

/// How many results of each direction are checked.
const SAMPLES: usize = 60;

/// Largest accepted distance from the definition in f64, as a part of the largest magnitude among
/// the expected values. Winograd's F(4x4, 3x3) reaches 1e-5 of it (`kernels/tests/conv.rs`).
const TOLERANCE: f64 = 1e-4;

/// Distance of a value from the nearest bf16 number, as a part of the value: half a unit of eight bits.
/// Accepted on top where maps are bf16.
const BF16_ROUNDING: f64 = 1.0 / 256.0;

/// One direction of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The output.
    Forward,
    /// The gradient of the input.
    BackwardInput,
    /// The gradient of the filters.
    BackwardWeight,
}

impl Direction {
    /// The name in results.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::BackwardInput => "backward_input",
            Direction::BackwardWeight => "backward_weight",
        }
    }
}

/// A convolution of the network. Convolutions of one shape are one operation, named after the first
/// layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The first layer with this shape.
    pub name: String,
    /// Its sizes.
    pub shape: ConvShape,
}

/// The time of one direction of an operation.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What was measured.
    pub operation: Operation,
    /// In which direction.
    pub direction: Direction,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Seconds of each repeat, the weights packed already.
    pub seconds: Vec<f64>,
}

impl Measured {
    /// Median seconds of the repeats.
    pub fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    }

    /// GFLOP/s at the median: two for each multiply-accumulate of the definition. Winograd's algorithm
    /// needs fewer.
    pub fn gflops(&self) -> f64 {
        2.0 * self.operation.shape.macs() as f64 / self.median() / 1e9
    }
}

/// The peak of multiply-adds in GFLOP/s with the threads, instructions and number format of `options`.
pub fn peak(options: &FastOptions) -> f64 {
    peak_gflops(&Team::new(options.threads.max(1)), options.isa, options.dtype)
}

/// The distinct convolutions of `network` on batches of `batch` images, in the network's order.
pub fn convolutions(network: &Network, batch: usize) -> Vec<Operation> {
    let mut seen = HashSet::new();
    let mut operations = Vec::new();
    for (index, layer) in network.layers.iter().enumerate() {
        let Op::Conv(conv) = &layer.op else { continue };
        let input = network.input_shape(index);
        // As the engine runs them: channels in whole blocks, except those of the image.
        let reads_image = network.layers[layer.inputs[0]].op == Op::Image;
        let whole = |channels: usize| channels.next_multiple_of(BLOCK);
        let shape = ConvShape {
            batch,
            in_channels: if reads_image { conv.in_channels } else { whole(conv.in_channels) },
            out_channels: whole(conv.out_channels),
            in_height: input.height,
            in_width: input.width,
            kernel: conv.kernel,
            stride: conv.stride,
            pad: conv.pad,
        };
        let sizes = (shape.in_channels, shape.out_channels, shape.in_height, shape.in_width);
        if seen.insert((sizes, shape.kernel, shape.stride)) {
            operations.push(Operation { name: layer.name.clone(), shape });
        }
    }
    operations
}

/// Checks and times every direction of `operation`; the images need no gradient.
///
/// # Errors
/// An answer that differs from the definition.
pub fn measure(
    operation: &Operation,
    options: &FastOptions,
    warmup: usize,
    repeats: usize,
) -> Result<Vec<Measured>, EngineError> {
    let mut bench = Bench::new(operation, options);
    let directions = [Direction::Forward, Direction::BackwardInput, Direction::BackwardWeight];
    let mut measured = Vec::new();
    for direction in directions {
        if operation.shape.reads_image() && direction == Direction::BackwardInput {
            continue;
        }
        bench.run(direction);
        bench.check(direction)?;
        let mut time = || {
            let start = Instant::now();
            bench.run(direction);
            start.elapsed().as_secs_f64()
        };
        let mut seconds: Vec<f64> = (0..warmup + repeats.max(1)).map(|_| time()).collect();
        seconds.drain(..warmup);
        let algorithms = bench.conv.algorithms();
        let algorithm = match direction {
            Direction::Forward => algorithms.forward,
            Direction::BackwardInput => algorithms.backward_input,
            Direction::BackwardWeight => algorithms.backward_weights,
        };
        measured.push(Measured { operation: operation.clone(), direction, algorithm, seconds });
    }
    Ok(measured)
}

/// A convolution with its operands, as the engine lays them out and as the definition does (NCHW).
struct Bench<'a> {
    operation: &'a Operation,
    conv: Conv,
    /// Format of the maps.
    map_dtype: Dtype,
    team: Team,
    images: Vec<f32>,
    gradients: Vec<f32>,
    weights: Vec<f32>,
    x: Arena,
    y: Arena,
    dx: Arena,
    dy: Arena,
    dw: Arena,
    packed: Arena,
    packed_backward: Arena,
    workspace: Arena,
}

impl<'a> Bench<'a> {
    fn new(operation: &'a Operation, options: &FastOptions) -> Bench<'a> {
        let s = operation.shape;
        let team = Team::new(options.threads.max(1));
        let conv = Conv::new(s, options.isa, team.len(), options.winograd, options.dtype);
        let map_dtype = Algorithms::map_dtype(options.isa, options.dtype);
        let (in_map, out_map) = (s.in_map(), s.out_map());
        let arena = |len| Arena::new(region_len(map_dtype, len));
        let images = values(s.batch * s.in_channels * s.in_height * s.in_width, options.dtype);
        let gradients =
            values(s.batch * out_map.channels * out_map.height * out_map.width, options.dtype);
        let weights = values(s.weights(), options.dtype);
        let mut packed = Arena::new(conv.packed_len());
        conv.pack(&team, &[&weights], &mut packed);
        let mut packed_backward = Arena::new(conv.packed_backward_len());
        let mut x = arena(in_map.buffer(s.batch).max(conv.image_len()));
        if s.reads_image() {
            with_element!(map_dtype, E => conv.pack_image(&team, &images, E::of_region_mut(&mut x)));
        } else {
            conv.pack_backward(&team, &[&weights], &mut packed_backward);
            with_element!(map_dtype, E => block(&in_map, &images, E::of_region_mut(&mut x)));
        }
        let mut dy = arena(out_map.buffer(s.batch));
        with_element!(map_dtype, E => block(&out_map, &gradients, E::of_region_mut(&mut dy)));
        Bench {
            y: arena(out_map.buffer(s.batch)),
            dx: arena(in_map.buffer(s.batch)),
            dw: Arena::new(s.weights()),
            workspace: Arena::new(conv.workspace_len()),
            operation,
            conv,
            map_dtype,
            team,
            images,
            gradients,
            weights,
            x,
            dy,
            packed,
            packed_backward,
        }
    }

    fn run(&mut self, direction: Direction) {
        with_element!(self.map_dtype, E => self.run_in::<E>(direction));
    }

    fn run_in<E: Element>(&mut self, direction: Direction) {
        let s = &self.operation.shape;
        let (in_map, out_map) = (s.in_map(), s.out_map());
        let input = |x| match s.reads_image() {
            true => ConvInput::Image(x),
            false => ConvInput::Maps(Planes::whole(x, &in_map, s.batch)),
        };
        let (conv, team, ws) = (&self.conv, &self.team, &mut self.workspace[..]);
        match direction {
            Direction::Forward => {
                let x = input(E::of_region(&self.x));
                let y = PlanesMut::whole(E::of_region_mut(&mut self.y), &out_map, s.batch);
                conv.forward(team, x, &self.packed, y, Epilogue::None, ws);
            }
            Direction::BackwardInput => {
                let dy = Planes::whole(E::of_region(&self.dy), &out_map, s.batch);
                let dx = PlanesMut::whole(E::of_region_mut(&mut self.dx), &in_map, s.batch);
                conv.backward_input(team, dy, &self.packed_backward, dx, false, ws);
            }
            Direction::BackwardWeight => {
                let dw = &mut [&mut self.dw[..s.weights()]];
                let x = input(E::of_region(&self.x));
                let dy = Planes::whole(E::of_region(&self.dy), &out_map, s.batch);
                conv.backward_weights(team, x, dy, dw, ws);
            }
        }
    }

    /// Value `at` of a map.
    fn read(&self, map: &[f32], at: usize) -> f64 {
        f64::from(with_element!(self.map_dtype, E => E::of_region(map)[at].value()))
    }

    /// Compares a sample of the last answer with the definition. The first and the last value belong to
    /// the sample.
    fn check(&self, direction: Direction) -> Result<(), EngineError> {
        let s = &self.operation.shape;
        let (in_map, out_map) = (s.in_map(), s.out_map());
        let (x, dy, w) = (&self.images, &self.gradients, &self.weights);
        let sample = |len: usize| (0..SAMPLES).map(move |i| (len - 1) * i / (SAMPLES - 1));
        let pairs: Vec<(f64, f64)> = match direction {
            Direction::Forward => sample(dy.len())
                .map(|index| {
                    let (n, k, row, column) = split(&out_map, index);
                    let found = self.read(&self.y, element(&out_map, (n, k, row, column)));
                    (found, forward_at(s, x, w, n, k, row, column))
                })
                .collect(),
            Direction::BackwardInput => sample(x.len())
                .map(|index| {
                    let (n, c, row, column) = split(&in_map, index);
                    let found = self.read(&self.dx, element(&in_map, (n, c, row, column)));
                    (found, backward_input_at(s, dy, w, n, c, row, column))
                })
                .collect(),
            Direction::BackwardWeight => {
                let (channels, side) = (s.in_channels, s.kernel);
                let filter = Map { channels, height: side, width: side };
                sample(w.len())
                    .map(|index| {
                        let (k, c, r, q) = split(&filter, index);
                        let found = f64::from(self.dw[index]);
                        (found, backward_weights_at(s, x, dy, k, c, r, q))
                    })
                    .collect()
            }
        };
        let scale = pairs.iter().map(|(_, expected)| expected.abs()).fold(0.0, f64::max);
        let is_map = direction != Direction::BackwardWeight;
        let rounding = if is_map && self.map_dtype == Dtype::Bf16 { BF16_ROUNDING } else { 0.0 };
        for (found, expected) in pairs {
            // Written so that a NaN does not pass.
            let passes = (found - expected).abs() <= TOLERANCE * scale + rounding * expected.abs();
            if !passes {
                let (name, direction) = (&self.operation.name, direction.name());
                let what = format!("{name}, {direction}: found {found}, expected {expected}");
                return Err(EngineError::WrongAnswer { what });
            }
        }
        Ok(())
    }
}

/// Values in -1..1 of no pattern that matters (Numerical Recipes' congruential generator), in `dtype`.
fn values(len: usize, dtype: Dtype) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
        if dtype == Dtype::Bf16 { round_to_bf16(value) } else { value }
    };
    (0..len).map(|_| next()).collect()
}

/// (n, c, row, column) of element `index` of an NCHW tensor.
fn split(map: &Map, index: usize) -> (usize, usize, usize, usize) {
    let (rest, column) = (index / map.width, index % map.width);
    let (rest, row) = (rest / map.height, rest % map.height);
    (rest / map.channels, rest % map.channels, row, column)
}

/// Offset of that element in the blocked layout.
fn element(map: &Map, (n, c, row, column): (usize, usize, usize, usize)) -> usize {
    n * map.image() + c / BLOCK * map.plane() + map.pixel(row, column) + c % BLOCK
}

fn block<E: Element>(map: &Map, from: &[f32], to: &mut [E]) {
    for (index, value) in from.iter().enumerate() {
        to[element(map, split(map, index))] = E::of(*value);
    }
}

#[cfg(test)]
mod tests {
    use bninception_model::NetworkOptions;

    use super::*;

    fn network() -> Network {
        Network::bn_inception(NetworkOptions { image_size: 32, ..NetworkOptions::default() })
            .unwrap()
    }

    #[test]
    fn every_shape_is_named_once_after_its_first_layer() {
        let operations = convolutions(&network(), 2);
        let names: Vec<&str> = operations.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names[..3], ["conv1_7x7_s2", "conv2_3x3_reduce", "conv2_3x3"]);
        for (i, a) in operations.iter().enumerate() {
            assert!(operations[..i].iter().all(|b| a.shape != b.shape), "{} twice", a.name);
        }
    }

    #[test]
    fn answers_are_checked() {
        let options = FastOptions { threads: 2, ..FastOptions::default() };
        for dtype in [Dtype::F32, Dtype::Bf16] {
            for operation in convolutions(&network(), 1).iter().take(5) {
                let options = FastOptions { dtype, ..options };
                let measured = measure(operation, &options, 0, 1).unwrap();
                assert_eq!(measured.len(), if operation.shape.reads_image() { 2 } else { 3 });
                let mut bench = Bench::new(operation, &options);
                for Measured { direction, .. } in measured {
                    bench.run(direction);
                    bench.check(direction).unwrap();
                    let answer = match direction {
                        Direction::Forward => &mut bench.y,
                        Direction::BackwardInput => &mut bench.dx,
                        Direction::BackwardWeight => &mut bench.dw,
                    };
                    // More than the rounding of a map of bf16 can undo.
                    let format = match direction {
                        Direction::BackwardWeight => Dtype::F32,
                        _ => bench.map_dtype,
                    };
                    with_element!(format, E => {
                        for value in E::of_region_mut(answer) {
                            *value = E::of(value.value() * 1.02);
                        }
                    });
                    assert!(bench.check(direction).is_err(), "{direction:?} off by 2 % passes");
                }
            }
        }
    }
}
