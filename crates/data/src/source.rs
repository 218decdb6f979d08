//! Where images come from.

use std::path::Path;

use image::RgbImage;

use crate::DataError;
use crate::decode::{DecodeBuffers, DecodeOptions, decode_file_with};
use crate::folder::Sample;

/// A list of labelled images that several threads read at once.
///
/// The length, the labels and the images must not change while a loader uses the source: batches
/// are promised to be the same every time.
pub trait Source: Send + Sync {
    /// Number of samples; at most `u32::MAX`.
    fn len(&self) -> usize;

    /// Returns whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of sample `index`, which is less than [`Source::len`].
    fn label(&self, index: usize) -> u32;

    /// The file of sample `index`, for messages.
    fn path(&self, index: usize) -> &Path;

    /// Decodes sample `index`.
    ///
    /// # Errors
    /// The image cannot be used. The loader reports it with its path and goes on.
    fn load(&self, index: usize, buffers: &mut DecodeBuffers) -> Result<RgbImage, DataError>;
}

/// Image files, decoded when they are asked for.
#[derive(Clone, Debug)]
pub struct FileSource {
    samples: Vec<Sample>,
    options: DecodeOptions,
}

impl FileSource {
    /// Makes a source of `samples`, in their order.
    pub fn new(samples: Vec<Sample>, options: DecodeOptions) -> FileSource {
        FileSource { samples, options }
    }

    /// The samples, in their order.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}

impl Source for FileSource {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn label(&self, index: usize) -> u32 {
        self.samples[index].label
    }

    fn path(&self, index: usize) -> &Path {
        &self.samples[index].path
    }

    fn load(&self, index: usize, buffers: &mut DecodeBuffers) -> Result<RgbImage, DataError> {
        decode_file_with(&self.samples[index].path, &self.options, buffers)
    }
}
