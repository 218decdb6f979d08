//! Small pictures for people to look at; no network sees them.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage, imageops};

/// Quality of [`to_jpeg`], of 100. Our choice: artefacts are hard to see, and a picture of 224 x 224 pixels
/// takes a tenth of its levels.
const QUALITY: u8 = 85;

/// The whole image, shrunk so that its longer side has `side` pixels; one that is smaller stays as it is.
pub fn thumbnail(image: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let long = width.max(height);
    if long <= side.max(1) {
        return image.clone();
    }
    let scaled = |length: u32| (f64::from(length) * f64::from(side) / f64::from(long)).round();
    let (width, height) = (scaled(width).max(1.0) as u32, scaled(height).max(1.0) as u32);
    imageops::thumbnail(image, width, height)
}

/// A picture as the bytes of a JPEG file; `None` if its levels are not as many as its sides say.
pub fn to_jpeg(width: u32, height: u32, rgb: &[u8]) -> Option<Vec<u8>> {
    // The encoder panics at a wrong number of levels.
    let n_levels = u64::from(width).checked_mul(u64::from(height))?.checked_mul(3)?;
    if n_levels != rgb.len() as u64 {
        return None;
    }
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    encoder.encode(rgb, width, height, ExtendedColorType::Rgb8).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_image_fits_into_the_box() {
        for (width, height, expected) in [
            (400, 200, (100, 50)),
            (200, 400, (50, 100)),
            (100, 100, (100, 100)),
            (30, 20, (30, 20)),
            (5000, 1, (100, 1)),
        ] {
            let image = RgbImage::from_pixel(width, height, image::Rgb([9, 8, 7]));
            let small = thumbnail(&image, 100);
            assert_eq!(small.dimensions(), expected, "{width} x {height}");
            assert!(small.pixels().all(|pixel| pixel.0 == [9, 8, 7]));
        }
    }

    #[test]
    fn a_picture_comes_back_from_its_jpeg() {
        let image = RgbImage::from_fn(24, 16, |x, y| image::Rgb([x as u8 * 8, y as u8 * 12, 90]));
        let bytes = to_jpeg(24, 16, image.as_raw()).unwrap();
        let back = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(back.dimensions(), (24, 16));
        let far = image.as_raw().iter().zip(back.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(far < Some(24), "{far:?}");
        for (width, height) in [(24, 15), (0, 0), (u32::MAX, u32::MAX)] {
            assert_eq!(to_jpeg(width, height, image.as_raw()), None, "{width} x {height}");
        }
        assert_eq!(to_jpeg(0, 0, &[]), None);
    }
}
