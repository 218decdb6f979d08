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
    /// Subtracted from red, green and blue in [0, 1].
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
    /// Number of values of one input: 3 x `image_size` x `image_size`.
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

/// The network's value of each of the 256 levels of each channel: `(level / 255 - mean) / std`.
#[derive(Clone, Debug)]
pub(crate) struct Normaliser {
    mean: [f32; 3],
    std: [f32; 3],
    table: Box<[[f32; 256]; 3]>,
}

impl Normaliser {
    pub(crate) fn new(preprocessing: &Preprocessing) -> Normaliser {
        let Preprocessing { mean, std, .. } = *preprocessing;
        let mut table = Box::new([[0.0; 256]; 3]);
        for c in 0..3 {
            for level in 0..256 {
                table[c][level] = (level as f32 / 255.0 - mean[c]) / std[c];
            }
        }
        Normaliser { mean, std, table }
    }

    /// Writes the normalised planes of an interleaved square image, mirrored if asked.
    ///
    /// # Shapes
    /// `rgb`: size x size x 3. `planes`: 3 x size x size.
    pub(crate) fn write(&self, rgb: &[u8], size: usize, mirror: bool, planes: &mut [f32]) {
        write_planes(rgb, size, mirror, &self.table, planes);
    }

    /// Normalises planes in [0, 1] in place. `planes`: 3 x pixels.
    pub(crate) fn normalise(&self, planes: &mut [f32]) {
        let n_pixels = planes.len() / 3;
        for (c, plane) in planes.chunks_exact_mut(n_pixels).enumerate() {
            let (mean, std) = (self.mean[c], self.std[c]);
            plane.iter_mut().for_each(|x| *x = (*x - mean) / std);
        }
    }
}

/// Looks up every value of an interleaved square image in the table of its channel.
pub(crate) fn write_planes(
    rgb: &[u8],
    size: usize,
    mirror: bool,
    table: &[[f32; 256]; 3],
    planes: &mut [f32],
) {
    debug_assert_eq!(rgb.len(), planes.len());
    let (red, rest) = planes.split_at_mut(size * size);
    let (green, blue) = rest.split_at_mut(size * size);
    let rows = rgb.chunks_exact(size * 3);
    let out_rows = red
        .chunks_exact_mut(size)
        .zip(green.chunks_exact_mut(size))
        .zip(blue.chunks_exact_mut(size));
    for (row, ((red, green), blue)) in rows.zip(out_rows) {
        let out = red.iter_mut().zip(green).zip(blue);
        let write = |(pixel, ((r, g), b)): (&[u8], ((&mut f32, &mut f32), &mut f32))| {
            *r = table[0][usize::from(pixel[0])];
            *g = table[1][usize::from(pixel[1])];
            *b = table[2][usize::from(pixel[2])];
        };
        if mirror {
            row.chunks_exact(3).rev().zip(out).for_each(write);
        } else {
            row.chunks_exact(3).zip(out).for_each(write);
        }
    }
}

/// Writes the network's inputs for evaluating `image`, one for each crop, to `planes` (crops x 3 x
/// size x size).
pub(crate) fn preprocess(
    image: &RgbImage,
    crops: Crops,
    preprocessing: &Preprocessing,
    normaliser: &Normaliser,
    resizer: &mut Resizer,
    planes: &mut [f32],
) {
    let Preprocessing { image_size, crop_ratio, interpolation, .. } = *preprocessing;
    let mut inputs = planes.chunks_exact_mut(preprocessing.n_values());
    for region in crops.regions(image.width(), image.height(), image_size, crop_ratio) {
        let rgb = resizer.resize(image, region, Edge::Continue, interpolation, image_size);
        let mirrors: &[bool] = if crops.mirrored() { &[false, true] } else { &[false] };
        for (&mirror, input) in mirrors.iter().zip(inputs.by_ref()) {
            normaliser.write(rgb, image_size, mirror, input);
        }
    }
}

/// Reads the image at `path` and returns the network's input, 3 x size x size.
///
/// The same values as those of [`crate::Loader::eval`].
///
/// # Errors
/// The file is no image that can be used, or a setting is out of its range.
pub fn preprocess_file(path: &Path, preprocessing: &Preprocessing) -> Result<Vec<f32>, DataError> {
    preprocessing.validate()?;
    let image = decode_file(path, &preprocessing.decode_options())?;
    let mut planes = vec![0.0; preprocessing.n_values()];
    let normaliser = Normaliser::new(preprocessing);
    let resizer = &mut Resizer::default();
    preprocess(&image, Crops::One, preprocessing, &normaliser, resizer, &mut planes);
    Ok(planes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_hold_the_normalised_levels() {
        let preprocessing = Preprocessing { image_size: 2, ..Preprocessing::default() };
        let normaliser = Normaliser::new(&preprocessing);
        let rgb: Vec<u8> = vec![0, 10, 20, 255, 50, 60, 70, 80, 90, 100, 110, 120];
        let value = |pixel: usize, c: usize| {
            (f32::from(rgb[pixel * 3 + c]) / 255.0 - preprocessing.mean[c]) / preprocessing.std[c]
        };
        for (mirror, pixels) in [(false, [0, 1, 2, 3]), (true, [1, 0, 3, 2])] {
            let mut planes = vec![0.0; 12];
            normaliser.write(&rgb, 2, mirror, &mut planes);
            let expected: Vec<f32> =
                (0..3).flat_map(|c| pixels.map(|pixel| value(pixel, c))).collect();
            assert_eq!(planes, expected, "mirror {mirror}");
        }
        let mut unit: Vec<f32> = (0..3)
            .flat_map(|c| (0..4).map(move |i| (i, c)))
            .map(|(i, c)| f32::from(rgb[i * 3 + c]) / 255.0)
            .collect();
        let mut planes = vec![0.0; 12];
        normaliser.write(&rgb, 2, false, &mut planes);
        normaliser.normalise(&mut unit);
        assert_eq!(unit, planes, "both ways to normalise agree");
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
