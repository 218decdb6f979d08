//! What happens to an image before a network sees it, outside of training.
//!
//! [`Preprocessing`] is stored with a trained network: the same pixels must reach it wherever it is
//! used.

use std::path::Path;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::crops::Crops;
use crate::decode::{DecodeOptions, decode_file};
use crate::error::DataError;
use crate::resize::{Edge, Filter, Resizer};

/// The largest side of a network's input that is accepted: a typing mistake ends here, not in an
/// allocation of gigabytes.
pub const MAX_IMAGE_SIZE: usize = 4096;

/// How a decoded image becomes the input of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Side of the square input, in pixels.
    pub image_size: usize,
    /// The part of the resized image's short side that evaluation keeps, in (0, 1].
    pub crop_ratio: f64,
    /// Subtracted from red, green and blue in [0, 1], where the network reads them.
    pub mean: [f32; 3],
    /// Divides red, green and blue after that.
    pub std: [f32; 3],
    /// Whether the EXIF orientation is applied.
    pub exif: bool,
    /// The filter of evaluation crops.
    pub interpolation: Filter,
}

impl Default for Preprocessing {
    /// 224 pixels of 256; mean and standard deviation of the ImageNet training images
    /// (<https://pytorch.org/vision/stable/models.html>).
    fn default() -> Self {
        Preprocessing {
            image_size: 224,
            crop_ratio: 0.875,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            exif: true,
            interpolation: Filter::Bilinear,
        }
    }
}

impl Preprocessing {
    /// Number of levels of one input: `image_size` x `image_size` x 3.
    pub fn n_values(&self) -> usize {
        3 * self.image_size * self.image_size
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the field that is out of its range.
    pub fn validate(&self) -> Result<(), DataError> {
        if !(1..=MAX_IMAGE_SIZE).contains(&self.image_size) {
            let expected = "a side from 1 to 4096 pixels";
            return Err(DataError::setting("image_size", self.image_size, expected));
        }
        // Below a tenth the resized image is ten times the input: a mistake, not a crop.
        if !(0.1..=1.0).contains(&self.crop_ratio) {
            let expected = "a fraction from 0.1 to 1";
            return Err(DataError::setting("crop_ratio", self.crop_ratio, expected));
        }
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return Err(DataError::setting("mean", self.mean, "three finite numbers"));
        }
        if !self.std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return Err(DataError::setting("std", self.std, "three finite numbers above 0"));
        }
        Ok(())
    }

    pub(crate) fn decode_options(&self) -> DecodeOptions {
        DecodeOptions { exif: self.exif, ..DecodeOptions::default() }
    }
}

/// Copies an interleaved square image, mirrored left to right if asked.
///
/// # Shapes
/// `rgb` and `levels`: size x size x 3.
pub(crate) fn copy_levels(rgb: &[u8], size: usize, mirror: bool, levels: &mut [u8]) {
    if !mirror {
        levels.copy_from_slice(rgb);
        return;
    }
    for (from, to) in rgb.chunks_exact(size * 3).zip(levels.chunks_exact_mut(size * 3)) {
        for (from, to) in from.chunks_exact(3).rev().zip(to.chunks_exact_mut(3)) {
            to.copy_from_slice(from);
        }
    }
}

/// Writes the network's inputs for evaluating `image`, one for each crop, to `levels` (crops x size x
/// size x 3).
pub(crate) fn preprocess(
    image: &RgbImage,
    crops: Crops,
    preprocessing: &Preprocessing,
    resizer: &mut Resizer,
    levels: &mut [u8],
) {
    let Preprocessing { image_size, crop_ratio, interpolation, .. } = *preprocessing;
    let mut inputs = levels.chunks_exact_mut(preprocessing.n_values());
    for region in crops.regions(image.width(), image.height(), image_size, crop_ratio) {
        let rgb = resizer.resize(image, region, Edge::Continue, interpolation, image_size);
        let mirrors: &[bool] = if crops.mirrored() { &[false, true] } else { &[false] };
        for (&mirror, input) in mirrors.iter().zip(inputs.by_ref()) {
            copy_levels(rgb, image_size, mirror, input);
        }
    }
}

/// Reads the image at `path` and returns the network's input, size x size x 3.
///
/// The same levels as those of [`crate::Loader::eval`].
///
/// # Errors
/// The file is no image that can be used, or a setting is out of its range.
pub fn preprocess_file(path: &Path, preprocessing: &Preprocessing) -> Result<Vec<u8>, DataError> {
    preprocessing.validate()?;
    let image = decode_file(path, &preprocessing.decode_options())?;
    let mut levels = vec![0; preprocessing.n_values()];
    let resizer = &mut Resizer::default();
    preprocess(&image, Crops::One, preprocessing, resizer, &mut levels);
    Ok(levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_copied_or_mirrored() {
        let rgb: Vec<u8> = vec![0, 10, 20, 255, 50, 60, 70, 80, 90, 100, 110, 120];
        for (mirror, pixels) in [(false, [0, 1, 2, 3]), (true, [1, 0, 3, 2])] {
            let mut levels = vec![0; 12];
            copy_levels(&rgb, 2, mirror, &mut levels);
            let expected: Vec<u8> =
                pixels.iter().flat_map(|pixel| &rgb[3 * pixel..][..3]).copied().collect();
            assert_eq!(levels, expected, "mirror {mirror}");
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = Preprocessing::default();
        assert!(good.validate().is_ok());
        let cases = [
            (Preprocessing { image_size: 0, ..good.clone() }, "image_size = 0"),
            (Preprocessing { image_size: 100_000, ..good.clone() }, "image_size = 100000"),
            (Preprocessing { crop_ratio: 0.0, ..good.clone() }, "crop_ratio = 0"),
            (Preprocessing { crop_ratio: f64::NAN, ..good.clone() }, "crop_ratio = NaN"),
            (Preprocessing { mean: [f32::NAN; 3], ..good.clone() }, "mean = [NaN"),
            (Preprocessing { std: [1.0, 0.0, 1.0], ..good }, "std = [1.0, 0.0"),
        ];
        for (preprocessing, message) in cases {
            let error = preprocessing.validate().unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
