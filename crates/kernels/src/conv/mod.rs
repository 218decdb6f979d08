//! Convolutions over blocked maps, in the three directions that training needs.
//!
//! A [`Conv`] is prepared once for a shape, an instruction set and a team size; it owns tables and
//! no buffers. Weights are packed before use, outputs go straight into a channel slice of a wider
//! map ([`View`](crate::map::View)), and what follows a convolution at once is done while the outputs are still in
//! registers ([`Epilogue`]).
//!
//! Buffers are maps in the layout of [`crate::map`]. The halo of every source must be zero; of a
//! target only the pixels of the view are written and its halo is left alone, so a reused buffer
//! is cleared once with [`zero_halo`](crate::map::zero_halo). Buffers that start on a cache line (64 bytes) are fastest.
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
mod plan;
pub mod reference;
mod run;
mod shape;
mod winograd;

pub use calls::Epilogue;
pub use operands::ConvInput;
pub use plan::Conv;
pub use shape::{Algorithm, Algorithms, ConvShape};
