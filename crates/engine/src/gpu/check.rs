//! A device beside the host: the same kernels and convolutions on the same numbers, for a machine whose device
//! nobody has tried yet.

use std::collections::HashSet;

use bninception_cuda::convolution::Operands;
use bninception_cuda::device::{Noting, Timing};
use bninception_cuda::ops::batch_norm::{
    self, Activation, Affine, MOMENTS, Running, Statistics, scratch_bytes,
};
use bninception_cuda::ops::head::{self, Linear, Loss, REPORT_BYTES, Targets};
use bninception_cuda::ops::lrn::{self, Lrn};
use bninception_cuda::ops::pool::{self, Windows};
use bninception_cuda::ops::update::{self, GATE_BYTES, Norm, Sgd};
use bninception_cuda::ops::{image, layout};
use bninception_cuda::{
    Convolution, ConvolutionPlan, Device, DeviceError, Direction, Format, Map, Precision, Region,
    transfer,
};
use bninception_kernels::conv::ConvShape;
use bninception_kernels::dtype::round_to_bf16;
use bninception_model::Network;

use super::plan::{Settings, UNIT};
use crate::error::EngineError;
use crate::lowering::lower::{Purpose, lower};
use crate::lowering::padded::Padded;
use crate::lowering::stage::Stage;

/// How far a device's answer lies from the host's.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The kernel or convolution, and its sizes.
    pub name: String,
    /// Norm of the difference over norm of the host's values.
    pub error: f64,
    /// The largest error that rounding explains.
    pub limit: f64,
}

/// Norm of the difference over the norm of what is expected; not a number if a value is none, or there are others.
pub fn error(found: &[f32], expected: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    if found.len() != expected.len() {
        return f64::NAN;
    }
    let differences = &mut found.iter().zip(expected).map(|(&a, &b)| f64::from(a) - f64::from(b));
    let (apart, norm) =
        (squares(differences), squares(&mut expected.iter().map(|&value| f64::from(value))));
    match apart {
        0.0 => 0.0,
        _ => (apart / norm.max(f64::MIN_POSITIVE)).sqrt(),
    }
}

/// Values between -1 and 1 from a linear congruential generator (Knuth's MMIX constants).
pub fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Sums in another order, of up to 10,000 values in f32.
const F32_LIMIT: f64 = 1e-5;

/// Results that are rounded to bf16 once on both, some of them to the other neighbour.
const BF16_LIMIT: f64 = 4e-3;

/// Factors with 10 bits of significand, 2^-11 off each.
const TF32_LIMIT: f64 = 1e-3;

