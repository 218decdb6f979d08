//! Batch norm with the nonlinearity behind it, or the nonlinearity alone.
//!
//! What a channel's values become is `g(multiplier * x + offset)`. Four numbers of each channel say it and its
//! gradient, its moments: `[c][4]`, mean, 1 / sqrt(biased variance + epsilon), multiplier, offset.
//! All sums have a fixed order, so that they repeat bit by bit.

use super::arguments::{
    Division, THREADS, apart, bytes, congruent, count, double, flag, floats, format, holds,
    is_wide, maps_apart, start,
};
use crate::device::Device;
use crate::error::DeviceError;
use crate::launch::{Cost, Launch, Scalar};
use crate::map::Map;
use crate::memory::Region;

/// Numbers of a channel's moments.
pub const MOMENTS: usize = 4;

/// Sums of a channel that a block leaves.
const SUMS: usize = 2;

/// Channels of a block of the kernels that add up sums: `MERGED` of `kernels/batch_norm.cu`.
const MERGED: usize = 8;

/// Pixels of a thread where each is by itself, so that it reads a channel's moments for several.
const PIXELS: usize = 8;

/// The nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

/// Scale and shift, or their gradients: `[c]` each.
#[derive(Clone, Copy, Debug)]
pub struct Affine {
    /// Scale.
    pub gamma: Region,
    /// Shift.
    pub beta: Region,
}

/// Mean and unbiased variance of running statistics: `[c]` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Mean.
    pub mean: Region,
    /// Variance.
    pub variance: Region,
}

/// How running statistics move: `to = from + momentum * (batch - from)`. Both may be the same.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Before.
    pub from: Statistics,
    /// Behind.
    pub to: Statistics,
    /// One number.
    pub momentum: Region,
    /// Bias of the convolution in front, which the batch's mean does not hold and the running mean does: `[c]`.
    pub bias: Option<Region>,
}

/// Bytes of scratch that the sums over `x` take.
pub fn scratch_bytes(x: &Map) -> usize {
    let division = Division::sums(x.pixels(), x.channels);
    division.chunks * SUMS * x.channels * 4
}

/// The moments of the batch `x`, and the running statistics behind it.
///
/// # Panics
/// The batch has fewer than two pixels: a variance needs two values.
pub fn batch_moments(
    device: &mut dyn Device,
    x: &Map,
    affine: Affine,
    epsilon: f64,
    running: &Running,
    moments: Region,
    scratch: Region,
) -> Result<(), DeviceError> {
    congruent(&[(x, "x")]);
    let (pixels, channels) = (x.pixels(), x.channels);
    assert!(pixels > 1, "the variance of {pixels} value is undefined");
    let Running { from, to, momentum, bias } = *running;
    affine.check(channels);
    from.check(channels);
    to.check(channels);
    holds(momentum, 1, 4, "momentum");
    holds(bias.unwrap_or(affine.beta), channels, 4, "bias");
    holds(moments, MOMENTS * channels, 4, "moments");
    holds(scratch, scratch_bytes(x) / 4, 4, "scratch");
    let bias_or_any = bias.unwrap_or(affine.beta);
    let read = [x.region, affine.gamma, affine.beta, momentum, bias_or_any];
    apart(&[to.mean, to.variance, moments, scratch], &read);
    apart(&[moments, scratch], &[from.mean, from.variance]);
    if from != to {
        apart(&[to.mean, to.variance], &[from.mean, from.variance]);
    }
    let division = Division::sums(pixels, channels);
    // SAFETY: the kernel reads the map's values and writes SUMS sums of each channel and chunk.
    unsafe {
        device.launch(&Launch {
            kernel: "batch_norm_sums",
            blocks: division.blocks(),
            threads: THREADS,
            regions: &[start(x), scratch],
            scalars: &[
                count(pixels),
                count(channels),
                count(x.stride),
                count(division.chunk),
                format(x.format),
                flag(is_wide(&[x], &[])),
            ],
            cost: Cost { bytes: bytes(x), operations: 4 * x.len() },
        })?;
    }
    let [epsilon_low, epsilon_high] = double(epsilon);
    // SAFETY: the kernel reads the sums and the first value of each chunk, and reads and writes numbers of each
    // channel.
    unsafe {
        device.launch(&Launch {
            kernel: "batch_norm_moments",
            blocks: channels.div_ceil(MERGED),
            threads: THREADS,
            regions: &[
                start(x),
                scratch,
                affine.gamma,
                affine.beta,
                from.mean,
                from.variance,
                momentum,
                bias_or_any,
                to.mean,
                to.variance,
                moments,
            ],
            scalars: &[
                count(pixels),
                count(channels),
                count(x.stride),
                count(division.chunk),
                count(division.chunks),
                format(x.format),
                flag(bias.is_some()),
                epsilon_low,
                epsilon_high,
            ],
            cost: merge_cost(&division, channels),
        })
    }
}

