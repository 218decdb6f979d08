//! A convolution prepared: the algorithm of each direction, and its sizes and tables.

use super::bf16::division::Division;
use super::bf16::gradients::GradientDivision;
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
    algorithms: Algorithms,
    pub(super) forward: Direction,
    /// `None` for convolutions that read images, which need no gradient.
    pub(super) backward_input: Option<Direction>,
    pub(super) backward_weights: WeightsWay,
}

/// A direction whose result is a map.
#[derive(Debug)]
pub(super) struct Direction {
    pub passes: Passes,
    pub way: MapWay,
}

/// How a map is computed, and the sizes of that.
#[derive(Debug)]
pub(super) enum MapWay {
    Direct {
        /// Register tiles of a unit of work.
        chunk_tiles: usize,
    },
    Winograd(Winograd),
    Bf16(Division),
}

/// How the gradient of the weights is computed, and the sizes of that.
#[derive(Debug)]
pub(super) enum WeightsWay {
    Direct {
        /// Sums over a share of the pixels each.
        sum_copies: usize,
    },
    Winograd(Winograd),
    Bf16(GradientDivision),
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
        let aligned = Multiplier::of(isa).reads_tiles();
        let (in_size, out_size) = ((s.in_height, s.in_width), (s.out_height(), s.out_width()));
        let passes = Passes { aligned, ..Passes::forward(s) };
        let way = match algorithms.forward {
            Algorithm::Direct => MapWay::Direct {
                chunk_tiles: direct::outputs::chunk_tiles(
                    s.in_channels,
                    s.stride,
                    out_pixels,
                    tile,
                    groups(s.out_channels),
                    threads,
                ),
            },
            Algorithm::Winograd => MapWay::Winograd(Winograd::outputs(s, false, tile, threads)),
            Algorithm::Bf16 => {
                let blocks = s.out_channels / BLOCK;
                MapWay::Bf16(Division::new(&passes, in_size, s.batch, blocks, threads))
            }
        };
        let forward = Direction { passes, way };
        let backward_input = (!s.reads_image()).then(|| {
            let passes = Passes { aligned, ..Passes::backward_input(s) };
            let way = match algorithms.backward_input {
                Algorithm::Direct => MapWay::Direct {
                    chunk_tiles: direct::outputs::chunk_tiles(
                        s.out_channels,
                        1,
                        in_pixels / (s.stride * s.stride),
                        tile,
                        groups(s.in_channels),
                        threads,
                    ),
                },
                Algorithm::Winograd => MapWay::Winograd(Winograd::outputs(s, true, tile, threads)),
                Algorithm::Bf16 => {
                    let blocks = s.in_channels / BLOCK;
                    MapWay::Bf16(Division::new(&passes, out_size, s.batch, blocks, threads))
                }
            };
            Direction { passes, way }
        });
        let backward_weights = match algorithms.backward_weights {
            Algorithm::Direct => {
                WeightsWay::Direct { sum_copies: direct::gradients::sum_copies(s, threads) }
            }
            Algorithm::Winograd => WeightsWay::Winograd(Winograd::gradients(s, threads)),
            Algorithm::Bf16 => WeightsWay::Bf16(GradientDivision::new(s, &forward.passes, threads)),
        };
        Conv {
            shape,
            isa,
            tile,
            threads,
            dtype: Dtype::F32,
            algorithms,
            forward,
            backward_input,
            backward_weights,
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
        self.forward.packed_len(self.shape.out_channels / BLOCK)
    }

    /// Elements of the weights as [`Conv::pack_backward`] leaves them; 0 for images.
    pub fn packed_backward_len(&self) -> usize {
        let blocks = self.shape.in_channels / BLOCK;
        self.backward_input.as_ref().map_or(0, |direction| direction.packed_len(blocks))
    }

    /// Elements of the workspace that any call needs; its contents carry nothing between calls.
    pub fn workspace_len(&self) -> usize {
        let of_map = |direction: &Direction| match &direction.way {
            MapWay::Direct { .. } => self.copy_len(&direction.passes.layout),
            MapWay::Winograd(sizes) => self.threads * sizes.outputs_len(self.tile),
            MapWay::Bf16(division) => {
                self.copy_len(&direction.passes.layout) + self.threads * division.scratch_len()
            }
        };
        let (passes, out_blocks) = (&self.forward.passes, self.shape.out_channels / BLOCK);
        let backward_weights = match &self.backward_weights {
            WeightsWay::Direct { sum_copies } => {
                let sums = direct::pack::packed_len(passes, out_blocks);
                self.copy_len(&passes.layout) + sum_copies * sums
            }
            WeightsWay::Winograd(sizes) => {
                sizes.sum_copies * (sizes.transformed_len() + sizes.weights_len())
            }
            WeightsWay::Bf16(division) => {
                let sums = bf16::pack::sums_len(passes, out_blocks);
                let scratch = self.threads * division.reading.scratch_len(out_blocks);
                self.copy_len(&passes.layout) + division.sum_copies * sums + scratch
            }
        };
        let backward_input = self.backward_input.as_ref().map_or(0, of_map);
        (of_map(&self.forward) + self.sums_len()).max(backward_input).max(backward_weights)
    }

    /// Elements of the images as [`Conv::pack_image`] leaves them, and of what is read in whole blocks
    /// behind the last; 0 for maps.
    pub fn image_len(&self) -> usize {
        let images = self.shape.batch * self.forward.passes.layout.plane;
        if self.shape.reads_image() { images + 2 * BLOCK } else { 0 }
    }

    /// Elements of the partial sums for batch norm.
    pub(super) fn sums_len(&self) -> usize {
        let (pass, batch) = (&self.forward.passes.passes[0], self.shape.batch);
        let chunks = match &self.forward.way {
            MapWay::Direct { chunk_tiles } => {
                direct::outputs::chunks(pass, self.tile, *chunk_tiles, batch)
            }
            MapWay::Winograd(sizes) => sizes.blocks(self.threads),
            MapWay::Bf16(division) => division.chunks(batch, pass.pixels.len()),
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

impl Direction {
    /// Elements of the packed weights, with `blocks` channel blocks of the target.
    fn packed_len(&self, blocks: usize) -> usize {
        match &self.way {
            MapWay::Direct { .. } => direct::pack::packed_len(&self.passes, blocks),
            MapWay::Winograd(sizes) => sizes.weights_len(),
            MapWay::Bf16(_) => bf16::pack::packed_len(&self.passes, blocks),
        }
    }
}