/// Every kernel on `device` beside `host`.
///
/// # Errors
/// A device that fails.
pub fn compare_kernels<'a>(
    device: &mut (dyn Device + 'a),
    host: &mut (dyn Device + 'a),
) -> Result<Vec<Comparison>, EngineError> {
    let mut comparisons = Vec::new();
    for format in [Format::F32, Format::Bf16] {
        for shape in [[3, 7, 9, 24], [2, 28, 28, 192], [4, 1, 1, 1024]] {
            let mut answers = Vec::new();
            for device in [&mut *device, &mut *host] {
                let mut bench = Bench::new(device);
                maps(&mut bench, format, shape)?;
                pools(&mut bench, format, shape)?;
                answers.push(bench.finish());
            }
            let limit = if format == Format::F32 { F32_LIMIT } else { BF16_LIMIT };
            let [n, h, w, c] = shape;
            let suffix = format!("{format:?} {n}x{h}x{w}x{c}");
            comparisons.extend(compare(&answers, &suffix, limit));
        }
    }
    let mut answers = Vec::new();
    for device in [&mut *device, &mut *host] {
        let mut bench = Bench::new(device);
        heads(&mut bench)?;
        updates(&mut bench)?;
        answers.push(bench.finish());
    }
    comparisons.extend(compare(&answers, "f32", F32_LIMIT));
    Ok(comparisons)
}

/// The different convolutions of `network` in training on `batch` images.
///
/// # Errors
/// A layer that this engine cannot compute.
pub fn convolutions(
    network: &Network,
    precision: Precision,
    batch: usize,
) -> Result<Vec<Convolution>, EngineError> {
    let settings = Settings { precision, deterministic: true, epsilon: 0.0 };
    let padded = Padded::to(image::CHANNELS, network);
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    for (purpose, merge) in [(Purpose::Training, true), (Purpose::Evaluation, false)] {
        let lowered = lower(network, &padded, purpose, merge)?;
        for stage in &lowered.stages {
            let Stage::Conv(stage) = stage else { continue };
            let mut shape = ConvShape { batch, ..stage.shape };
            let reads_image = stage.input.is_none();
            if reads_image {
                shape.in_channels = image::CHANNELS;
            }
            for direction in Direction::ALL {
                if reads_image && direction == Direction::InputGradient {
                    continue;
                }
                let adds = if direction == Direction::InputGradient { 2 } else { 1 };
                for accumulate in [false, true].into_iter().take(adds) {
                    let convolution = settings.convolution(&shape, direction, accumulate);
                    if seen.insert(convolution) {
                        all.push(convolution);
                    }
                }
            }
        }
    }
    Ok(all)
}

/// Convolutions on `device` beside `host`; `tell` gets each comparison when it is made.
///
/// # Errors
/// A device that fails, or has no algorithm.
pub fn compare_convolutions<'a>(
    device: &mut (dyn Device + 'a),
    host: &mut (dyn Device + 'a),
    convolutions: &[Convolution],
    tell: &mut dyn FnMut(&Comparison),
) -> Result<(), EngineError> {
    for convolution in convolutions {
        let mut answers = Vec::new();
        for device in [&mut *device, &mut *host] {
            let mut bench = Bench::new(device);
            bench.convolve(convolution)?;
            answers.push(bench.finish());
        }
        let limit = match convolution.precision {
            Precision::F32 => F32_LIMIT,
            Precision::Tf32 => TF32_LIMIT,
            // Its gradient of filters is a sum that cuDNN rounds to bf16 too.
            Precision::Bf16 => BF16_LIMIT,
        };
        let adds = if convolution.accumulate { ", added" } else { "" };
        for comparison in compare(&answers, &format!("{convolution}{adds}"), limit) {
            tell(&comparison);
        }
    }
    Ok(())
}

/// What a kernel gave, and its name.
type Answer = (String, Vec<f32>);

/// Seconds of each of `repeats` runs of a convolution on random numbers, behind one that is not timed.
///
/// # Errors
/// A device that fails, or has no algorithm.
pub fn time_convolution(
    device: &mut dyn Device,
    convolution: &Convolution,
    repeats: usize,
) -> Result<Vec<f64>, EngineError> {
    let mut bench = Bench::new(device);
    let (plan, operands) = bench.operands(convolution)?;
    bench.device.convolve(&plan, &operands)?;
    bench.device.synchronise()?;
    bench.device.note(Noting::Times);
    bench.device.notes();
    let runs = (0..repeats).try_for_each(|_| bench.device.convolve(&plan, &operands));
    bench.device.note(Noting::Nothing);
    let notes = bench.device.notes();
    bench.finish();
    runs?;
    // A gradient that the device widens in a second kernel has a note for each.
    let seconds = |notes: &[Timing]| -> f64 {
        notes.iter().filter_map(|note| note.time).map(|time| time.as_secs_f64()).sum()
    };
    Ok(notes.chunks((notes.len() / repeats.max(1)).max(1)).map(seconds).collect())
}

/// The answers of two devices, the host's last.
fn compare(answers: &[Vec<Answer>], suffix: &str, limit: f64) -> Vec<Comparison> {
    let [device, host] = answers else { return Vec::new() };
    let pairs = device.iter().zip(host);
    let comparison = |((name, found), (_, expected)): (&Answer, &Answer)| {
        let error = error(found, expected);
        Comparison { name: format!("{name}, {suffix}"), error, limit }
    };
    pairs.map(comparison).collect()
}

/// A device, and what kernels answered on it.
struct Bench<'a> {
    device: &'a mut dyn Device,
    /// Of the numbers drawn last ([`random`]).
    seed: u64,
    regions: Vec<Region>,
    answers: Vec<Answer>,
}

impl<'a> Bench<'a> {
    fn new(device: &'a mut dyn Device) -> Bench<'a> {
        Bench { device, seed: 0, regions: Vec::new(), answers: Vec::new() }
    }

    /// Gives memory back, and the answers out.
    fn finish(self) -> Vec<Answer> {
        let Bench { device, regions, answers, .. } = self;
        regions.into_iter().for_each(|region| device.free(region));
        answers
    }

    fn random(&mut self, len: usize) -> Vec<f32> {
        self.seed += 1;
        random(self.seed, len)
    }

    fn room(&mut self, bytes: usize) -> Result<Region, DeviceError> {
        let region = self.device.allocate(bytes)?;
        self.regions.push(region);
        Ok(region)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<Region, DeviceError> {
        let region = self.room(bytes.len())?;
        transfer::write(self.device, bytes, region)?;
        Ok(region)
    }

    fn numbers(&mut self, len: usize) -> Result<Region, DeviceError> {
        let values = self.random(len);
        self.put(bytemuck::cast_slice(&values))
    }

    fn in_format(&mut self, format: Format, len: usize) -> Result<Region, DeviceError> {
        match format {
            Format::F32 => self.numbers(len),
            Format::Bf16 => {
                let upper = |value: f32| (round_to_bf16(value).to_bits() >> 16) as u16;
                let values: Vec<u16> = self.random(len).into_iter().map(upper).collect();
                self.put(bytemuck::cast_slice(&values))
            }
        }
    }

    /// A map of random numbers, `[n, h, w, c]`.
    fn map(&mut self, format: Format, shape: [usize; 4]) -> Result<Map, DeviceError> {
        let [batch, height, width, channels] = shape;
        let region = self.in_format(format, batch * height * width * channels)?;
        Ok(Map { region, format, batch, height, width, stride: channels, first: 0, channels })
    }

    fn keep(&mut self, name: &str, region: Region) -> Result<(), DeviceError> {
        let bytes = transfer::read(self.device, region)?;
        let values = bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        self.answers.push((name.to_owned(), values));
        Ok(())
    }

    fn keep_in(&mut self, name: &str, region: Region, format: Format) -> Result<(), DeviceError> {
        if format == Format::F32 {
            return self.keep(name, region);
        }
        let bytes = transfer::read(self.device, region)?;
        let words = bytes.as_chunks().0.iter().map(|word| u16::from_le_bytes(*word));
        let values = words.map(|bits| f32::from_bits(u32::from(bits) << 16)).collect();
        self.answers.push((name.to_owned(), values));
        Ok(())
    }

    /// Random operands of a convolution.
    fn operands(
        &mut self,
        convolution: &Convolution,
    ) -> Result<(ConvolutionPlan, Operands), DeviceError> {
        let format = convolution.precision.format();
        let is_gradient = convolution.direction == Direction::FilterGradient;
        let of_filters = if is_gradient { Format::F32 } else { format };
        let input = self.in_format(format, convolution.input_len())?;
        let filters = self.in_format(of_filters, convolution.filter_len())?;
        let output = self.in_format(format, convolution.output_len())?;
        let plan = self.device.plan(convolution)?;
        let workspace = self.room(plan.workspace())?;
        Ok((plan, Operands { input, filters, output, workspace }))
    }

    fn convolve(&mut self, convolution: &Convolution) -> Result<(), DeviceError> {
        let format = convolution.precision.format();
        let (plan, operands) = self.operands(convolution)?;
        self.device.convolve(&plan, &operands)?;
        let Operands { input, filters, output, .. } = operands;
        match convolution.direction {
            Direction::Forward => self.keep_in("convolution", output, format),
            Direction::InputGradient => self.keep_in("convolution", input, format),
            Direction::FilterGradient => self.keep("convolution", filters),
        }
    }
}

/// Kernels that go over a map.
fn maps(bench: &mut Bench<'_>, format: Format, shape: [usize; 4]) -> Result<(), DeviceError> {
    let [n, h, w, c] = shape;
    let len = n * h * w * c;
    let (x, y, dy) =
        (bench.map(format, shape)?, bench.map(format, shape)?, bench.map(format, shape)?);
    let affine = Affine { gamma: bench.numbers(c)?, beta: bench.numbers(c)? };
    let statistics = Statistics { mean: bench.numbers(c)?, variance: bench.room(c * UNIT)? };
    let momentum = bench.numbers(1)?;
    let (moments, scratch) = (bench.room(c * MOMENTS * UNIT)?, bench.room(scratch_bytes(&x))?);
    for activation in [Activation::Relu, Activation::Sigmoid] {
        let x = bench.map(format, shape)?;
        let running = Running { from: statistics, to: statistics, momentum, bias: None };
        batch_norm::batch_moments(bench.device, &x, affine, 1e-5, &running, moments, scratch)?;
        bench.keep("moments", moments)?;
        bench.keep("running mean", statistics.mean)?;
        batch_norm::normalise(bench.device, activation, moments, &x, &y)?;
        bench.keep_in("normalise", y.region, format)?;
        let sums = Affine { gamma: bench.room(c * UNIT)?, beta: bench.room(c * UNIT)? };
        let device = &mut *bench.device;
        batch_norm::gradient_sums(device, activation, moments, &dy, &x, sums, scratch)?;
        batch_norm::input_gradient(device, activation, moments, &dy, &x, sums)?;
        bench.keep("gradient of scales", sums.gamma)?;
        bench.keep("gradient of shifts", sums.beta)?;
        bench.keep_in("gradient through batch norm", x.region, format)?;
    }
    batch_norm::bias_moments(bench.device, c, Some(affine.beta), moments)?;
    let (dbias, moved) = (bench.room(c * UNIT)?, bench.map(format, shape)?);
    let (relu, device) = (Activation::Relu, &mut *bench.device);
    batch_norm::bias_gradient(device, relu, moments, &dy, &moved, dbias, scratch)?;
    batch_norm::activation_gradient(device, relu, moments, &dy, &moved)?;
    bench.keep("gradient of biases", dbias)?;
    bench.keep_in("gradient through the nonlinearity", moved.region, format)?;

    let lrn = Lrn { size: 5, alpha: 1e-4, beta: 0.75 };
    lrn::forward(bench.device, lrn, &x, &y)?;
    bench.keep_in("lrn", y.region, format)?;
    lrn::backward(bench.device, lrn, &x, &dy, &y, true)?;
    bench.keep_in("gradient of lrn", y.region, format)?;

    let planes = bench.room(len * UNIT)?;
    layout::to_planes(bench.device, &x, planes)?;
    bench.keep("to planes", planes)?;
    let flat = bench.map(format, [n, 1, 1, h * w * c])?;
    layout::flatten(bench.device, &x, &flat)?;
    bench.keep_in("flatten", flat.region, format)?;
    layout::flatten_backward(bench.device, &flat, &y, false)?;
    bench.keep_in("gradient of flatten", y.region, format)
}

/// Pools, and images.
fn pools(bench: &mut Bench<'_>, format: Format, shape: [usize; 4]) -> Result<(), DeviceError> {
    let [n, h, w, c] = shape;
    let x = bench.map(format, shape)?;
    for stride in [1, 2] {
        let windows = Windows { kernel: [3, 3], stride, pad: [h, w].map(|n| pad(n, stride)) };
        let small = [n, h.div_ceil(stride), w.div_ceil(stride), c];
        let (y, dx) = (bench.map(format, small)?, bench.map(format, shape)?);
        let winners = bench.room(y.len())?;
        pool::max(bench.device, windows, &x, &y, Some(winners))?;
        bench.keep_in("max pool", y.region, format)?;
        pool::max_backward(bench.device, windows, &y, winners, &dx, true)?;
        bench.keep_in("gradient of max pool", dx.region, format)?;
        if stride == 1 {
            pool::average(bench.device, windows, &x, &y)?;
            bench.keep_in("average pool", y.region, format)?;
            pool::average_backward(bench.device, windows, &y, &dx, true)?;
            bench.keep_in("gradient of average pool", dx.region, format)?;
        }
    }
    let features = bench.room(n * c * UNIT)?;
    pool::global_average(bench.device, &x, features)?;
    bench.keep("global average", features)?;
    let dx = bench.map(format, shape)?;
    pool::global_average_backward(bench.device, features, &dx, false)?;
    bench.keep_in("gradient of global average", dx.region, format)?;

    let levels: Vec<u8> = (0..n * h * w * 3).map(|index| (index * 37 % 256) as u8).collect();
    let (levels, table) = (bench.put(&levels)?, bench.numbers(3 * 256)?);
    let image = bench.map(format, [n, h, w, image::CHANNELS])?;
    image::levels(bench.device, levels, table, &image)?;
    bench.keep_in("levels", image.region, format)?;
    let values = bench.numbers(n * 3 * h * w)?;
    image::values(bench.device, values, &image)?;
    bench.keep_in("values", image.region, format)
}

/// Places in front of an axis of `n` values in a 3x3 pool.
fn pad(n: usize, stride: usize) -> usize {
    (((n.div_ceil(stride) - 1) * stride + 3).saturating_sub(n)) / 2
}

/// The last layers.
fn heads(bench: &mut Bench<'_>) -> Result<(), DeviceError> {
    for (batch, features, classes) in [(32, 1024, 1000), (3, 96, 7)] {
        let linear = Linear { batch, features, classes };
        let (x, matrix) = (bench.numbers(batch * features)?, bench.numbers(classes * features)?);
        let (bias, logits) = (bench.numbers(classes)?, bench.room(batch * classes * UNIT)?);
        linear.forward(bench.device, x, matrix, bias, logits)?;
        bench.keep("logits", logits)?;
        let labels: Vec<u32> = (0..batch).map(|image| (image * 5 % classes) as u32).collect();
        let targets = Targets {
            labels: bench.put(bytemuck::cast_slice(&labels))?,
            class_weights: bench.put(bytemuck::cast_slice(&vec![0.75_f64; classes]))?,
            shares: bench.put(bytemuck::cast_slice(&[0.1_f64, 0.7]))?,
        };
        let loss = Loss { linear, targets, weight: 0.3 };
        let (dlogits, report) = (bench.room(logits.bytes())?, bench.room(REPORT_BYTES)?);
        let (gate, scratch) =
            (bench.room(GATE_BYTES)?, bench.room(head::loss_scratch_bytes(batch))?);
        loss.run(bench.device, logits, dlogits, report, gate, scratch)?;
        bench.keep("gradient of logits", dlogits)?;
        let mut bytes = [0; REPORT_BYTES];
        bytes.copy_from_slice(&transfer::read(bench.device, report)?);
        let report = head::Report::of_bytes(&bytes);
        let counts = [report.top1, report.top5, report.not_finite].map(|count| count as f32);
        let told = counts.into_iter().chain([report.loss_sum as f32]).collect();
        bench.answers.push(("loss and counts".to_owned(), told));
        let (dmatrix, dbias) = (bench.room(matrix.bytes())?, bench.room(bias.bytes())?);
        linear.weight_gradients(bench.device, x, dlogits, dmatrix, dbias)?;
        bench.keep("gradient of the matrix", dmatrix)?;
        bench.keep("gradient of the bias", dbias)?;
        let dx = bench.room(x.bytes())?;
        linear.input_gradient(bench.device, dlogits, matrix, dx)?;
        bench.keep("gradient of the features", dx)?;
        head::dropout(bench.device, x, dx)?;
        bench.keep("dropout", x)?;
    }
    Ok(())
}

/// Passes over whole vectors.
fn updates(bench: &mut Bench<'_>) -> Result<(), DeviceError> {
    let lens = [update::PIECE, 1000];
    let len = update::PIECE + 1024;
    let pieces = [[0, lens[0] as u32, 0, 0], [update::PIECE as u32, lens[1] as u32, 1, 0]];
    let pieces: [[u32; update::PIECE_WORDS]; 2] = pieces;
    let (gradients, velocity) = (bench.numbers(len)?, bench.numbers(len)?);
    let (weights, rounded) = (bench.numbers(len)?, bench.room(len * Format::Bf16.size())?);
    let gate = bench.room(GATE_BYTES)?;
    let constants = bench.put(bytemuck::cast_slice(&[0.5_f32, 0.9]))?;
    let (limit, norm) = (bench.put(bytemuck::bytes_of(&2.0_f64))?, bench.room(8)?);
    let scratch = bench.room(update::norm_scratch_bytes(gradients))?;
    let to = Norm { limit, norm, scale: constants.elements(0..1, UNIT), gate };
    update::norm(bench.device, gradients, &to, scratch)?;
    bench.keep("scale of the gradient", constants)?;
    let sgd = Sgd {
        pieces: bench.put(bytemuck::cast_slice(&pieces))?,
        rates: bench.put(bytemuck::cast_slice(&[[0.1_f32, 1e-2], [0.2, 0.0]]))?,
        constants,
        nesterov: true,
        gradients,
        velocity,
        weights,
        rounded: Some(rounded),
        gate,
    };
    update::sgd(bench.device, &sgd)?;
    bench.keep("velocity", velocity)?;
    bench.keep("weights", weights)?;
    bench.keep_in("rounded weights", rounded, Format::Bf16)?;
    let average = bench.numbers(len)?;
    let share = bench.put(bytemuck::bytes_of(&0.25_f32))?;
    update::average(bench.device, weights, share, average, gate)?;
    bench.keep("moving average", average)?;
    update::add(bench.device, weights, average)?;
    update::divide(bench.device, average, 3.0)?;
    bench.keep("sum of micro-batches", average)?;
    update::move_statistics(bench.device, average, velocity, gate)?;
    bench.keep("statistics", velocity)?;
    layout::to_bf16(bench.device, average, rounded)?;
    bench.keep_in("to bf16", rounded, Format::Bf16)
}