/// The moments of running statistics, for a convolution with or without bias.
pub fn running_moments(
    device: &mut dyn Device,
    affine: Affine,
    statistics: Statistics,
    bias: Option<Region>,
    epsilon: f64,
    moments: Region,
) -> Result<(), DeviceError> {
    let channels = channels_of(moments);
    affine.check(channels);
    statistics.check(channels);
    let (Affine { gamma, beta }, Statistics { mean, variance }) = (affine, statistics);
    let bias_or_any = bias.unwrap_or(beta);
    holds(bias_or_any, channels, 4, "bias");
    apart(&[moments], &[gamma, beta, mean, variance, bias_or_any]);
    let [epsilon_low, epsilon_high] = double(epsilon);
    // SAFETY: the kernel reads a number of each channel from each region, and writes MOMENTS.
    unsafe {
        device.launch(&Launch {
            kernel: "running_moments",
            blocks: channels.div_ceil(THREADS),
            threads: THREADS,
            regions: &[gamma, beta, mean, variance, bias_or_any, moments],
            scalars: &[count(channels), flag(bias.is_some()), epsilon_low, epsilon_high],
            cost: Cost { bytes: (5 + MOMENTS) * 4 * channels, operations: 0 },
        })
    }
}

/// The moments with which nothing is normalised and `bias` is added: multiplier 1. Without a bias, offset 0.
pub fn bias_moments(
    device: &mut dyn Device,
    channels: usize,
    bias: Option<Region>,
    moments: Region,
) -> Result<(), DeviceError> {
    holds(moments, MOMENTS * channels, 4, "moments");
    if let Some(bias) = bias {
        holds(bias, channels, 4, "bias");
        apart(&[moments], &[bias]);
    }
    // SAFETY: the kernel reads a bias of each channel where there is one, and writes MOMENTS.
    unsafe {
        device.launch(&Launch {
            kernel: "bias_moments",
            blocks: channels.div_ceil(THREADS),
            threads: THREADS,
            regions: &[bias.unwrap_or(moments), moments],
            scalars: &[count(channels), flag(bias.is_some())],
            cost: Cost { bytes: (1 + MOMENTS) * 4 * channels, operations: 0 },
        })
    }
}

/// `y = g(multiplier * x + offset)`. `y` may be `x`.
pub fn normalise(
    device: &mut dyn Device,
    activation: Activation,
    moments: Region,
    x: &Map,
    y: &Map,
) -> Result<(), DeviceError> {
    congruent(&[(x, "x"), (y, "y")]);
    if x != y {
        maps_apart(y, x);
    }
    holds(moments, MOMENTS * x.channels, 4, "moments");
    apart(&[y.region], &[moments]);
    let division = Division::each(x.pixels(), x.channels, PIXELS);
    // SAFETY: the kernel reads the moments and each value of x, and writes each of y, which is at the same place or
    // does not meet it.
    unsafe {
        device.launch(&Launch {
            kernel: "normalise",
            blocks: division.blocks(),
            threads: THREADS,
            regions: &[start(x), moments, start(y)],
            scalars: &[
                count(x.pixels()),
                count(x.channels),
                count(x.stride),
                count(y.stride),
                count(division.chunk),
                activation.scalar(),
                format(x.format),
                flag(is_wide(&[x, y], &[])),
            ],
            cost: Cost { bytes: bytes(x) + bytes(y), operations: 3 * x.len() },
        })
    }
}

/// With z = `multiplier * x + offset` and dz the gradient of z: the sums of dz in `beta`, and of dz * xhat in `gamma`.
pub fn gradient_sums(
    device: &mut dyn Device,
    activation: Activation,
    moments: Region,
    dy: &Map,
    x: &Map,
    gradient: Affine,
    scratch: Region,
) -> Result<(), DeviceError> {
    gradient.check(x.channels);
    apart(&[gradient.gamma], &[dy.region, x.region, moments, scratch, gradient.beta]);
    let pass = Backward { activation, moments, dy, x };
    pass.sums(device, gradient.beta, Some(gradient.gamma), scratch)
}

/// Sums of dz alone, the gradient of a bias that no batch norm follows.
pub fn bias_gradient(
    device: &mut dyn Device,
    activation: Activation,
    moments: Region,
    dy: &Map,
    x: &Map,
    gradient: Region,
    scratch: Region,
) -> Result<(), DeviceError> {
    Backward { activation, moments, dy, x }.sums(device, gradient, None, scratch)
}

/// Replaces `x` by its gradient, through batch statistics whose sums are `gradient` ([`gradient_sums`]).
pub fn input_gradient(
    device: &mut dyn Device,
    activation: Activation,
    moments: Region,
    dy: &Map,
    x: &Map,
    gradient: Affine,
) -> Result<(), DeviceError> {
    gradient.check(x.channels);
    apart(&[x.region], &[gradient.gamma, gradient.beta]);
    let pass = Backward { activation, moments, dy, x };
    pass.replace(device, "input_gradient", &[gradient.gamma, gradient.beta], 9)
}

