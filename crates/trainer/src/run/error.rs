//! Why a run's folder cannot be used.

use crate::file_error::FileError;
use crate::run::checkpoint::CheckpointError;

/// Any failure with the folder of a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A folder that was asked for in the wrong way.
    #[error("{0}")]
    Usage(String),
    /// A folder that does not hold what it should, or a thread that ended.
    #[error("{0}")]
    Unusable(String),
    /// A checkpoint that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file or folder other than checkpoints.
    #[error(transparent)]
    File(#[from] FileError),
}
