//! What can go wrong when a network runs.

use bninception_model::ModelError;

/// Errors of the engine crate.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The network, a buffer or a label is wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
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