/// Replaces `x` by its gradient, where nothing is normalised.
pub fn activation_gradient(
    device: &mut dyn Device,
    activation: Activation,
    moments: Region,
    dy: &Map,
    x: &Map,
) -> Result<(), DeviceError> {
    Backward { activation, moments, dy, x }.replace(device, "activation_gradient", &[], 3)
}

/// What all passes backward read.
struct Backward<'a> {
    activation: Activation,
    moments: Region,
    dy: &'a Map,
    x: &'a Map,
}

impl Backward<'_> {
    /// The sums of dz, and of dz * xhat where they are asked for.
    fn sums(
        &self,
        device: &mut dyn Device,
        beta: Region,
        gamma: Option<Region>,
        scratch: Region,
    ) -> Result<(), DeviceError> {
        let Backward { moments, dy, x, .. } = *self;
        self.check();
        holds(beta, x.channels, 4, "gradient");
        holds(scratch, scratch_bytes(x) / 4, 4, "scratch");
        apart(&[beta, scratch], &[dy.region, x.region, moments]);
        let division = Division::sums(x.pixels(), x.channels);
        // SAFETY: the kernel reads the moments and the maps' values, and writes SUMS sums of each channel and chunk.
        unsafe {
            device.launch(&Launch {
                kernel: "gradient_sums",
                blocks: division.blocks(),
                threads: THREADS,
                regions: &[start(dy), start(x), moments, scratch],
                scalars: &self.scalars(&division),
                cost: Cost { bytes: bytes(dy) + bytes(x), operations: 7 * x.len() },
            })?;
        }
        // SAFETY: the kernel reads the sums and the moments, and writes one number of each channel, or two.
        unsafe {
            device.launch(&Launch {
                kernel: "gradient_merge",
                blocks: x.channels.div_ceil(MERGED),
                threads: THREADS,
                regions: &[scratch, moments, beta, gamma.unwrap_or(beta)],
                scalars: &[count(x.channels), count(division.chunks), flag(gamma.is_some())],
                cost: merge_cost(&division, x.channels),
            })
        }
    }

    /// Replaces x, with so many operations for each value.
    fn replace(
        &self,
        device: &mut dyn Device,
        kernel: &'static str,
        gradients: &[Region],
        operations: usize,
    ) -> Result<(), DeviceError> {
        let Backward { moments, dy, x, .. } = *self;
        self.check();
        maps_apart(x, dy);
        apart(&[x.region], &[moments]);
        let division = Division::each(x.pixels(), x.channels, PIXELS);
        let regions = [&[start(dy), moments], gradients, &[start(x)]].concat();
        // SAFETY: both kernels read the moments, numbers of each channel from `gradients`, and the values of both
        // maps, and write each value of x in its place.
        unsafe {
            device.launch(&Launch {
                kernel,
                blocks: division.blocks(),
                threads: THREADS,
                regions: &regions,
                scalars: &self.scalars(&division),
                cost: Cost { bytes: bytes(dy) + 2 * bytes(x), operations: operations * x.len() },
            })
        }
    }

    fn check(&self) {
        congruent(&[(self.x, "x"), (self.dy, "dy")]);
        holds(self.moments, MOMENTS * self.x.channels, 4, "moments");
    }

    fn scalars(&self, division: &Division) -> [Scalar; 8] {
        let Backward { activation, dy, x, .. } = *self;
        [
            count(x.pixels()),
            count(x.channels),
            count(dy.stride),
            count(x.stride),
            count(division.chunk),
            activation.scalar(),
            format(x.format),
            flag(is_wide(&[x, dy], &[])),
        ]
    }
}

impl Activation {
    /// As kernels take it.
    fn scalar(self) -> Scalar {
        match self {
            Activation::Relu => Scalar::U32(0),
            Activation::Sigmoid => Scalar::U32(1),
        }
    }
}

impl Affine {
    fn check(&self, channels: usize) {
        holds(self.gamma, channels, 4, "scale");
        holds(self.beta, channels, 4, "shift");
    }
}

impl Statistics {
    fn check(&self, channels: usize) {
        holds(self.mean, channels, 4, "means");
        holds(self.variance, channels, 4, "variances");
    }
}

/// Channels whose moments `moments` holds.
fn channels_of(moments: Region) -> usize {
    floats(moments, "moments") / MOMENTS
}

/// What it costs to add up the sums of all chunks.
fn merge_cost(division: &Division, channels: usize) -> Cost {
    let sums = division.chunks * SUMS * channels;
    Cost { bytes: 4 * sums, operations: sums }
}
