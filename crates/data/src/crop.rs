//! Which part of an image the network sees.
//!
//! Both functions are pure geometry. They follow torchvision to the rounding, because published
//! accuracies were measured with it: `RandomResizedCrop`, and `Resize` followed by `CenterCrop`
//! (<https://github.com/pytorch/vision/blob/v0.20.0/torchvision/transforms/transforms.py>).

use rand::{Rng, RngExt};

/// A rectangle in pixels. It may begin and end inside a pixel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Distance from the left edge of the image.
    pub left: f64,
    /// Distance from the top edge of the image.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// How often a crop is drawn before the fallback (torchvision).
const N_ATTEMPTS: usize = 10;

/// Draws a training crop of an image of `width` x `height` pixels, in whole pixels.
///
/// The fraction of the area is uniform in `area`, the ratio width / height log-uniform in
/// `aspect`, the place uniform. A crop that does not fit is drawn again, ten times in all; then the
/// largest centred crop with a ratio inside `aspect` is taken.
///
/// GoogLeNet (Szegedy et al. 2014, section 6): "sampling of various sized patches of the image
/// whose size is distributed evenly between 8% and 100% of the image area and whose aspect ratio is
/// chosen randomly between 3/4 and 4/3".
pub fn random_crop<R: Rng>(
    width: u32,
    height: u32,
    area: [f64; 2],
    aspect: [f64; 2],
    rng: &mut R,
) -> Region {
    let image_area = f64::from(width) * f64::from(height);
    for _ in 0..N_ATTEMPTS {
        let target_area = image_area * rng.random_range(area[0]..=area[1]);
        let ratio = rng.random_range(aspect[0].ln()..=aspect[1].ln()).exp();
        // Python's `round` takes halves to even; these float-to-int casts saturate.
        let crop_width = (target_area * ratio).sqrt().round_ties_even() as u32;
        let crop_height = (target_area / ratio).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            let top = rng.random_range(0..=height - crop_height);
            let left = rng.random_range(0..=width - crop_width);
            return whole(left, top, crop_width, crop_height);
        }
    }
    let ratio = f64::from(width) / f64::from(height);
    let (crop_width, crop_height) = if ratio < aspect[0] {
        (width, (f64::from(width) / aspect[0]).round_ties_even() as u32)
    } else if ratio > aspect[1] {
        ((f64::from(height) * aspect[1]).round_ties_even() as u32, height)
    } else {
        (width, height)
    };
    let (crop_width, crop_height) = (crop_width.clamp(1, width), crop_height.clamp(1, height));
    whole((width - crop_width) / 2, (height - crop_height) / 2, crop_width, crop_height)
}

fn whole(left: u32, top: u32, width: u32, height: u32) -> Region {
    Region { left: left.into(), top: top.into(), width: width.into(), height: height.into() }
}

