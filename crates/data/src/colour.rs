//! Colour distortion of training images.
//!
//! GoogLeNet, section 6, found "photometric distortions by Andrew Howard" useful and gives no numbers.
//! The operations here are those of `torchvision.transforms.ColorJitter` on images in [0, 1], in a
//! random order as there and in Howard (2013, <https://arxiv.org/abs/1312.5402>); the amounts are those
//! of Google's own code for the Inception networks (`distort_color` in
//! `research/inception/inception/image_processing.py` of <https://github.com/tensorflow/models>).
//!
//! ```text
//! grey:          0.2989 red + 0.587 green + 0.114 blue (ITU-R BT.601)
//! brightness f:  x * f
//! contrast f:    m + (x - m) * f, with m the mean of the grey picture
//! saturation f:  g + (x - g) * f, with g the pixel's grey
//! hue d:         H of HSV plus d turns
//! ```
//!
//! Each result is clamped to [0, 1] before the next operation.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// How strongly the colours of training images are distorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// Not at all.
    None,
    /// Half of [`Colour::Full`]: Ioffe & Szegedy (2015), section 4.2.1, "Reduce the photometric
    /// distortions", give no numbers; half is our reading.
    Reduced,
    /// Brightness by up to 32/255, contrast and saturation by up to 0.5, hue by up to 0.2 turns.
    #[default]
    Full,
}

/// One change of the colours, with its amount.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Factor of every value.
    Brightness(f32),
    /// Factor of the distance to the mean grey.
    Contrast(f32),
    /// Factor of the distance to the pixel's grey.
    Saturation(f32),
    /// Turns of the hue.
    Hue(f32),
}

impl Colour {
    /// Draws a distortion, or none for [`Colour::None`], which takes nothing from `rng`.
    pub fn draw<R: Rng>(self, rng: &mut R) -> Option<[Operation; 4]> {
        let strength = match self {
            Colour::None => return None,
            Colour::Reduced => 0.5,
            Colour::Full => 1.0,
        };
        let mut within = |limit: f32| rng.random_range(-limit * strength..=limit * strength);
        let mut operations = [
            Operation::Brightness(1.0 + within(32.0 / 255.0)),
            Operation::Contrast(1.0 + within(0.5)),
            Operation::Saturation(1.0 + within(0.5)),
            Operation::Hue(within(0.2)),
        ];
        operations.shuffle(rng);
        Some(operations)
    }
}

impl Operation {
    /// Changes an image in place.
    ///
    /// # Shapes
    /// `planes`: 3 x pixels, the red, the green and the blue plane one after the other, in [0, 1].
    pub fn apply(self, planes: &mut [f32]) {
        let n_pixels = planes.len() / 3;
        match self {
            Operation::Brightness(factor) => {
                planes.iter_mut().for_each(|x| *x = (*x * factor).clamp(0.0, 1.0));
            }
            Operation::Contrast(factor) => {
                let sum = |plane: &[f32]| plane.iter().map(|&x| f64::from(x)).sum::<f64>();
                let mut sums = planes.chunks_exact(n_pixels.max(1)).map(sum);
                let mean = GREY.iter().map(|&w| f64::from(w) * sums.next().unwrap_or(0.0));
                let offset = (mean.sum::<f64>() / n_pixels as f64) as f32 * (1.0 - factor);
                planes.iter_mut().for_each(|x| *x = (*x * factor + offset).clamp(0.0, 1.0));
            }
            Operation::Saturation(factor) => each_pixel(planes, |pixel| {
                let grey: f32 = pixel[0] * GREY[0] + pixel[1] * GREY[1] + pixel[2] * GREY[2];
                pixel.map(|x| (x * factor + grey * (1.0 - factor)).clamp(0.0, 1.0))
            }),
            Operation::Hue(turns) => {
                let sextants = (turns * 6.0).rem_euclid(6.0);
                each_pixel(planes, |pixel| rotate_hue(pixel, sextants).map(|x| x.clamp(0.0, 1.0)));
            }
        }
    }
}

/// Weights of red, green and blue in grey, with torchvision's digits.
const GREY: [f32; 3] = [0.2989, 0.587, 0.114];

/// Replaces every pixel (red, green, blue).
#[inline(always)]
fn each_pixel(planes: &mut [f32], change: impl Fn([f32; 3]) -> [f32; 3]) {
    let (red, rest) = planes.split_at_mut(planes.len() / 3);
    let (green, blue) = rest.split_at_mut(red.len());
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        [*r, *g, *b] = change([*r, *g, *b]);
    }
}

