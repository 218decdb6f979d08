//! A convolution prepared: the algorithm of each direction, and its sizes and tables.

use super::bf16::division::Division;
use super::bf16::multiply::Multiplier;
use super::geometry::{Layout, Passes};
use super::kernel::Tile;
use super::shape::{Algorithm, Algorithms, ConvShape};
use super::winograd::Winograd;
use super::{bf16, direct};
use crate::dtype::Dtype;
use crate::map::BLOCK;
use crate::simd::isa::Isa;

/// A convolution prepared for one shape, instruction set and team size.
#[derive(Debug)]
pub struct Conv {
    pub(super) shape: ConvShape,
    pub(super) isa: Isa,
    pub(super) tile: Tile,
    pub(super) threads: usize,
    pub(super) dtype: Dtype,
    pub(super) algorithms: Algorithms,
    pub(super) forward: Passes,
    /// `None` for convolutions that read images, which need no gradient.
    pub(super) backward_input: Option<Passes>,
    /// Register tiles of a unit of work, forward and for the gradient of the input.
    pub(super) forward_chunk: usize,
    pub(super) backward_chunk: usize,
    /// Shares of the pixels for the gradient of the weights.
    pub(super) parts: usize,
    /// Sizes of the directions that use Winograd.
    pub(super) winograd: WinogradSizes,
    /// Of the directions that multiply pairs of bf16 numbers.
    pub(super) pairs: PairSizes,
}

/// Sizes of each direction that multiplies pairs of bf16 numbers.
#[derive(Debug)]
pub(super) struct PairSizes {
    pub forward: Option<Division>,
    pub backward_input: Option<Division>,
    pub backward_weights: Option<bf16::gradients::Division>,
}

/// Sizes of each direction that uses Winograd.
#[derive(Debug)]
pub(super) struct WinogradSizes {
    pub forward: Option<Winograd>,
    pub backward_input: Option<Winograd>,
    pub backward_weights: Option<Winograd>,
}

impl Conv {
    /// Prepares `shape` for factors of `dtype` with the faster algorithm for each direction, which is
    /// never Winograd unless `winograd` allows it.
    ///
    /// # Panics
    /// If the shape is impossible or the machine lacks `isa`.
    pub fn new(shape: ConvShape, isa: Isa, threads: usize, winograd: bool, dtype: Dtype) -> Conv {
        let algorithms = Algorithms::choose(&shape, isa, winograd, dtype);
        Conv::with_algorithms(shape, isa, threads, algorithms).with_dtype(dtype)
    }

    /// Prepares `shape` with the algorithms given.
    ///
    /// # Panics
    /// If the shape is impossible, an algorithm does not support it, or the machine lacks `isa`.
    pub fn with_algorithms(
        shape: ConvShape,
        isa: Isa,
        threads: usize,
        algorithms: Algorithms,
    ) -> Conv {
        let s = &shape;
        assert!(threads > 0, "a convolution needs at least one thread");
        assert!(Isa::available().contains(&isa), "this machine has no {}", isa.name());
        assert!(s.batch > 0 && s.stride > 0 && s.kernel > 0, "empty convolution: {s:?}");
        assert!(s.pad < s.kernel, "padding must be less than the filter: {s:?}");
        assert!(
            s.in_height + 2 * s.pad >= s.kernel && s.in_width + 2 * s.pad >= s.kernel,
            "the filter is larger than the padded input: {s:?}"
        );
        assert!(
            s.out_channels > 0 && s.out_channels.is_multiple_of(BLOCK),
            "output channels must be a multiple of {BLOCK}: {s:?}"
        );
        assert!(
            s.in_channels > 0 && (s.in_channels < BLOCK || !s.reads_image()),
            "input channels must be a multiple of {BLOCK}, or fewer for images: {s:?}"
        );
        for algorithm in
            [algorithms.forward, algorithms.backward_input, algorithms.backward_weights]
        {
            assert!(algorithm.supports(s), "{algorithm:?} cannot compute {s:?}");
        }
        let tile = Tile::of(isa);
        let groups = |channels: usize| channels.div_ceil(BLOCK * tile.group_blocks);
        let out_pixels = s.batch * s.out_height() * s.out_width();
        let in_pixels = s.batch * s.in_height * s.in_width;
        let forward_chunk = direct::outputs::chunk_tiles(
            s.in_channels,
            s.stride,
            out_pixels,
            tile,
            groups(s.out_channels),
            threads,
        );
        let backward_chunk = direct::outputs::chunk_tiles(
            s.out_channels,
            1,
            in_pixels / (s.stride * s.stride),
            tile,
            groups(s.in_channels),
            threads,
        );
        let uses = |algorithm| algorithm == Algorithm::Winograd;
        let winograd = WinogradSizes {
            forward: uses(algorithms.forward).then(|| Winograd::products(s, false, tile, threads)),
            backward_input: uses(algorithms.backward_input)
                .then(|| Winograd::products(s, true, tile, threads)),
            backward_weights: uses(algorithms.backward_weights)
                .then(|| Winograd::gradients(s, threads)),
        };
        let aligned = Multiplier::of(isa).reads_tiles();
        let forward = Passes { aligned, ..Passes::forward(s) };
        let backward_input =
            (!s.reads_image()).then(|| Passes { aligned, ..Passes::backward_input(s) });
        let in_pairs = |algorithm| algorithm == Algorithm::Bf16;
        let divide = |passes: &Passes, size, channels: usize| {
            Division::new(passes, size, s.batch, channels / BLOCK, threads)
        };
        let (in_size, out_size) = ((s.in_height, s.in_width), (s.out_height(), s.out_width()));
        let pairs = PairSizes {
            forward: in_pairs(algorithms.forward)
                .then(|| divide(&forward, in_size, s.out_channels)),
            backward_input: backward_input
                .as_ref()
                .filter(|_| in_pairs(algorithms.backward_input))
                .map(|passes| divide(passes, out_size, s.in_channels)),
            backward_weights: in_pairs(algorithms.backward_weights)
                .then(|| bf16::gradients::Division::new(s, &forward, threads)),
        };
        Conv {
            shape,
            winograd,
            pairs,
            isa,
            tile,
            threads,
            dtype: Dtype::F32,
            algorithms,
            forward,
            backward_input,
            forward_chunk,
            backward_chunk,
            parts: direct::gradients::parts(s, threads),
        }
    }

