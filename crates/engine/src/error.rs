//! What can go wrong when a network runs.

use bninception_cuda::DeviceError;
use bninception_model::ModelError;

/// Errors of the engine crate.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The network, a buffer or a label is wrong.
    #[error(transparent)]
    Model(ModelError),
    /// An executor was asked for something before it was given a state.
    #[error("no state is loaded: call load first")]
    NotLoaded,
    /// An update was asked for without gradients.
    #[error("an update without a micro-batch: call gradients first")]
    NoGradients,
    /// The ranks could not exchange their sums.
    #[error("the exchange between ranks failed: {0}")]
    Exchange(Box<dyn std::error::Error + Send + Sync>),
    /// The device failed, or has too little memory.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Evaluation was asked for before it was given weights.
    #[error("evaluation without weights: call prepare_evaluation first")]
    NotPrepared,
    /// A kernel's answer differs from its definition.
    #[error(
        "wrong answer of {what}; do not train with this build on this machine before it is \
         understood ({} picks other instructions)",
        bninception_kernels::simd::ISA_VARIABLE
    )]
    WrongAnswer {
        /// The operation, the value found and the one expected.
        what: String,
    },
    /// A combination of settings that no executor offers.
    #[error("{what} is not supported by the {engine} engine; {hint}")]
    Unsupported {
        /// The setting.
        what: String,
        /// The executor.
        engine: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
}

impl From<ModelError> for EngineError {
    fn from(error: ModelError) -> EngineError {
        match error {
            ModelError::Ranks(error) => EngineError::Exchange(error),
            error => EngineError::Model(error),
        }
    }
}
