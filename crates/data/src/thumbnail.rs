//! Small pictures for people to look at; no network sees them.

use image::RgbImage;
use image::imageops;

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
}
