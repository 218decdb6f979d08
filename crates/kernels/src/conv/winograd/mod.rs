//! Winograd's minimal filtering F(4x4, 3x3): 3x3 filters with stride 1 and padding 1.
//!
//! Maps are cut into tiles of 4x4 outputs. A 6x6 patch of inputs is transformed into 36 values per
//! channel, so that the convolution becomes 36 matrix products of tiles x channels with transformed
//! weights, a quarter of the direct multiplications; the products are transformed back.
//! The products run in the direct algorithm's register tiles.

pub(super) mod gradients;
pub(super) mod outputs;
pub(super) mod pack;
mod transform;

use self::transform::{OUT, POINTS};
use super::kernel::Tile;
use super::shape::ConvShape;
use crate::map::{BLOCK, Map};

/// Most tiles that a thread transforms at a time. More of them read the transformed weights from
/// memory less often, fewer keep the transformed map closer to the core.
const TILES: usize = 56;

/// Bytes of both transformed maps of a block of tiles: they pass through the last-level cache once, and
/// the larger the block, the fewer times the sums are read and written, and threads wait for one another.
const TRANSFORMED_BYTES: usize = 8 << 20;
/// Most tiles of a block: on Zen 4, 112 ran as fast as 256 or up to a fifth faster.
const MOST_TILES: usize = 128;

/// Each thread has sums of its own where the values of both transformed maps are at least so many times
/// those of all sums. With two threads on Zen 4, sums of their own then cost nothing; at 4 times they
/// are 5 % slower, at 2.7 times 12 %. In the minutes in which a lent machine's cores seem far apart the
/// team takes 1.3 to 1.6 times as long (`docs/speed.md`).
const SUMS_BESIDE_MAPS: usize = 6;

/// Sizes of one direction, from a map of `in_blocks` to one of `out_blocks` channel blocks.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    pub in_blocks: usize,
    pub out_blocks: usize,
    /// One channel block of both maps.
    map: Map,
    /// Tiles of one image, down and across.
    tile_rows: usize,
    tile_columns: usize,
    /// Tiles of the batch.
    pub tiles: usize,
    /// Most tiles transformed at a time.
    pub capacity: usize,
    /// Sums of the gradient of the weights: one for each thread or one in all.
    pub sum_copies: usize,
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
            map: Map { channels: BLOCK, ..shape.in_map() },
            tile_rows,
            tile_columns,
            tiles: shape.batch * tile_rows * tile_columns,
            capacity: 0,
            sum_copies: 1,
            steps: Vec::new(),
        }
    }

    fn with_capacity(mut self, capacity: usize) -> Winograd {
        self.capacity = capacity;
        self.steps = (0..self.in_blocks).map(|block| block * capacity * BLOCK).collect();
        self
    }

    /// The forward direction, or with `backward` the gradient of the input, for `threads` threads
    /// that each have blocks of tiles to begin with.
    pub(super) fn outputs(
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
        let capacity = TILES.min(share).next_multiple_of(tile.pixels);
        sizes.with_capacity(capacity)
    }

    /// The gradient of the weights for `threads` threads.
    pub(super) fn gradients(shape: &ConvShape, threads: usize) -> Winograd {
        let sizes = Winograd::new(shape, shape.in_channels, shape.out_channels);
        let tile_len = POINTS * (shape.in_channels + shape.out_channels);
        let own = sizes.tiles >= threads
            && SUMS_BESIDE_MAPS * threads * sizes.weights_len() <= sizes.tiles * tile_len;
        let sum_copies = if own { threads } else { 1 };
        let cached = TRANSFORMED_BYTES / (tile_len * size_of::<f32>());
        let cached = cached.clamp(32, MOST_TILES);
        let capacity = cached.min(sizes.tiles.div_ceil(sum_copies));
        Winograd { sum_copies, ..sizes }.with_capacity(capacity)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_sums_of_their_own_where_maps_are_large_beside_the_filters() {
        for (batch, channels, size, threads, sum_copies) in [
            (32, (64, 192), 56, 2, 2),
            (32, (96, 96), 28, 2, 2),
            (32, (96, 96), 28, 16, 1),
            (32, (64, 96), 14, 2, 2),
            (32, (128, 128), 14, 2, 1),
            (32, (192, 320), 7, 2, 1),
            (1, (64, 192), 56, 2, 1),
            (1, (16, 16), 4, 2, 1), // one tile
        ] {
            let (in_channels, out_channels) = channels;
            let (kernel, stride, pad) = (3, 1, 1);
            let (in_height, in_width) = (size, size);
            let shape = ConvShape {
                batch,
                in_channels,
                out_channels,
                in_height,
                in_width,
                kernel,
                stride,
                pad,
            };
            let found = Winograd::gradients(&shape, threads).sum_copies;
            assert_eq!(found, sum_copies, "{threads} threads, {shape:?}");
        }
    }
}
