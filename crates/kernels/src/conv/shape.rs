//! Sizes of a convolution, and the rule that picks an algorithm.

use crate::dtype::Dtype;
use crate::map::{BLOCK, Map};
use crate::simd::isa::Isa;

/// Sizes of one convolution, without groups or dilation; square filter, stride and padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Input channels: a multiple of 16, or any smaller number for a convolution that reads images.
    pub in_channels: usize,
    /// Output channels: a multiple of 16.
    pub out_channels: usize,
    /// Input rows.
    pub in_height: usize,
    /// Input columns.
    pub in_width: usize,
    /// Rows and columns of the filter.
    pub kernel: usize,
    /// Step between outputs, in input pixels.
    pub stride: usize,
    /// Zero rows and columns assumed on every side of the input; less than `kernel`.
    pub pad: usize,
}

impl ConvShape {
    /// Output rows.
    pub fn out_height(&self) -> usize {
        (self.in_height + 2 * self.pad - self.kernel) / self.stride + 1
    }

    /// Output columns.
    pub fn out_width(&self) -> usize {
        (self.in_width + 2 * self.pad - self.kernel) / self.stride + 1
    }

    /// Filter positions: `kernel` squared.
    pub fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Elements of the weights, laid out OIHW.
    pub fn weights(&self) -> usize {
        self.out_channels * self.in_channels * self.taps()
    }

    /// Elements of the input and the output of the batch.
    pub(super) fn map_elements(&self) -> usize {
        let inputs = self.in_channels * self.in_height * self.in_width;
        let outputs = self.out_channels * self.out_height() * self.out_width();
        self.batch * (inputs + outputs)
    }

    /// Multiply-accumulates of one direction, padding counted: the figure that papers quote.
    pub fn macs(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.weights()
    }

    /// Whether the input is a packed image (see [`Conv::pack_image`](super::Conv::pack_image))
    /// and not a blocked map.
    pub fn reads_image(&self) -> bool {
        !self.in_channels.is_multiple_of(BLOCK)
    }

    /// The map of the input, where it is not an image.
    pub fn in_map(&self) -> Map {
        Map { channels: self.in_channels, height: self.in_height, width: self.in_width }
    }

    /// The map of the output.
    pub fn out_map(&self) -> Map {
        Map { channels: self.out_channels, height: self.out_height(), width: self.out_width() }
    }
}

/// How a direction of a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Multiply and add every tap; any shape, maps of f32 only.
    Direct,
    /// Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray 2015, <https://arxiv.org/abs/1509.09308>):
    /// 36 multiplications for 16 outputs in place of 144, at about ten times the rounding error.
    /// 3x3 filters with stride 1 and padding 1 only.
    Winograd,
    /// Multiply and add every tap, factors being bf16 numbers, by the machine's instructions for them
    /// ([`Isa::Avx512Bf16`], [`Isa::Amx`]) or, slowly, without; any shape.
    Bf16,
}

/// The algorithm of each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithms {
    /// Of [`Conv::forward`](super::Conv::forward).
    pub forward: Algorithm,
    /// Of [`Conv::backward_input`](super::Conv::backward_input).
    pub backward_input: Algorithm,
    /// Of [`Conv::backward_weights`](super::Conv::backward_weights).
    pub backward_weights: Algorithm,
}

impl Algorithms {
    /// The format of maps in memory that suits the algorithms that [`Algorithms::choose`] chooses:
    /// bf16 where the machine multiplies it, f32 otherwise, whose values may be bf16 numbers.
    pub fn map_dtype(isa: Isa, dtype: Dtype) -> Dtype {
        if isa >= Isa::Avx512Bf16 { dtype } else { Dtype::F32 }
    }

    /// The same algorithm in all three directions.
    pub fn all(algorithm: Algorithm) -> Algorithms {
        Algorithms { forward: algorithm, backward_input: algorithm, backward_weights: algorithm }
    }

    /// The faster algorithm for each direction of `shape` on a machine with `isa`; never Winograd
    /// without `winograd`.
    ///
    /// In bf16, AMX has 16 times the multiplications of AVX-512 in f32, and dot products have twice as
    /// many, which is less than Winograd saves where it is chosen for f32.
    ///
    /// Winograd computes whole tiles and reads four times as many weights, so it must save enough
    /// multiplications and have enough tiles to share the weights. Measured on Zen 4 with 16 to 320
    /// channels: it takes 0.8 to 0.9 of the direct time where it saves a factor of 1.6 (maps of
    /// 5x5), 0.65 to 0.75 at 2.25 (6x6), and 0.35 to 0.6 from 3 on; at 32 tiles and a saving of
    /// 2.25 packing the weights takes what the products save. All three directions agree, but beside dot
    /// products of bf16 outputs and gradients of the input want more tiles: 32 of them, as 32 images of
    /// 4x4 have, make 450 GFLOP/s by these and 395 by Winograd's algorithm; 128 of them, of 8x8, make
    /// 560 to 615 by that.
    pub fn choose(shape: &ConvShape, isa: Isa, winograd: bool, dtype: Dtype) -> Algorithms {
        const LEAST_SAVING: f64 = 2.5;
        const LEAST_TILES: usize = 32;
        const LEAST_TILES_BF16: usize = 64;
        let pairs = Algorithms::map_dtype(isa, dtype) == Dtype::Bf16;
        let direct = if pairs { Algorithm::Bf16 } else { Algorithm::Direct };
        if !winograd || !Algorithm::Winograd.supports(shape) || (pairs && isa >= Isa::Amx) {
            return Algorithms::all(direct);
        }
        let tiles = shape.in_height.div_ceil(4) * shape.in_width.div_ceil(4);
        let products = shape.taps() * shape.in_height * shape.in_width;
        let saving = products as f64 / (36 * tiles) as f64;
        let tiles = shape.batch * tiles;
        let choose = |least_tiles| match saving >= LEAST_SAVING && tiles >= least_tiles {
            true => Algorithm::Winograd,
            false => direct,
        };
        let outputs = choose(if pairs { LEAST_TILES_BF16 } else { LEAST_TILES });
        Algorithms {
            forward: outputs,
            backward_input: outputs,
            backward_weights: choose(LEAST_TILES),
        }
    }
}

