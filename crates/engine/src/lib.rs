//! Runs a network of [`bninception_model`]: one trait, [`Executor`], and the executors behind it.
#![forbid(unsafe_code)]

mod error;
mod executor;
mod reference;
pub mod sgd;

pub use bninception_model as model;
pub use error::EngineError;
pub use executor::{Executor, TrainBatch};
pub use reference::Reference;
