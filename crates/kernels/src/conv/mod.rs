//! Convolutions over blocked maps, in the three directions that training needs.
//!
//! A [`Conv`] is prepared once for a shape, an instruction set and a team size; it owns tables and no
//! buffers. Weights are packed before use, outputs go straight into the channel blocks of a wider map
//! ([`View`](crate::map::View)), and what follows a convolution at once is done while the outputs are still
//! in registers ([`Epilogue`]).
//!
//! # Which way wins when
//!
//! [`Algorithms::choose`] picks one way for each direction of a shape, Winograd's only if the caller allows it:
//!
//! | way | chosen for | factors and sums |
//! |---|---|---|
//! | `direct` | f32: images, filters that are not 3x3, stride 2, and maps too small for Winograd | f32 |
//! | `winograd` | 3x3 filters with stride 1 and padding 1, where it saves 2.5 times the multiplications and has 32 tiles, in bf16 64 for outputs and input gradients, and never where AMX multiplies bf16 | f32, also from maps of bf16 |
//! | `bf16` | bf16 on AVX-512 BF16 wherever Winograd does not win, and everywhere on AMX | bf16, sums f32 |
//!
//! bf16 on a machine without instructions for it is f32 arithmetic on rounded numbers, by the ways of f32.
//!
//! **Direct** (`direct/`) multiplies and adds every tap. Its floor is the machine's peak, 234 GFLOP/s on two
//! cores of Zen 4; whole 224 px training steps reach 206 forward, 196 for the gradient of the input and 182
//! for that of the weights on 1x1 filters, and 199 and 170 on the 7x7 filters of the image.
//!
//! **Winograd** (`winograd/`) needs a quarter of the multiplications of a 3x3 filter, and a third where a map's
//! side is no multiple of 4, at about ten times the rounding error, and reads four times as many weights. So
//! it must save enough multiplications, and have enough tiles to share the weights. On Zen 4 with 16 to 320
//! channels it takes 0.8 to 0.9 of the direct time where it saves a factor of 1.6 (maps of 5x5), 0.65 to 0.75
//! at 2.25 (6x6) and 0.35 to 0.6 from 3 on; with 32 tiles and a saving of 2.25, packing the weights takes
//! what the products save. Counted as the definition's operations it makes 587 to 597 GFLOP/s on maps of
//! 56x56 and 458 to 487 on those of 28x28 to 7x7.
//!
//! **bf16** (`bf16/`) multiplies pairs of bf16 numbers. Dot products of AVX-512 have twice the multiplications of
//! f32 (peak 468 GFLOP/s), which is less than Winograd saves where that is chosen: 128 tiles, of 8x8 maps,
//! make 560 to 615 GFLOP/s by Winograd; 32 tiles, of 4x4, make 395 by Winograd and 450 by dot products, which
//! is why outputs beside them want 64. AMX has 16 times the multiplications of f32: 3x3 filters of 56x56 maps
//! run at 2312 GFLOP/s forward, and nothing else is chosen.
//!
//! How each divides its work, and why, stands at its constants: the pixels of a chunk in `direct/`, the tiles
//! of a block in `winograd/`, the panels and strips of a chunk in `bf16/`. [`mod@reference`] is the definition.
//!
//! # The way of a call
//!
//! `calls.rs` checks the arguments, `plan.rs` has chosen the way and its sizes, and `run.rs` brings both to a
//! kernel: a body over registers (`kernel.rs`) that reads a source and writes a target (`operands.rs`) by the
//! tables of `geometry.rs`, and finishes its results on their way to memory (`finish.rs`).
//!
//! # What callers rely on
//!
//! The halo of every source must be zero; of a target only the pixels are written and its halo is left alone,
//! so a reused buffer is cleared once with [`PlanesMut::zero_halo`](crate::planes::PlanesMut::zero_halo).
//! Buffers that start on a cache line (64 bytes) are fastest.
//!
//! Results do not depend on timing. Outputs and input gradients are the same bits for any number
//! of threads; sums for batch norm and weight gradients are the same bits for the same number.

mod bf16;
mod calls;
mod copy;
mod direct;
mod finish;
mod geometry;
mod kernel;
mod operands;
mod pixels;
mod plan;
pub mod reference;
mod run;
mod shape;
mod winograd;

pub use calls::Epilogue;
pub use operands::ConvInput;
pub use pixels::LevelValues;
pub use plan::Conv;
pub use shape::{Algorithm, Algorithms, ConvShape};
