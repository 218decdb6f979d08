//! The random views of training images.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::colour::{Colour, Operation};
use crate::crop::{Region, random_crop};
use crate::decode::Wanted;
use crate::error::DataError;
use crate::mirror::Mirror;
use crate::preprocess::copy_levels;
use crate::random::{Purpose, ViewKey, sample_rng};
use crate::resize::{Edge, Filter, Interpolation, Resizer};

/// How training images are varied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Smallest and largest part of the image's area that a crop has.
    pub crop_area: [f64; 2],
    /// Smallest and largest ratio of width to height of a crop.
    pub crop_aspect: [f64; 2],
    /// Which images are mirrored, left to right.
    pub mirror: Mirror,
    /// How strongly the colours are distorted.
    pub colour: Colour,
    /// The filter with which a crop is resized.
    pub interpolation: Interpolation,
    /// The alpha of mixup, at most 1; 0 mixes no images. A batch is mixed at a share that is drawn from
    /// Beta(alpha, alpha) (Zhang et al. 2018, <https://arxiv.org/abs/1710.09412>).
    pub mixup: f64,
}

impl Default for AugmentConfig {
    /// The ranges of GoogLeNet (Szegedy et al. 2014), section 6. Bilinear interpolation, not the
    /// paper's random choice, because it is what networks are evaluated with.
    fn default() -> Self {
        AugmentConfig {
            crop_area: [0.08, 1.0],
            crop_aspect: [3.0 / 4.0, 4.0 / 3.0],
            mirror: Mirror::Random,
            colour: Colour::Full,
            interpolation: Interpolation::Bilinear,
            mixup: 0.0,
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
        if !(0.0..=1.0).contains(&self.mixup) {
            return Err(DataError::setting("mixup", self.mixup, "a number from 0 (none) to 1"));
        }
        Ok(())
    }
}

/// One random view of an image, drawn before the image is decoded.
#[derive(Clone, Debug)]
pub struct View {
    /// Width and height of the whole image.
    full: (u32, u32),
    /// Side of the square that the network sees.
    size: usize,
    region: Region,
    filter: Filter,
    mirror: bool,
    distortion: Option<[Operation; 4]>,
}

impl View {
    /// Draws the view `key` of an image of `width` x `height`, `size` x `size` pixels.
    ///
    /// Crop, filter, mirroring and colours are drawn in this order, so a config that changes a later
    /// one leaves the earlier ones as they were.
    pub fn draw(
        width: u32,
        height: u32,
        config: &AugmentConfig,
        size: usize,
        key: &ViewKey,
    ) -> View {
        let rng = &mut sample_rng(key.seed, key.epoch, key.index, Purpose::Augment);
        let region = random_crop(width, height, config.crop_area, config.crop_aspect, rng);
        let filter = config.interpolation.filter(rng);
        let mirror = config.mirror.is_due(key, rng);
        let distortion = config.colour.draw(rng);
        View { full: (width, height), size, region, filter, mirror, distortion }
    }

    /// What is looked at of the image. The crop keeps at least the pixels that the network sees; the
    /// nearest pixel has no mean to be taken before it is chosen.
    pub fn wanted(&self) -> Wanted {
        let Region { top, width, height, .. } = self.region;
        let size = self.size as f64;
        let divisor = match self.filter {
            Filter::Nearest => 1,
            _ => ((width.min(height) / size) as u32).max(1),
        };
        let bottom = top + height;
        let rows = match divisor {
            1 => bottom,
            // The widest filter reaches two pixels of the result beyond a shrunk crop, and a pixel of
            // the shrunk image, at an eighth, is 8 rows.
            _ => bottom + 2.0 * height / size + 8.0,
        };
        Wanted { divisor, rows: rows.ceil() as u32 }
    }