/// Returns the part of an image of `width` x `height` pixels that evaluation looks at.
///
/// The picture that is meant: the image is resized so that its short side has
/// `floor(size / ratio)` pixels and its long side keeps the proportion, rounded down; of that, the
/// centre of `size` x `size` pixels is taken (its offset rounded, halves to even). The region is
/// that square in the pixels of the unresized image, so one resampling of it does both steps.
///
/// `ratio` is in (0, 1]; 224 and 0.875 mean 256, as in most published evaluations.
pub fn centre_crop(width: u32, height: u32, size: usize, ratio: f64) -> Region {
    let short_side = (size as f64 / ratio).floor();
    let (width, height) = (f64::from(width), f64::from(height));
    let short = width.min(height);
    let resized = |side: f64| (short_side * side / short).floor();
    let part = |side: f64| {
        let offset = ((resized(side) - size as f64) / 2.0).round_ties_even();
        let scale = side / resized(side);
        (offset * scale, size as f64 * scale)
    };
    let ((left, region_width), (top, region_height)) = (part(width), part(height));
    Region { left, top, width: region_width, height: region_height }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, sample_rng};

    const AREA: [f64; 2] = [0.08, 1.0];
    const ASPECT: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];

    #[test]
    fn random_crops_lie_inside_and_keep_to_their_ranges() {
        for (width, height) in [(1, 1), (1, 500), (500, 1), (2, 3), (500, 375), (64, 64)] {
            for i in 0..2000 {
                let mut rng = sample_rng(1, 2, i, Purpose::Augment);
                let crop = random_crop(width, height, AREA, ASPECT, &mut rng);
                let Region { left, top, width: w, height: h } = crop;
                assert!(left >= 0.0 && top >= 0.0 && w >= 1.0 && h >= 1.0, "{crop:?}");
                assert!(left + w <= f64::from(width) && top + h <= f64::from(height), "{crop:?}");
                if width.min(height) >= 64 {
                    let fraction = w * h / f64::from(width * height);
                    // A side is rounded by half a pixel at most, of the 15 or more that it has.
                    assert!((0.074..=1.0).contains(&fraction), "{crop:?}");
                    assert!((0.70..=1.43).contains(&(w / h)), "{crop:?}");
                }
            }
        }
    }

    /// Where nearly no draw is rejected the law is known: area uniform, log ratio uniform, place
    /// uniform over what is left.
    #[test]
    fn random_crops_follow_their_law() {
        let n = 40_000;
        let (mut area, mut area_square, mut log_ratio, mut log_ratio_square) = (0.0, 0.0, 0.0, 0.0);
        let (mut x, mut x_square, mut y) = (0.0, 0.0, 0.0);
        for i in 0..n {
            let mut rng = sample_rng(5, 0, i, Purpose::Augment);
            let crop = random_crop(4000, 4000, [0.1, 0.5], ASPECT, &mut rng);
            let fraction = crop.width * crop.height / 16e6;
            area += fraction;
            area_square += fraction * fraction;
            let log = (crop.width / crop.height).ln();
            log_ratio += log;
            log_ratio_square += log * log;
            let place = crop.left / (4000.0 - crop.width);
            x += place;
            x_square += place * place;
            y += crop.top / (4000.0 - crop.height);
        }
        let n = n as f64;
        // Bounds are five standard errors of a uniform law's mean, and of its second moment.
        let checks = [
            ("mean area", area / n, 0.3, 5.0 * 0.4 / 12_f64.sqrt() / n.sqrt()),
            ("area squared", area_square / n, 0.31 / 3.0, 0.0020),
            ("mean log ratio", log_ratio / n, 0.0, 5.0 * 0.5754 / 12_f64.sqrt() / n.sqrt()),
            ("log ratio squared", log_ratio_square / n, 0.5754_f64.powi(2) / 12.0, 0.0007),
            ("mean x", x / n, 0.5, 5.0 / 12_f64.sqrt() / n.sqrt()),
            ("x squared", x_square / n, 1.0 / 3.0, 0.0075),
            ("mean y", y / n, 0.5, 5.0 / 12_f64.sqrt() / n.sqrt()),
        ];
        for (what, found, expected, bound) in checks {
            assert!((found - expected).abs() < bound, "{what}: {found}, expected {expected}");
        }
    }

    #[test]
    fn impossible_ratios_fall_back_to_the_centre() {
        let crop = |w, h| {
            let mut rng = sample_rng(0, 0, 0, Purpose::Augment);
            random_crop(w, h, [1.0, 1.0], ASPECT, &mut rng)
        };
        assert_eq!(crop(400, 100), whole(133, 0, 133, 100)); // 133 = round(100 * 4/3)
        assert_eq!(crop(100, 400), whole(0, 133, 100, 133));
    }

    #[test]
    fn centre_crops_match_resize_and_crop() {
        // width, height, size, ratio -> the resized sides and the offsets inside them.
        let cases = [
            (500, 375, 224, 0.875, (341.0, 256.0), (58.0, 16.0)), // (341 - 224) / 2 = 58.5 -> 58
            (375, 500, 224, 0.875, (256.0, 341.0), (16.0, 58.0)),
            (256, 256, 224, 0.875, (256.0, 256.0), (16.0, 16.0)),
            (33, 100, 64, 0.875, (73.0, 221.0), (4.0, 78.0)), // 4.5 -> 4, 78.5 -> 78
            (10, 10, 224, 1.0, (224.0, 224.0), (0.0, 0.0)),
        ];
        for (w, h, size, ratio, resized, offset) in cases {
            let found = centre_crop(w, h, size, ratio);
            let scale = (f64::from(w) / resized.0, f64::from(h) / resized.1);
            let expected = Region {
                left: offset.0 * scale.0,
                top: offset.1 * scale.1,
                width: size as f64 * scale.0,
                height: size as f64 * scale.1,
            };
            let bound = 1e-9;
            assert!(
                (found.left - expected.left).abs() < bound
                    && (found.top - expected.top).abs() < bound
                    && (found.width - expected.width).abs() < bound
                    && (found.height - expected.height).abs() < bound,
                "{w} x {h}: {found:?}, expected {expected:?}"
            );
        }
    }
}
