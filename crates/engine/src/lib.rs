//! Runs a network of [`bninception_model`]: one trait, [`Executor`], and the executors behind it.
#![forbid(unsafe_code)]

pub mod bench;
mod counted;
mod error;
mod exchange;
mod executor;
mod fast;
pub mod gpu;
mod held;
mod lowering;
pub mod metrics;
mod norm_exchange;
mod norm_merge;
mod profile;
mod reference;
pub mod sgd;
mod state;

pub use bninception_cuda as cuda;
pub use bninception_kernels::dtype::Dtype;
pub use bninception_kernels::simd::{ISA_VARIABLE, Isa};
pub use bninception_model as model;
pub use bninception_model::batch::{Images, Normaliser};
pub use error::EngineError;
pub use exchange::{Alone, Exchange, Sums};
pub use executor::{
    BatchResult, DeviceMemory, EvaluationWeights, Executor, Fate, Features, Finished, Hooks,
    Pipeline, StepResult, Traced, TrainBatch, Update, UpdateResult, Watch,
};
pub use fast::{Fast, FastOptions};
pub use gpu::{Gpu, GpuOptions, HostConvolutions};
pub use norm_exchange::NormExchange;
pub use profile::{Phase, Profile, Row};
pub use reference::Reference;
pub use state::ModelState;
