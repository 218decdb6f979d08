//! What a list of images is made of.

use std::path::PathBuf;

/// One image file and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The file.
    pub path: PathBuf,
    /// Position of the class in the list of classes.
    pub label: u32,
}
