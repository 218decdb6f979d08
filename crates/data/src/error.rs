//! What can go wrong between a folder and a batch.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of this crate. Every variant says where it happened and what to do about it.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done: "read", "list", "create", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason given by the operating system.
        source: io::Error,
    },
    /// A folder is not laid out as an image folder.
    #[error("{}: {problem}", dir.display())]
    Layout {
        /// The folder that was looked at.
        dir: PathBuf,
        /// What was found, what was expected, and what to do.
        problem: String,
    },
    /// One image cannot be used.
    #[error("{}: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        source: DecodeError,
    },
    /// A scan was asked to stop.
    #[error("stopped while listing folders")]
    Stopped,
    /// A setting is out of its range.
    #[error("{field} = {found}: expected {expected}")]
    Setting {
        /// The name of the setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// The values that are accepted.
        expected: &'static str,
    },
    /// A loader thread could not be started.
    #[error("cannot start a data thread: {0}; lower the number of workers")]
    Thread(io::Error),
    /// A loader thread panicked: a defect of the program, not of the data.
    #[error("a data worker panicked while making batch {step}: {message}")]
    Panic {
        /// The batch that was being made.
        step: u64,
        /// The panic's own message.
        message: String,
    },
}

impl DataError {
    /// Returns a function that turns an [`io::Error`] into [`DataError::Io`], for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
        move |source| DataError::Io { action, path: path.to_path_buf(), source }
    }

    pub(crate) fn image(path: &Path, source: DecodeError) -> DataError {
        DataError::Image { path: path.to_path_buf(), source }
    }

    pub(crate) fn layout(dir: &Path, problem: impl Into<String>) -> DataError {
        DataError::Layout { dir: dir.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn setting(
        field: &'static str,
        found: impl std::fmt::Debug,
        expected: &'static str,
    ) -> DataError {
        DataError::Setting { field, found: format!("{found:?}"), expected }
    }
}

/// Why the bytes of an image cannot become pixels.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The file could not be read.
    #[error("cannot read the file: {0}")]
    Io(#[from] io::Error),
    /// The path names a pipe, a device or a folder.
    #[error("it is no regular file: expected an image file, found a pipe, a device or a folder")]
    NotAFile,
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// The file is larger than the limit.
    #[error("the file has {found} bytes, the limit is {max}")]
    TooManyBytes {
        /// Size of the file.
        found: u64,
        /// [`crate::DecodeOptions::max_bytes`].
        max: u64,
    },
    /// The header announces more pixels than the limit.
    #[error("the header announces {width} x {height} pixels, the limit is {max} pixels in all")]
    TooManyPixels {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// [`crate::DecodeOptions::max_pixels`].
        max: u64,
    },
    /// The header announces an image without pixels.
    #[error("the header announces {width} x {height} pixels")]
    NoPixels {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
    },
    /// The first bytes are of none of the formats that are read.
    #[error("not a JPEG, PNG, WebP, BMP, GIF or TIFF image (the file begins with \"{begins}\")")]
    UnknownFormat {
        /// The first bytes, escaped.
        begins: String,
    },
    /// The first bytes are of another format, which is known by name.
    #[error("not a JPEG, PNG, WebP, BMP, GIF or TIFF image but {found}: {advice}")]
    ForeignFormat {
        /// What the file is.
        found: &'static str,
        /// What to do about it.
        advice: &'static str,
    },
    /// The pixels are stored in a way that is not read, or has no agreed meaning as a colour.
    #[error("{found} is not supported: convert the image to PNG or JPEG")]
    Unsupported {
        /// What is not read.
        found: String,
    },
    /// The file ends before the image does.
    #[error("the file ends before the image does: it is truncated")]
    Truncated,
    /// The decoder refused the content.
    #[error("{0}")]
    Corrupt(String),
}
