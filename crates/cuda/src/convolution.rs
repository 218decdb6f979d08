//! What is convolved, and in which direction.

use std::fmt;

use crate::launch::Cost;
use crate::map::Format;
use crate::memory::Region;

/// What a convolution multiplies and stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32 maps and filters, products in f32.
    F32,
    /// f32 maps and filters, factors rounded to TF32 (10 bits of significand) where they are multiplied.
    Tf32,
    /// bf16 maps and filters, sums in f32.
    Bf16,
}

impl Precision {
    /// The name in options and logs.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }

    /// The format of maps and of the filters that are multiplied.
    pub fn format(self) -> Format {
        match self {
            Precision::F32 | Precision::Tf32 => Format::F32,
            Precision::Bf16 => Format::Bf16,
        }
    }
}

/// What is computed from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Output from input and filters.
    Forward,
    /// Gradient of the input from filters and the output's gradient.
    InputGradient,
    /// Gradient of the filters from input and the output's gradient.
    FilterGradient,
}

impl Direction {
    /// All three.
    pub const ALL: [Direction; 3] =
        [Direction::Forward, Direction::InputGradient, Direction::FilterGradient];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::InputGradient => "input gradient",
            Direction::FilterGradient => "filter gradient",
        }
    }
}

/// A convolution with square filters in one direction. All operands are packed, channels last: the input
/// `[n][h][w][c]`, filters `[k][r][s][c]`, the output `[n][out_h][out_w][k]`.
///
/// They are in the format of the precision, but the gradient of the filters, which is f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// What is computed.
    pub direction: Direction,
    /// What it computes with.
    pub precision: Precision,
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Rows of the input.
    pub in_height: usize,
    /// Columns of the input.
    pub in_width: usize,
    /// Rows and columns of a filter.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros on each side of the input.
    pub pad: usize,
    /// Whether the result is added to what its operand holds.
    pub accumulate: bool,
    /// Whether the same operands must give the same bits each time.
    pub deterministic: bool,
}

impl Convolution {
    /// Rows of the output.
    pub fn out_height(&self) -> usize {
        (self.in_height + 2 * self.pad - self.kernel) / self.stride + 1
    }

    /// Columns of the output.
    pub fn out_width(&self) -> usize {
        (self.in_width + 2 * self.pad - self.kernel) / self.stride + 1
    }

    /// Values of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.in_height * self.in_width * self.in_channels
    }

    /// Values of the filters.
    pub fn filter_len(&self) -> usize {
        self.out_channels * self.kernel * self.kernel * self.in_channels
    }

    /// Values of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.out_channels
    }

    /// Multiply-accumulates.
    pub fn macs(&self) -> usize {
        self.output_len() * self.kernel * self.kernel * self.in_channels
    }

    /// Bytes of input, filters and output.
    pub fn operand_bytes(&self) -> [usize; 3] {
        let size = self.precision.format().size();
        let filters = match self.direction {
            Direction::FilterGradient => Format::F32.size(),
            _ => size,
        };
        [self.input_len() * size, self.filter_len() * filters, self.output_len() * size]
    }

    /// What it moves and computes. What it adds to is read too.
    pub fn cost(&self) -> Cost {
        let operands = self.operand_bytes();
        let written = match self.direction {
            Direction::Forward => operands[2],
            Direction::InputGradient => operands[0],
            Direction::FilterGradient => operands[1],
        };
        let again = if self.accumulate { written } else { 0 };
        Cost { bytes: operands.iter().sum::<usize>() + again, operations: 2 * self.macs() }
    }
}

impl fmt::Display for Convolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Convolution { batch, in_channels, out_channels, in_height, in_width, .. } = self;
        let Convolution { kernel, stride, pad, direction, precision, .. } = self;
        write!(
            f,
            "{kernel}x{kernel} stride {stride} pad {pad}, {batch}x{in_channels}x{in_height}x{in_width} to \
             {out_channels} channels, {}, {}",
            direction.name(),
            precision.name()
        )
    }
}

/// A convolution that a device has chosen an algorithm for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvolutionPlan {
    /// Its number on the device.
    pub(crate) id: usize,
    /// What it computes.
    pub(crate) convolution: Convolution,
    /// Bytes of scratch that it needs.
    pub(crate) workspace: usize,
}

impl ConvolutionPlan {
    /// What it computes.
    pub fn convolution(&self) -> &Convolution {
        &self.convolution
    }

    /// Bytes of scratch that a run needs.
    pub fn workspace(&self) -> usize {
        self.workspace
    }
}

/// What a convolution reads and writes: its direction says which.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// The input or its gradient.
    pub input: Region,
    /// The filters or their gradient.
    pub filters: Region,
    /// The output or its gradient.
    pub output: Region,
    /// Scratch of [`ConvolutionPlan::workspace`] bytes or more.
    pub workspace: Region,
}