    /// Sets the format of the factors: [`Conv::pack`], [`Conv::pack_backward`] and
    /// [`Conv::pack_image`] round to it, and [`Conv::forward`] rounds outputs that an epilogue with
    /// a bias completes, which are the next convolution's factors. Sources are taken as they are.
    /// [`Algorithm::Bf16`] packs weights as bf16 in any case, and cuts off what is no bf16 number of
    /// sources.
    pub fn with_dtype(self, dtype: Dtype) -> Conv {
        Conv { dtype, ..self }
    }

    /// The sizes.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The algorithm of each direction.
    pub fn algorithms(&self) -> Algorithms {
        self.algorithms
    }

    /// Elements of the weights as [`Conv::pack`] leaves them.
    pub fn packed_len(&self) -> usize {
        if self.pairs.forward.is_some() {
            return bf16::pack::packed_len(&self.forward, self.shape.out_channels / BLOCK);
        }
        self.winograd.forward.as_ref().map_or_else(|| self.direct_len(), Winograd::weights_len)
    }

    /// Elements of the weights as [`Conv::pack_backward`] leaves them; 0 for images.
    pub fn packed_backward_len(&self) -> usize {
        let blocks = self.shape.in_channels / BLOCK;
        match (&self.winograd.backward_input, &self.backward_input) {
            (Some(winograd), _) => winograd.weights_len(),
            (None, Some(passes)) if self.pairs.backward_input.is_some() => {
                bf16::pack::packed_len(passes, blocks)
            }
            (None, Some(passes)) => direct::pack::packed_len(passes, blocks),
            (None, None) => 0,
        }
    }

    /// Elements of the workspace that any call needs; its contents carry nothing between calls.
    pub fn workspace_len(&self) -> usize {
        let products = |winograd: &Winograd| self.threads * winograd.products_len(self.tile);
        let scratch = |division: &Option<Division>| {
            division.as_ref().map_or(0, |division| self.threads * division.scratch_len())
        };
        let forward = match &self.winograd.forward {
            Some(winograd) => products(winograd),
            None => self.copy_len(&self.forward.layout) + scratch(&self.pairs.forward),
        };
        let backward_input = match (&self.winograd.backward_input, &self.backward_input) {
            (Some(winograd), _) => products(winograd),
            (None, Some(passes)) => {
                self.copy_len(&passes.layout) + scratch(&self.pairs.backward_input)
            }
            (None, None) => 0,
        };
        let out_blocks = self.shape.out_channels / BLOCK;
        let backward_weights = match &self.winograd.backward_weights {
            Some(winograd) => {
                winograd.shares * (winograd.transformed_len() + winograd.weights_len())
            }
            None => {
                let sums = match &self.pairs.backward_weights {
                    Some(division) => {
                        division.shares * bf16::pack::sums_len(&self.forward, out_blocks)
                            + self.threads * division.reading.scratch_len(out_blocks)
                    }
                    None => self.parts * self.direct_len(),
                };
                self.copy_len(&self.forward.layout) + sums
            }
        };
        (forward + self.sums_len()).max(backward_input).max(backward_weights)
    }

    /// Elements of the images as [`Conv::pack_image`] leaves them, and of what is read in whole blocks
    /// behind the last; 0 for maps.
    pub fn image_len(&self) -> usize {
        let images = self.shape.batch * self.forward.layout.plane;
        if self.shape.reads_image() { images + 2 * BLOCK } else { 0 }
    }

    /// Elements of the weights in the direct forward order.
    pub(super) fn direct_len(&self) -> usize {
        direct::pack::packed_len(&self.forward, self.shape.out_channels / BLOCK)
    }

    /// Elements of the partial sums for batch norm.
    pub(super) fn sums_len(&self) -> usize {
        let chunks = match &self.winograd.forward {
            Some(sizes) => sizes.blocks(self.threads),
            None => {
                let (pass, batch) = (&self.forward.passes[0], self.shape.batch);
                match &self.pairs.forward {
                    Some(division) => division.chunks(batch, pass.pixels.len()),
                    None => direct::outputs::chunks(pass, self.tile, self.forward_chunk, batch),
                }
            }
        };
        chunks * 2 * self.shape.out_channels
    }

    /// Elements of the copy of a map that `layout` asks for; images come as such a copy.
    pub(super) fn copy_len(&self, layout: &Layout) -> usize {
        match layout.copied_blocks {
            Some(blocks) if layout.pixel == BLOCK => self.shape.batch * blocks * layout.plane,
            _ => 0,
        }
    }
}
