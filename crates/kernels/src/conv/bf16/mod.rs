//! Convolutions of bf16 numbers by instructions that multiply pairs of them.
//!
//! AMX multiplies a tile of 16 rows x 16 words with one of 16 words x 16 columns, a word being two
//! bf16 numbers that are neighbours in the sum; the dot products of AVX-512 do a part of the same. So
//! all directions are brought to products of two row tiles and two column tiles ([`multiply`]):
//!
//! - outputs and the gradient of the input ([`outputs`], divided by [`division`]): rows are pixels, columns
//!   are channels of the target, and the sum runs over the steps of [`geometry`](super::geometry) and their
//!   channels;
//! - the gradient of the weights ([`gradients`]): rows are output channels, columns are the channels of
//!   a step, and the sum runs over pixels.
//!
//! Tiles of AMX lie in strips ([`strips`]) in which every pixel of a chunk is copied once; taps
//! read them at different distances. Dot products read the pixels of maps one by one where they lie. What
//! is neither, as images for dot products, goes through panels into which every window is copied ([`words`]).
//!
//! Maps are bf16 in memory, or f32 whose values are bf16 numbers; of a number that is none, what lies
//! below is cut off.

pub(super) mod division;
pub(super) mod gradients;
pub(super) mod multiply;
pub(super) mod outputs;
pub(super) mod pack;
mod pieces;
mod strips;
mod words;

/// Rows, columns and words of a tile: those of AMX (64 bytes a row, 16 rows).
const SIDE: usize = 16;

/// Words of a tile, and f32 sums of one.
const WORDS: usize = SIDE * SIDE;

/// Pixels or channels of a panel: two tiles, so that each that is loaded is multiplied twice.
const PANEL: usize = 2 * SIDE;

/// What the panels or strips of a chunk may take of the second-level cache (1 MB on Zen 4, 2 MB on the first
/// processors with AMX), which their partner passes through too.
const CACHED_BYTES: usize = 512 * 1024;
