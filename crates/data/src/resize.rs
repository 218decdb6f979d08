//! Resampling a region of an image to a square.
//!
//! Two conventions differ at the edges of the region and both are needed. Training crops first and
//! resizes after, as torchvision's `RandomResizedCrop` does, so no pixel outside the crop takes
//! part. Evaluation resizes first and crops after, so the pixels around the centre do take part.
//!
//! All filters but [`Filter::Nearest`] are antialiased: when shrinking, the filter is widened by
//! the scale, as in Pillow. The result differs from Pillow's by one level at most, because the
//! coefficients have 16 bits, not 32; only a cubic differs more, on the few pixels where it
//! overshoots, because the vertical pass comes first here (`tests/resize.rs`).

use fast_image_resize as fir;
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use image::RgbImage;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::crop::Region;

/// How pixels between pixels are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The pixel in which the centre falls.
    Nearest,
    /// The mean over the area that becomes the pixel.
    Area,
    /// A triangle, Pillow's and torchvision's `BILINEAR`.
    #[default]
    Bilinear,
    /// A cubic with a = -0.5, Pillow's and torchvision's `BICUBIC`.
    Bicubic,
}

/// The filter of training crops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Always [`Filter::Bilinear`].
    #[default]
    Bilinear,
    /// Always [`Filter::Bicubic`].
    Bicubic,
    /// One of the four filters for each image, with equal probability: "random interpolation methods
    /// (bilinear, area, nearest neighbor and cubic, with equal probability)", GoogLeNet (Szegedy et
    /// al. 2014), section 6.
    Random,
}

impl Interpolation {
    /// Chooses a filter. Takes a number from `rng` for [`Interpolation::Random`] only.
    pub fn filter<R: Rng>(self, rng: &mut R) -> Filter {
        const FILTERS: [Filter; 4] =
            [Filter::Bilinear, Filter::Area, Filter::Nearest, Filter::Bicubic];
        match self {
            Interpolation::Bilinear => Filter::Bilinear,
            Interpolation::Bicubic => Filter::Bicubic,
            Interpolation::Random => FILTERS[rng.random_range(0..FILTERS.len())],
        }
    }
}

/// Whether pixels outside the region take part in the pixels at its edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// They do not: the region is cut out first. It must lie on whole pixels.
    Cut,
    /// They do: the whole image is resized and the region cut out of the result.
    Continue,
}

/// Resamples images; keeps its memory from one image to the next.
#[derive(Debug, Default)]
pub struct Resizer {
    inner: fir::Resizer,
    resized: Vec<u8>,
}

impl Resizer {
    /// Resamples `region` of `image` to `size` x `size` pixels, RGB interleaved.
    ///
    /// # Panics
    /// If `region` is empty or does not lie in the image: `crop` makes none such.
    pub fn resize(
        &mut self,
        image: &RgbImage,
        region: Region,
        edge: Edge,
        filter: Filter,
        size: usize,
    ) -> &[u8] {
        self.resize_to(image, region, edge, filter, [size, size])
    }

    /// Resamples all of `image` to `width` x `height` pixels, RGB interleaved.
    pub fn fit(&mut self, image: &RgbImage, filter: Filter, width: u32, height: u32) -> &[u8] {
        let region = Region {
            left: 0.0,
            top: 0.0,
            width: image.width().into(),
            height: image.height().into(),
        };
        self.resize_to(image, region, Edge::Cut, filter, [width as usize, height as usize])
    }

    fn resize_to(
        &mut self,
        image: &RgbImage,
        region: Region,
        edge: Edge,
        filter: Filter,
        [target_width, target_height]: [usize; 2],
    ) -> &[u8] {
        const INSIDE: &str = "the region lies in the image";
        self.resized.resize(target_width * target_height * 3, 0);
        let algorithm = match filter {
            Filter::Nearest => fir::ResizeAlg::Nearest,
            Filter::Area => fir::ResizeAlg::Convolution(fir::FilterType::Box),
            Filter::Bilinear => fir::ResizeAlg::Convolution(fir::FilterType::Bilinear),
            Filter::Bicubic => fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom),
        };
        let options = fir::ResizeOptions::new().resize_alg(algorithm).use_alpha(false);
        let (width, height) = image.dimensions();
        // Typed, because the untyped call compiles the code of all pixel types: a minute's work.
        let source = TypedImageRef::<U8x3>::from_buffer(width, height, image.as_raw())
            .expect("an RGB image has 3 bytes a pixel");
        let mut target = TypedImage::<U8x3>::from_buffer(
            target_width as u32,
            target_height as u32,
            &mut self.resized,
        )
        .expect("the buffer was sized above");
        match edge {
            Edge::Cut => {
                let whole = |v: f64| v as u32;
                let cut = TypedCroppedImage::from_ref(
                    &source,
                    whole(region.left),
                    whole(region.top),
                    whole(region.width),
                    whole(region.height),
                )
                .expect(INSIDE);
                self.inner.resize_typed(&cut, &mut target, &options).expect(INSIDE);
            }
            Edge::Continue => {
                let Region { left, top, width: region_width, height: region_height } = region;
                // Rounding may carry the far edge past the image by a part of 1e-12.
                let region_width = region_width.min(f64::from(width) - left);
                let region_height = region_height.min(f64::from(height) - top);
                let options = options.crop(left, top, region_width, region_height);
                self.inner.resize_typed(&source, &mut target, &options).expect(INSIDE);
            }
        }
        &self.resized
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, sample_rng};

    #[test]
    fn random_interpolation_uses_every_filter_equally() {
        let mut counts = [0; 4];
        for i in 0..8000 {
            let filter = Interpolation::Random.filter(&mut sample_rng(0, 0, i, Purpose::Augment));
            counts[filter as usize] += 1;
        }
        // Five standard deviations of a binomial count with p = 1/4.
        assert!(counts.iter().all(|count| (count - 2000_i32).abs() < 194), "{counts:?}");
    }

    #[test]
    fn a_region_of_the_target_size_is_copied() {
        let image = RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8, y as u8, 3]));
        let region = Region { left: 2.0, top: 1.0, width: 4.0, height: 4.0 };
        for edge in [Edge::Cut, Edge::Continue] {
            let mut resizer = Resizer::default();
            let found = resizer.resize(&image, region, edge, Filter::Bilinear, 4);
            for (i, pixel) in found.chunks_exact(3).enumerate() {
                assert_eq!(pixel, [2 + (i % 4) as u8, 1 + (i / 4) as u8, 3]);
            }
        }
    }
}
