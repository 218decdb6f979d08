//! Runs a network of [`bninception_model`]: one trait, [`Executor`], and the executors behind it.
#![forbid(unsafe_code)]

pub mod bench;
mod error;
mod executor;
mod fast;
mod profile;
mod reference;
pub mod sgd;

pub use bninception_kernels::dtype::Dtype;
pub use bninception_kernels::simd::Isa;
pub use bninception_kernels::team::Team;
pub use bninception_model as model;
pub use error::EngineError;
pub use executor::{Executor, TrainBatch, Watch};
pub use fast::{Fast, FastOptions};
pub use profile::{Phase, Profile, Row};
pub use reference::Reference;
