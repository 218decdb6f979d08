//! Runs a network of [`bninception_model`]: one trait, [`Executor`], and the executors behind it.
#![forbid(unsafe_code)]

pub mod bench;
mod error;
mod exchange;
mod executor;
mod fast;
mod held;
pub mod metrics;
mod norm_exchange;
mod norm_merge;
mod profile;
mod reference;
pub mod sgd;
mod state;

pub use bninception_kernels::dtype::Dtype;
pub use bninception_kernels::simd::{ISA_VARIABLE, Isa};
pub use bninception_model as model;
pub use bninception_model::batch::{Images, Normaliser};
pub use error::EngineError;
pub use exchange::{Alone, Exchange, Sums};
pub use executor::{
    BatchResult, EvaluationWeights, Executor, Features, Hooks, StepResult, TrainBatch, Update,
    UpdateResult, Watch,
};
pub use fast::{Fast, FastOptions};
pub use norm_exchange::NormExchange;
pub use profile::{Phase, Profile, Row};
pub use reference::Reference;
pub use state::ModelState;
