//! The kernels as safe functions. Each checks the sizes of what it is given, and says what it moves.
//!
//! Values in device memory are f32 unless a [`Map`](crate::Map) or the name says otherwise. `accumulate` adds to
//! what the result's memory holds, instead of overwriting it.
//!
//! # Panics
//! All of them panic if regions are too small for the sizes given, sizes do not fit each other, or a region that is
//! written meets another argument where that is not allowed.

mod arguments;
pub mod batch_norm;
pub mod head;
pub mod image;
pub mod layout;
pub mod lrn;
pub mod pool;
pub mod update;

pub(crate) use arguments::THREADS;