impl Algorithm {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Direct => "direct",
            Algorithm::Winograd => "winograd",
            Algorithm::Bf16 => "bf16",
        }
    }

    /// Whether the algorithm can compute `shape`.
    pub fn supports(self, shape: &ConvShape) -> bool {
        match self {
            Algorithm::Direct | Algorithm::Bf16 => true,
            Algorithm::Winograd => {
                (shape.kernel, shape.stride, shape.pad) == (3, 1, 1) && !shape.reads_image()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(batch: usize, in_channels: usize, size: usize, filter: [usize; 3]) -> ConvShape {
        let [kernel, stride, pad] = filter;
        ConvShape {
            batch,
            in_channels,
            out_channels: 32,
            in_height: size,
            in_width: size,
            kernel,
            stride,
            pad,
        }
    }

    #[test]
    fn sizes_follow_the_usual_formula() {
        for (size, filter, out) in [
            (224, [7, 2, 3], 112),
            (28, [3, 2, 1], 14),
            (13, [3, 2, 1], 7),
            (1, [3, 1, 1], 1),
            (7, [1, 1, 0], 7),
        ] {
            let s = shape(1, 16, size, filter);
            assert_eq!((s.out_height(), s.out_width()), (out, out), "{s:?}");
        }
        // Inception 3a's second 3x3 convolution of the double branch has 96 x 96 x 9 weights.
        let s = ConvShape { out_channels: 96, ..shape(2, 96, 28, [3, 1, 1]) };
        assert_eq!((s.weights(), s.macs()), (82_944, 2 * 28 * 28 * 82_944));
    }

    #[test]
    fn maps_of_bf16_meet_no_direct_algorithm() {
        for isa in [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx] {
            assert_eq!(Algorithms::map_dtype(isa, Dtype::F32), Dtype::F32);
            if Algorithms::map_dtype(isa, Dtype::Bf16) == Dtype::F32 {
                continue;
            }
            for (batch, channels, size) in [(1, 16, 1), (32, 64, 4), (32, 64, 28), (32, 3, 224)] {
                for filter in [[1, 1, 0], [3, 1, 1], [3, 2, 1], [5, 1, 2], [7, 2, 3]] {
                    let s = shape(batch, channels, size, filter);
                    for winograd in [true, false] {
                        let found = Algorithms::choose(&s, isa, winograd, Dtype::Bf16);
                        let all = [found.forward, found.backward_input, found.backward_weights];
                        assert!(!all.contains(&Algorithm::Direct), "{s:?} {isa:?}: {found:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn winograd_is_chosen_where_it_saves() {
        use Algorithm::{Bf16, Direct, Winograd};
        for (batch, size, filter, winograd, expected) in [
            (32, 56, [3, 1, 1], true, Winograd),
            (32, 14, [3, 1, 1], true, Winograd),
            (32, 7, [3, 1, 1], true, Winograd),
            (64, 4, [3, 1, 1], true, Winograd),
            (2, 28, [3, 1, 1], true, Winograd),
            (32, 56, [3, 1, 1], false, Direct),
            (32, 5, [3, 1, 1], true, Direct),
            (32, 3, [3, 1, 1], true, Direct),
            (32, 2, [3, 1, 1], true, Direct),
            (1, 7, [3, 1, 1], true, Direct),
            (32, 28, [3, 2, 1], true, Direct),
            (32, 28, [1, 1, 0], true, Direct),
            (32, 28, [5, 1, 2], true, Direct),
            (32, 28, [3, 1, 0], true, Direct),
        ] {
            let s = shape(batch, 64, size, filter);
            for (isa, dtype, direct, winograd_or) in [
                (Isa::Avx2, Dtype::F32, Direct, Winograd),
                (Isa::Avx2, Dtype::Bf16, Direct, Winograd),
                (Isa::Amx, Dtype::F32, Direct, Winograd),
                (Isa::Avx512Bf16, Dtype::Bf16, Bf16, Winograd),
                (Isa::Amx, Dtype::Bf16, Bf16, Bf16),
            ] {
                let expected = if expected == Winograd { winograd_or } else { direct };
                let found = Algorithms::choose(&s, isa, winograd, dtype);
                assert_eq!(found, Algorithms::all(expected), "{s:?} {isa:?} {dtype:?}");
            }
        }
        let few = Algorithms { backward_weights: Winograd, ..Algorithms::all(Bf16) };
        for (dtype, expected) in [(Dtype::F32, Algorithms::all(Winograd)), (Dtype::Bf16, few)] {
            let found =
                Algorithms::choose(&shape(32, 64, 4, [3, 1, 1]), Isa::Avx512Bf16, true, dtype);
            assert_eq!(found, expected, "32 tiles, {dtype:?}");
        }
        let image = shape(32, 3, 56, [3, 1, 1]);
        let found = Algorithms::choose(&image, Isa::Avx2, true, Dtype::F32);
        assert_eq!(found, Algorithms::all(Direct));
    }
}
