//! Where images come from.

use std::path::Path;

use image::RgbImage;

use crate::decode::{DecodeBuffers, Want, decode_file_with};
use crate::decode_options::DecodeOptions;
use crate::error::DataError;
use crate::sample::Sample;
use crate::shard::Packed;

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

    /// Decodes sample `index`. `want` may be called, once, with the size of the whole image, and the
    /// result then be only what is wanted.
    ///
    /// # Errors
    /// The image cannot be used. The loader reports it with its path and goes on.
    fn load(
        &self,
        index: usize,
        want: Want<'_>,
        buffers: &mut DecodeBuffers,
    ) -> Result<RgbImage, DataError>;
}

/// Image files, decoded when they are asked for, and images of shards, which are decoded already.
#[derive(Clone, Debug)]
pub struct FileSource {
    samples: Vec<Sample>,
    options: DecodeOptions,
    packed: Packed,
}

impl FileSource {
    /// Makes a source of `samples`, in their order.
    ///
    /// # Errors
    /// A shard is damaged, or was packed with another treatment of EXIF than that of `options`.
    pub fn new(samples: Vec<Sample>, options: DecodeOptions) -> Result<FileSource, DataError> {
        let packed = Packed::find(samples.iter().map(|sample| sample.path.as_path()))?;
        if packed.exif.is_some_and(|exif| exif != options.exif) {
            let expected = "what the images were packed with";
            return Err(DataError::setting("data.exif", options.exif, expected));
        }
        Ok(FileSource { samples, options, packed })
    }

    /// Reads sample `index` without decoding it, and returns how many bytes that took.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, index: usize, buffers: &mut DecodeBuffers) -> Result<usize, DataError> {
        let path = &self.samples[index].path;
        match self.packed.load(index, buffers.pixels()) {
            Some(image) => {
                let image = image.map_err(|source| DataError::image(path, source))?;
                let bytes = image.as_raw().len();
                buffers.recycle(image);
                Ok(bytes)
            }
            None => {
                buffers.read(path, &self.options).map_err(|source| DataError::image(path, source))
            }
        }
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

    fn load(
        &self,
        index: usize,
        want: Want<'_>,
        buffers: &mut DecodeBuffers,
    ) -> Result<RgbImage, DataError> {
        let path = &self.samples[index].path;
        match self.packed.load(index, buffers.pixels()) {
            Some(image) => image.map_err(|source| DataError::image(path, source)),
            None => decode_file_with(path, &self.options, want, buffers),
        }
    }
}