    /// Writes the view of `image`, which may be smaller than the whole, to `levels` (size x size x 3).
    /// Distorted colours are rounded to levels once, at the end.
    pub(crate) fn render(self, image: &RgbImage, memory: &mut RenderMemory, levels: &mut [u8]) {
        let RenderMemory { resizer, planes } = memory;
        let (region, edge) = scale_region(self.region, self.full, image.dimensions());
        let rgb = resizer.resize(image, region, edge, self.filter, self.size);
        match self.distortion {
            None => copy_levels(rgb, self.size, self.mirror, levels),
            Some(distortion) => {
                copy_levels(rgb, self.size, self.mirror, levels);
                planes.resize(levels.len(), 0.0);
                to_planes(levels, planes);
                distortion.into_iter().for_each(|operation| operation.apply(planes));
                to_levels(planes, levels);
            }
        }
    }
}

/// Memory to render with.
#[derive(Default)]
pub(crate) struct RenderMemory {
    pub(crate) resizer: Resizer,
    planes: Vec<f32>,
}

/// Interleaved levels as planes in [0, 1].
fn to_planes(levels: &[u8], planes: &mut [f32]) {
    let n_pixels = levels.len() / 3;
    for (c, plane) in planes.chunks_exact_mut(n_pixels.max(1)).enumerate() {
        for (value, &level) in plane.iter_mut().zip(levels[c..].iter().step_by(3)) {
            *value = f32::from(level) / 255.0;
        }
    }
}

/// Planes in [0, 1] as interleaved levels, each the nearest.
fn to_levels(planes: &[f32], levels: &mut [u8]) {
    let n_pixels = levels.len() / 3;
    for (c, plane) in planes.chunks_exact(n_pixels.max(1)).enumerate() {
        for (&value, level) in plane.iter().zip(levels[c..].iter_mut().step_by(3)) {
            *level = (value * 255.0 + 0.5) as u8;
        }
    }
}

/// The part of an image of size `to` that shows `region` of one of size `from`, of which `to` is a
/// half, a quarter or an eighth, rounded up; and how to treat its edge. Of a smaller image the region
/// need not lie on whole pixels, and its neighbours take part in the pixels that it begins inside.
fn scale_region(region: Region, from: (u32, u32), to: (u32, u32)) -> (Region, Edge) {
    if from == to {
        return (region, Edge::Cut);
    }
    let fits = |divisor: &u32| (from.0.div_ceil(*divisor), from.1.div_ceil(*divisor)) == to;
    let scale = match [2, 4, 8].into_iter().find(fits) {
        Some(divisor) => [1.0 / f64::from(divisor); 2],
        None => [f64::from(to.0) / f64::from(from.0), f64::from(to.1) / f64::from(from.1)],
    };
    let region = Region {
        left: region.left * scale[0],
        top: region.top * scale[1],
        width: region.width * scale[0],
        height: region.height * scale[1],
    };
    (region, Edge::Continue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(config: &AugmentConfig, index: u64) -> Vec<[u8; 3]> {
        let image = RgbImage::from_fn(40, 30, |x, y| {
            image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y % 251) as u8])
        });
        let key = ViewKey { seed: 4, epoch: 1, index };
        let mut levels = vec![0; 3 * 16 * 16];
        let view = View::draw(image.width(), image.height(), config, 16, &key);
        view.render(&image, &mut RenderMemory::default(), &mut levels);
        levels.as_chunks().0.to_vec()
    }

    #[test]
    fn later_draws_do_not_disturb_earlier_ones() {
        let plain = AugmentConfig {
            mirror: Mirror::None,
            colour: Colour::None,
            interpolation: Interpolation::Bilinear,
            ..AugmentConfig::default()
        };
        let mirrored = AugmentConfig { mirror: Mirror::Random, ..plain.clone() };
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
    fn every_level_survives_the_way_to_planes_and_back() {
        let levels: Vec<u8> = (0..=255).flat_map(|level| [level, 255 - level, level / 2]).collect();
        let mut planes = vec![0.0; levels.len()];
        to_planes(&levels, &mut planes);
        assert_eq!((planes[255], planes[256], planes[511]), (1.0, 1.0, 0.0));
        let mut back = vec![0; levels.len()];
        to_levels(&planes, &mut back);
        assert_eq!(back, levels);
        // Half way belongs to the level above.
        to_levels(&[0.49 / 255.0, 0.51 / 255.0, 1.0], &mut back[..3]);
        assert_eq!(back[..3], [0, 1, 255]);
    }

    #[test]
    fn regions_scale_with_the_image() {
        let region = |left, top, width, height| Region { left, top, width, height };
        let wanted = region(100.0, 40.0, 80.0, 60.0);
        assert_eq!(scale_region(wanted, (403, 300), (403, 300)), (wanted, Edge::Cut));
        // The last block reaches over the edge of the image, so that pixels keep their places.
        let expected = (region(12.5, 5.0, 10.0, 7.5), Edge::Continue);
        assert_eq!(scale_region(wanted, (403, 300), (51, 38)), expected);
        let expected = (region(50.0, 20.0, 40.0, 30.0), Edge::Continue);
        assert_eq!(scale_region(wanted, (400, 300), (200, 150)), expected);
        assert_eq!(scale_region(wanted, (1, 1), (1, 1)).1, Edge::Cut);
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
