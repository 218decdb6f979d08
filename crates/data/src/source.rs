//! Where images come from.

use std::path::Path;

use image::RgbImage;

use crate::decode::{DecodeBuffers, DecodeOptions, Shrink, decode_file_with};
use crate::folder::Sample;
use crate::pack::{Packed, Place};
use crate::{DataError, DecodeError};

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

    /// Decodes sample `index`. `shrink` may be called, once, with the size of the whole image, and
    /// the result then be smaller by as much as it allows.
    ///
    /// # Errors
    /// The image cannot be used. The loader reports it with its path and goes on.
    fn load(
        &self,
        index: usize,
        shrink: Shrink<'_>,
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
        match self.packed.place(index) {
            Place::File => {
                buffers.read(path, &self.options).map_err(|source| image_error(path, source))
            }
            _ => {
                let image = self.load(index, &mut |_, _| 1, buffers)?;
                let bytes = image.as_raw().len();
                buffers.recycle(image);
                Ok(bytes)
            }
        }
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

    fn load(
        &self,
        index: usize,
        shrink: Shrink<'_>,
        buffers: &mut DecodeBuffers,
    ) -> Result<RgbImage, DataError> {
        let path = &self.samples[index].path;
        match self.packed.place(index) {
            Place::File => decode_file_with(path, &self.options, shrink, buffers),
            Place::Shard(shard, record) => {
                shrink(record.width, record.height);
                let image = record.read(self.packed.shard(*shard), buffers.take_pixels());
                image.map_err(|source| image_error(path, source))
            }
            Place::Missing(reason) => {
                Err(image_error(path, DecodeError::Corrupt(reason.to_string())))
            }
        }
    }
}

fn image_error(path: &Path, source: DecodeError) -> DataError {
    DataError::Image { path: path.to_path_buf(), source }
}
