//! What can go wrong when a network is built or run.

/// Errors of the model crate.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// An option of the network is outside its range.
    #[error("network option {what}: expected {expected}, found {found}")]
    Option {
        /// The option.
        what: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value given.
        found: String,
    },
    /// Parts that training cannot leave as they are.
    #[error("cannot freeze `{range}`: {reason}")]
    Frozen {
        /// The parts.
        range: String,
        /// Why not.
        reason: String,
    },
    /// A buffer does not have the length that the network or the batch needs.
    #[error("{what}: expected {expected} values, found {found}")]
    Length {
        /// The buffer.
        what: &'static str,
        /// Length needed.
        expected: usize,
        /// Length given.
        found: usize,
    },
    /// A label without an output of the network.
    #[error("label {label} of image {image} in the batch: the network has {classes} classes")]
    Label {
        /// Position in the batch.
        image: usize,
        /// The label.
        label: u32,
        /// Outputs of the network.
        classes: usize,
    },
    /// Batch norm cannot estimate a variance from a single value.
    #[error(
        "batch norm {layer} sees one value per channel (batch of 1, map of 1x1), which has no \
         variance: train with a larger batch or larger images"
    )]
    SingleValue {
        /// The layer.
        layer: String,
    },
    /// Processes could not tell each other what their batch norms see.
    #[error("the exchange of batch norm between ranks failed: {0}")]
    Ranks(Box<dyn std::error::Error + Send + Sync>),
    /// A tensor operation of the reference executor failed.
    #[error("reference executor, layer {layer}: {source}")]
    Candle {
        /// The layer that was running.
        layer: String,
        /// candle's own error.
        source: candle_core::Error,
    },
}
