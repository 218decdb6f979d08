//! The random views of training images.

use image::RgbImage;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::colour::Colour;
use crate::crop::random_crop;
use crate::preprocess::{Normaliser, write_planes};
use crate::resize::{Edge, Interpolation, Resizer};

/// How training images are varied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Smallest and largest part of the image's area that a crop has.
    pub crop_area: [f64; 2],
    /// Smallest and largest ratio of width to height of a crop.
    pub crop_aspect: [f64; 2],
    /// Whether half of the crops are mirrored, left to right.
    pub mirror: bool,
    /// How strongly the colours are distorted.
    pub colour: Colour,
    /// The filter with which a crop is resized.
    pub interpolation: Interpolation,
}

impl Default for AugmentConfig {
    /// The ranges of GoogLeNet (Szegedy et al. 2014), section 6. Bilinear interpolation, not the
    /// paper's random choice, because it is what networks are evaluated with.
    fn default() -> Self {
        AugmentConfig {
            crop_area: [0.08, 1.0],
            crop_aspect: [3.0 / 4.0, 4.0 / 3.0],
            mirror: true,
            colour: Colour::Full,
            interpolation: Interpolation::Bilinear,
        }
    }
}

impl AugmentConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the field that is out of its range.
    pub fn validate(&self) -> Result<(), DataError> {
        let [low, high] = self.crop_area;
        if !(low > 0.0 && low <= high && high <= 1.0) {
            let expected = "two fractions of the area, 0 < smallest <= largest <= 1";
            return Err(DataError::setting("crop_area", self.crop_area, expected));
        }
        let [low, high] = self.crop_aspect;
        if !(low > 0.0 && low <= high && high.is_finite()) {
            let expected = "two ratios of width to height, 0 < smallest <= largest";
            return Err(DataError::setting("crop_aspect", self.crop_aspect, expected));
        }
        Ok(())
    }
}

/// Writes a random view of `image` to `planes` (3 x size x size, normalised).
///
/// Crop, filter, mirroring and colours are drawn in this order, so a config that changes a later
/// one leaves the earlier ones as they were.
pub(crate) fn augment<R: Rng>(
    image: &RgbImage,
    config: &AugmentConfig,
    size: usize,
    normaliser: &Normaliser,
    rng: &mut R,
    resizer: &mut Resizer,
    planes: &mut [f32],
) {
    let (width, height) = image.dimensions();
    let region = random_crop(width, height, config.crop_area, config.crop_aspect, rng);
    let filter = config.interpolation.filter(rng);
    let mirror = config.mirror && rng.random();
    let distortion = config.colour.draw(rng);

    let rgb = resizer.resize(image, region, Edge::Cut, filter, size);
    match distortion {
        None => normaliser.write(rgb, size, mirror, planes),
        Some(distortion) => {
            write_planes(rgb, size, mirror, &UNIT, planes);
            distortion.into_iter().for_each(|operation| operation.apply(planes));
            normaliser.normalise(planes);
        }
    }
}

/// The levels as fractions of 255, for each channel.
static UNIT: [[f32; 256]; 3] = {
    let mut fractions = [0.0; 256];
    let mut level = 0;
    while level < 256 {
        fractions[level] = level as f32 / 255.0;
        level += 1;
    }
    [fractions; 3]
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Preprocessing;
    use crate::random::{Purpose, sample_rng};

    fn view(config: &AugmentConfig, index: u64) -> Vec<f32> {
        let image = RgbImage::from_fn(40, 30, |x, y| {
            image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y % 251) as u8])
        });
        let normaliser = Normaliser::new(&Preprocessing::default());
        let mut rng = sample_rng(4, 1, index, Purpose::Augment);
        let mut planes = vec![0.0; 3 * 16 * 16];
        let mut resizer = Resizer::default();
        augment(&image, config, 16, &normaliser, &mut rng, &mut resizer, &mut planes);
        planes
    }

    #[test]
    fn later_draws_do_not_disturb_earlier_ones() {
        let plain = AugmentConfig {
            mirror: false,
            colour: Colour::None,
            interpolation: Interpolation::Bilinear,
            ..AugmentConfig::default()
        };
        let mirrored = AugmentConfig { mirror: true, ..plain.clone() };
        let mut n_mirrored = 0;
        for index in 0..400 {
            let (straight, other) = (view(&plain, index), view(&mirrored, index));
            if straight == other {
                continue;
            }
            n_mirrored += 1;
            for (row, other_row) in straight.chunks_exact(16).zip(other.chunks_exact(16)) {
                assert!(row.iter().eq(other_row.iter().rev()), "index {index}");
            }
        }
        // Five standard deviations of 400 throws of a coin.
        assert!((150..=250).contains(&n_mirrored), "{n_mirrored} of 400 are mirrored");
        let coloured = AugmentConfig { colour: Colour::Full, ..plain.clone() };
        assert_ne!(view(&plain, 0), view(&coloured, 0));
        assert_eq!(view(&coloured, 0), view(&coloured, 0));
    }

    #[test]
    fn configs_out_of_range_are_refused() {
        let good = AugmentConfig::default();
        assert!(good.validate().is_ok());
        let bad = [
            AugmentConfig { crop_area: [0.0, 1.0], ..good.clone() },
            AugmentConfig { crop_area: [0.5, 0.1], ..good.clone() },
            AugmentConfig { crop_area: [0.5, 1.5], ..good.clone() },
            AugmentConfig { crop_area: [f64::NAN, 1.0], ..good.clone() },
            AugmentConfig { crop_aspect: [0.0, 1.0], ..good.clone() },
            AugmentConfig { crop_aspect: [1.0, f64::INFINITY], ..good },
        ];
        for config in bad {
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
