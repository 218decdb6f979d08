//! One layer of the network: what it computes, where its inputs come from, and its sizes.

use std::fmt;
use std::ops::Range;

/// Channels, rows and columns of an activation map. No shape includes the batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape {
    /// Values of one image.
    pub fn len(&self) -> usize {
        self.channels * self.pixels()
    }

    /// Whether the map has no value; no layer of a built network has such an output.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pixels of one channel.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// The nonlinearity after every convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

impl Activation {
    /// Its name in settings and files.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Relu => "relu",
            Activation::Sigmoid => "sigmoid",
        }
    }
}

/// A convolution with a square filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Rows and columns of the filter.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros on each side of the input; `kernel / 2` in this network.
    pub pad: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

/// What a pool computes from its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest value; places outside the map never win.
    Max,
    /// The mean of all nine places, those outside the map counting as zero.
    Average,
}

/// A 3x3 pool.
///
/// One rule covers every size: the output has `ceil(n / stride)` places. The padding needed for
/// that is split evenly, and an odd one goes to the end. At even sizes with stride 2 this is
/// Caffe's ceil rule without padding, as in the public weights. At odd sizes the windows line up
/// with those of the 3x3 convolutions of stride 2 beside them; Caffe's rule gives one place fewer
/// there, and the branches could not be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Maximum or average.
    pub kind: PoolKind,
    /// Step between windows: 1 or 2.
    pub stride: usize,
}

impl Pool {
    /// Rows and columns of the window.
    pub const KERNEL: usize = 3;

    /// Output places along an axis of `n` values.
    pub fn output_len(&self, n: usize) -> usize {
        n.div_ceil(self.stride)
    }

    /// Padding before the first value of an axis of `n` values.
    pub fn pad_before(&self, n: usize) -> usize {
        let covered = (self.output_len(n) - 1) * self.stride + Self::KERNEL;
        covered.saturating_sub(n) / 2
    }

    /// The values of an axis of `n` that the window of output place `out` covers, padding left out.
    pub fn window(&self, out: usize, n: usize) -> Range<usize> {
        let first = out * self.stride;
        let pad = self.pad_before(n);
        first.saturating_sub(pad)..(first + Self::KERNEL - pad).min(n)
    }
}

/// The average pool before an auxiliary head: 5x5 with stride 3, without padding (GoogLeNet,
/// section 5).
///
/// One rule covers every size: on maps of fewer than five places the window is clipped to the map,
/// and places after the last window that fits are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuxPool;

impl AuxPool {
    /// Rows and columns of the window on maps that are large enough.
    pub const KERNEL: usize = 5;
    /// Step between windows.
    pub const STRIDE: usize = 3;

    /// Places of the window along an axis of `n` values.
    pub fn window_len(self, n: usize) -> usize {
        n.min(Self::KERNEL)
    }

    /// Output places along an axis of `n` values.
    pub fn output_len(self, n: usize) -> usize {
        (n - self.window_len(n)) / Self::STRIDE + 1
    }

    /// The values of an axis of `n` that the window of output place `out` covers.
    pub fn window(self, out: usize, n: usize) -> Range<usize> {
        let first = out * Self::STRIDE;
        first..first + self.window_len(n)
    }
}

/// Local response normalisation across channels (section 3.3 of Krizhevsky et al. 2012):
/// `y = x / (1 + alpha / size * sum of x^2 over the neighbours)^beta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lrn {
    /// Channels summed over, the middle one included.
    pub size: usize,
    /// Weight of the mean square.
    pub alpha: f64,
    /// Exponent.
    pub beta: f64,
}

impl Lrn {
    /// The values of GoogLeNet's definition, which the paper's baseline inherits
    /// (<https://github.com/BVLC/caffe/blob/master/models/bvlc_googlenet/train_val.prototxt>).
    pub const GOOGLENET: Lrn = Lrn { size: 5, alpha: 1e-4, beta: 0.75 };
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// The input image; always layer 0.
    Image,
    /// Convolution.
    Conv(Conv),
    /// Batch normalisation per channel over batch and positions, with scale and shift.
    BatchNorm,
    /// Nonlinearity.
    Activation(Activation),
    /// 3x3 pool.
    Pool(Pool),
    /// Average pool of an auxiliary head.
    AuxPool(AuxPool),
    /// Local response normalisation.
    Lrn(Lrn),
    /// The inputs, joined along channels.
    Concat,
    /// Mean over all positions of each channel.
    GlobalAveragePool,
    /// In training, sets a value to zero with this probability, or else multiplies it by
    /// `1 / (1 - probability)`.
    Dropout(f64),
    /// Fully connected layer over all values of a map, channel by channel.
    Linear {
        /// Whether a bias is added.
        bias: bool,
    },
}

impl Op {
    /// The name that `info` prints.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Image => "image",
            Op::Conv(_) => "conv",
            Op::BatchNorm => "batch_norm",
            Op::Activation(Activation::Relu) => "relu",
            Op::Activation(Activation::Sigmoid) => "sigmoid",
            Op::Pool(Pool { kind: PoolKind::Max, .. }) => "max_pool",
            Op::Pool(Pool { kind: PoolKind::Average, .. }) => "avg_pool",
            Op::AuxPool(_) => "avg_pool",
            Op::Lrn(_) => "lrn",
            Op::Concat => "concat",
            Op::GlobalAveragePool => "global_avg_pool",
            Op::Dropout(_) => "dropout",
            Op::Linear { .. } => "linear",
        }
    }
}

/// One layer of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Unique name; tensors of the layer are called `name.weight`, `name.bias` and so on.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Indices of the layers whose outputs it reads; always smaller than its own.
    pub inputs: Vec<usize>,
    /// Shape of its output.
    pub output: Shape,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_windows_follow_the_one_rule() {
        // (n, stride, output places, padding in front, first window, last window)
        let table = [
            (112, 2, 56, 0, 0..3, 110..112),
            (7, 2, 4, 1, 0..2, 5..7),
            (2, 2, 1, 0, 0..2, 0..2),
            (1, 2, 1, 1, 0..1, 0..1),
            (7, 1, 7, 1, 0..2, 5..7),
            (1, 1, 1, 1, 0..1, 0..1),
        ];
        for (n, stride, out, pad, first, last) in table {
            let pool = Pool { kind: PoolKind::Max, stride };
            assert_eq!(pool.output_len(n), out, "output of {n} with stride {stride}");
            assert_eq!(pool.pad_before(n), pad, "padding of {n} with stride {stride}");
            assert_eq!(pool.window(0, n), first, "first window of {n} with stride {stride}");
            assert_eq!(pool.window(out - 1, n), last, "last window of {n} with stride {stride}");
        }
    }

    #[test]
    fn windows_of_auxiliary_heads_lie_inside_the_map() {
        // (n, output places, last window); 14 is GoogLeNet's map, 2 and 32 those of 32 and 512 px.
        let table = [
            (14, 4, 9..14),
            (1, 1, 0..1),
            (2, 1, 0..2),
            (4, 1, 0..4),
            (5, 1, 0..5),
            (7, 1, 0..5),
            (8, 2, 3..8),
            (32, 10, 27..32),
        ];
        for (n, out, last) in table {
            assert_eq!(AuxPool.output_len(n), out, "output of {n}");
            assert_eq!(AuxPool.window(0, n).start, 0, "first window of {n}");
            assert_eq!(AuxPool.window(out - 1, n), last, "last window of {n}");
        }
    }
}