/// Turns the hue of a pixel by `sextants` (sixths of a turn, in [0, 6)).
#[inline]
fn rotate_hue([r, g, b]: [f32; 3], sextants: f32) -> [f32; 3] {
    let max = r.max(g).max(b);
    let chroma = max - r.min(g).min(b);
    let scale = if chroma > 0.0 { 1.0 / chroma } else { 0.0 };
    // https://en.wikipedia.org/wiki/HSL_and_HSV#General_approach, and back by
    // https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative. Red before green before
    // blue, selected without branches so that the compiler can work on several pixels at a time.
    let from_blue = 4.0 + (r - g) * scale;
    let from_green = 2.0 + (b - r) * scale;
    let from_red = (g - b) * scale;
    let hue = if max == r {
        from_red
    } else if max == g {
        from_green
    } else {
        from_blue
    };
    let hue = hue + sextants; // in [-1, 11)
    let channel = |n: f32| {
        let k = hue + n; // in [0, 16)
        let k = if k >= 12.0 { k - 12.0 } else { k };
        let k = if k >= 6.0 { k - 6.0 } else { k };
        max - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, sample_rng};

    /// All colours of a coarse grid, as planes.
    fn grid() -> Vec<f32> {
        let levels: Vec<f32> = (0..=8).map(|level| level as f32 / 8.0).collect();
        let mut planes = vec![Vec::new(); 3];
        for r in &levels {
            for g in &levels {
                for b in &levels {
                    planes[0].push(*r);
                    planes[1].push(*g);
                    planes[2].push(*b);
                }
            }
        }
        planes.concat()
    }

    fn assert_close(found: &[f32], expected: &[f32], what: &str) {
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 1e-5, "{what} [{i}]: {found}, expected {expected}");
        }
    }

    #[test]
    fn neutral_amounts_change_nothing() {
        let neutral = [
            Operation::Brightness(1.0),
            Operation::Contrast(1.0),
            Operation::Saturation(1.0),
            Operation::Hue(0.0),
        ];
        for operation in neutral {
            let mut planes = grid();
            operation.apply(&mut planes);
            assert_close(&planes, &grid(), &format!("{operation:?}"));
        }
    }

    #[test]
    fn thirds_of_a_turn_rotate_the_channels() {
        let mut planes = grid();
        Operation::Hue(1.0 / 3.0).apply(&mut planes);
        let original = grid();
        let n = original.len() / 3;
        let rotated = [&original[2 * n..], &original[..2 * n]].concat(); // red becomes green
        assert_close(&planes, &rotated, "a third");
        Operation::Hue(-1.0 / 3.0).apply(&mut planes);
        assert_close(&planes, &original, "there and back");
    }

    #[test]
    fn draws_keep_to_their_ranges_fill_them_and_come_in_every_order() {
        for (colour, strength) in [(Colour::Reduced, 0.5), (Colour::Full, 1.0)] {
            let (mut lowest, mut highest) = ([f32::MAX; 4], [f32::MIN; 4]);
            let mut first = [0; 4];
            for index in 0..4000 {
                let drawn = colour.draw(&mut sample_rng(1, 0, index, Purpose::Augment)).unwrap();
                for (place, operation) in drawn.into_iter().enumerate() {
                    let (kind, value) = match operation {
                        Operation::Brightness(f) => (0, (f - 1.0) / (32.0 / 255.0)),
                        Operation::Contrast(f) => (1, (f - 1.0) / 0.5),
                        Operation::Saturation(f) => (2, (f - 1.0) / 0.5),
                        Operation::Hue(d) => (3, d / 0.2),
                    };
                    first[kind] += i32::from(place == 0);
                    lowest[kind] = lowest[kind].min(value / strength);
                    highest[kind] = highest[kind].max(value / strength);
                }
            }
            assert!(lowest.iter().all(|x| (-1.001..-0.99).contains(x)), "{colour:?} {lowest:?}");
            assert!(highest.iter().all(|x| (0.99..1.001).contains(x)), "{colour:?} {highest:?}");
            // Five standard deviations of a binomial count with p = 1/4.
            assert!(first.iter().all(|count| (count - 1000).abs() < 137), "{first:?}");
        }
        assert_eq!(Colour::None.draw(&mut sample_rng(1, 0, 0, Purpose::Augment)), None);
    }
}
