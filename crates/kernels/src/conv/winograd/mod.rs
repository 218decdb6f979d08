//! Winograd's minimal filtering F(4x4, 3x3): 3x3 filters with stride 1 and padding 1.
//!
//! Maps are cut into tiles of 4x4 outputs. A 6x6 patch of inputs is transformed into 36 values per
//! channel, so that the convolution becomes 36 matrix products of tiles x channels with transformed
//! weights, a quarter of the direct multiplications; the products are transformed back.
//! The products run in the direct algorithm's register tiles.

mod pack;
mod products;
mod transform;
mod weights;

pub(super) use pack::{Pack, Unpack};
pub(super) use products::Products;
pub(super) use weights::{Gradients, Phase};

use super::vector::Tile;
use super::{BLOCK, ConvShape};
use transform::{OUT, POINTS};

/// Sizes of one direction, from a map of `in_blocks` to one of `out_blocks` channel blocks.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    pub in_blocks: usize,
    pub out_blocks: usize,
    /// Rows and columns of both maps.
    height: usize,
    width: usize,
    /// Tiles of one image, down and across.
    tile_rows: usize,
    tile_columns: usize,
    /// Tiles of the batch.
    pub tiles: usize,
    /// Most tiles transformed at a time.
    pub capacity: usize,
    /// Distances of the source's channel blocks within one point, in elements.
    steps: Vec<usize>,
}

impl Winograd {
    /// Sizes for tiles `capacity` at a time.
    fn new(shape: &ConvShape, in_channels: usize, out_channels: usize) -> Winograd {
        let tile_rows = shape.in_height.div_ceil(OUT);
        let tile_columns = shape.in_width.div_ceil(OUT);
        Winograd {
            in_blocks: in_channels / BLOCK,
            out_blocks: out_channels / BLOCK,
            height: shape.in_height,
            width: shape.in_width,
            tile_rows,
            tile_columns,
            tiles: shape.batch * tile_rows * tile_columns,
            capacity: 0,
            steps: Vec::new(),
        }
    }

    fn with_capacity(mut self, capacity: usize) -> Winograd {
        self.capacity = capacity;
        self.steps = (0..self.in_blocks).map(|block| block * capacity * BLOCK).collect();
        self
    }

    /// The forward direction, or with `backward` the gradient of the input, for `threads` threads
    /// that each transform tiles of their own.
    pub(super) fn products(
        shape: &ConvShape,
        backward: bool,
        tile: Tile,
        threads: usize,
    ) -> Winograd {
        let (from, to) = if backward {
            (shape.out_channels, shape.in_channels)
        } else {
            (shape.in_channels, shape.out_channels)
        };
        let sizes = Winograd::new(shape, from, to);
        let share = sizes.tiles.div_ceil(threads);
        let capacity = products::TILES.min(share).next_multiple_of(tile.pixels);
        sizes.with_capacity(capacity)
    }

    /// The gradient of the weights, for a team that transforms tiles together.
    pub(super) fn gradients(shape: &ConvShape) -> Winograd {
        let sizes = Winograd::new(shape, shape.in_channels, shape.out_channels);
        let tile_bytes = POINTS * (shape.in_channels + shape.out_channels) * size_of::<f32>();
        let cached = (weights::TRANSFORMED_BYTES / tile_bytes).clamp(32, weights::MOST_TILES);
        let capacity = cached.min(sizes.tiles);
        sizes.with_capacity(capacity)
    }

    /// Elements of the transformed weights, and of their gradient, in groups of at least a block.
    pub(super) fn weights_len(&self) -> usize {
        POINTS * self.out_blocks * self.weight_point_len(BLOCK)
    }

    /// Elements from one point of a group of `width` output channels to the next. As for maps, a line
    /// more than they take keeps the 36 points out of one cache set.
    fn weight_point_len(&self, width: usize) -> usize {
        self.in_blocks * BLOCK * width + BLOCK
    }

    /// Where the group that starts with `block` lies in the transformed weights, groups being
    /// `group_blocks` wide but for the last.
    fn weight_group(&self, block: usize, group_blocks: usize) -> usize {
        block / group_blocks * POINTS * self.weight_point_len(group_blocks * BLOCK)
    }

    /// Image, tile row and tile column of tile `index` of the batch.
    fn place(&self, index: usize) -> (usize, usize, usize) {
        let (rest, column) = (index / self.tile_columns, index % self.tile_columns);
        (rest / self.tile_rows, rest % self.tile_rows, column)
    }

    /// Elements from one point of the transformed map of `blocks` blocks to the next. A line more
    /// than they take keeps the 36 points out of one cache set.
    fn point_len(&self, blocks: usize) -> usize {
        (blocks * self.capacity + 1) * BLOCK
    }
}
