//! Why foreign weights cannot be taken over.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::file_error::FileError;
use crate::run::error::RunError;

/// Any failure of an import.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The system refuses a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not what its kind should be, or holds another network.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// The names of classes do not fit.
    #[error("{0}")]
    Classes(String),
    /// Settings that do not hold together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file cannot be read again.
    #[error(transparent)]
    Run(#[from] RunError),
}
