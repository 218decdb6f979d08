//! Colour distortion of training images.
//!
//! The operations, their ranges and their two orders are those of Google's own code for the
//! Inception networks (`distort_color` in `research/inception/inception/image_processing.py` of
//! <https://github.com/tensorflow/models>), which stands in for what GoogLeNet, section 6, calls
//! "photometric distortions by Andrew Howard" and leaves open. All work on values in [0, 1] that may leave
//! that range in between and are clamped once, at the end:
//!
//! ```text
//! brightness b:  x + b
//! contrast f:    (x - mean of the channel) * f + mean of the channel
//! saturation f:  S of HSV times f, clamped to [0, 1]
//! hue d:         H of HSV plus d turns
//! ```
//!
//! The saturation needs no HSV: with V the largest channel and S = (V - min) / V, scaling S by f
//! moves each channel to `V - (V - x) f`. The hue rotates around the hexagon in place.

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

/// The four operations with their amounts, in one of two orders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distortion {
    /// Whether contrast comes last (brightness, saturation, hue, contrast) or second (brightness,
    /// contrast, saturation, hue).
    pub contrast_last: bool,
    /// Added to every value.
    pub brightness: f32,
    /// Factor of the distance to the channel's mean.
    pub contrast: f32,
    /// Factor of the saturation.
    pub saturation: f32,
    /// Turns of the hue.
    pub hue: f32,
}

impl Colour {
    /// Draws a distortion, or none for [`Colour::None`], which takes nothing from `rng`.
    pub fn draw<R: Rng>(self, rng: &mut R) -> Option<Distortion> {
        let strength = match self {
            Colour::None => return None,
            Colour::Reduced => 0.5,
            Colour::Full => 1.0,
        };
        let mut within = |limit: f32| rng.random_range(-limit * strength..=limit * strength);
        Some(Distortion {
            brightness: within(32.0 / 255.0),
            contrast: 1.0 + within(0.5),
            saturation: 1.0 + within(0.5),
            hue: within(0.2),
            contrast_last: rng.random(),
        })
    }
}

impl Distortion {
    /// Distorts an image in place.
    ///
    /// # Shapes
    /// `planes`: 3 x pixels, the red, the green and the blue plane one after the other, in [0, 1].
    pub fn apply(&self, planes: &mut [f32]) {
        let n_pixels = planes.len() / 3;
        let (red, rest) = planes.split_at_mut(n_pixels);
        let (green, blue) = rest.split_at_mut(n_pixels);
        let planes = [red, green, blue];
        let planes = planes.map(|plane| {
            plane.iter_mut().for_each(|x| *x += self.brightness);
            plane
        });
        let [red, green, blue] = if self.contrast_last {
            planes
        } else {
            planes.map(|plane| adjust_contrast(plane, self.contrast))
        };
        let hue_sextants = (self.hue * 6.0).rem_euclid(6.0);
        for ((r, g), b) in red.iter_mut().zip(green.iter_mut()).zip(blue.iter_mut()) {
            let saturated = adjust_saturation([*r, *g, *b], self.saturation);
            [*r, *g, *b] = rotate_hue(saturated, hue_sextants);
        }
        for plane in [red, green, blue] {
            let plane =
                if self.contrast_last { adjust_contrast(plane, self.contrast) } else { plane };
            plane.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
        }
    }
}

fn adjust_contrast(plane: &mut [f32], factor: f32) -> &mut [f32] {
    let sum: f64 = plane.iter().map(|&x| f64::from(x)).sum();
    let mean = (sum / plane.len() as f64) as f32;
    plane.iter_mut().for_each(|x| *x = (*x - mean) * factor + mean);
    plane
}

/// Scales the saturation of a pixel.
#[inline]
fn adjust_saturation([r, g, b]: [f32; 3], factor: f32) -> [f32; 3] {
    let max = r.max(g).max(b);
    let chroma = max - r.min(g).min(b);
    // The saturation chroma / max ends at 1, so the factor ends at max / chroma. A pixel that
    // brightness made negative is black and has none.
    let limit = max.max(0.0) / chroma.max(f32::MIN_POSITIVE);
    let factor = if chroma * factor <= max { factor } else { limit };
    [max - (max - r) * factor, max - (max - g) * factor, max - (max - b) * factor]
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

    const NOTHING: Distortion = Distortion {
        contrast_last: true,
        brightness: 0.0,
        contrast: 1.0,
        saturation: 1.0,
        hue: 0.0,
    };

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
        for contrast_last in [true, false] {
            let mut planes = grid();
            Distortion { contrast_last, ..NOTHING }.apply(&mut planes);
            assert_close(&planes, &grid(), "neutral");
        }
    }

    #[test]
    fn thirds_of_a_turn_rotate_the_channels() {
        let mut planes = grid();
        Distortion { hue: 1.0 / 3.0, ..NOTHING }.apply(&mut planes);
        let original = grid();
        let n = original.len() / 3;
        let rotated = [&original[2 * n..], &original[..2 * n]].concat(); // red becomes green
        assert_close(&planes, &rotated, "a third");
        Distortion { hue: -1.0 / 3.0, ..NOTHING }.apply(&mut planes);
        assert_close(&planes, &original, "there and back");
    }

    #[test]
    fn single_operations_have_known_results() {
        // One pixel beside a black one; contrast needs a mean.
        let image = [0.8, 0.0, 0.4, 0.0, 0.2, 0.0];
        let cases = [
            (Distortion { saturation: 0.5, ..NOTHING }, [0.8, 0.0, 0.6, 0.0, 0.5, 0.0]),
            (Distortion { saturation: 1.5, ..NOTHING }, [0.8, 0.0, 0.2666667, 0.0, 0.0, 0.0]),
            (Distortion { contrast: 0.5, ..NOTHING }, [0.6, 0.2, 0.3, 0.1, 0.15, 0.05]),
            (Distortion { contrast: 1.5, ..NOTHING }, [1.0, 0.0, 0.5, 0.0, 0.25, 0.0]),
            (Distortion { brightness: 0.3, ..NOTHING }, [1.0, 0.3, 0.7, 0.3, 0.5, 0.3]),
            (Distortion { hue: 0.5, ..NOTHING }, [0.2, 0.0, 0.6, 0.0, 0.8, 0.0]),
        ];
        for (distortion, expected) in cases {
            let mut planes = image;
            distortion.apply(&mut planes);
            assert_close(&planes, &expected, &format!("{distortion:?}"));
        }
    }

    #[test]
    fn draws_keep_to_their_ranges_and_fill_them() {
        for (colour, strength) in [(Colour::Reduced, 0.5), (Colour::Full, 1.0)] {
            let (mut lowest, mut highest) = ([f32::MAX; 4], [f32::MIN; 4]);
            let mut n_contrast_last = 0;
            for i in 0..4000 {
                let d = colour.draw(&mut sample_rng(1, 0, i, Purpose::Augment)).unwrap();
                n_contrast_last += i32::from(d.contrast_last);
                let drawn = [
                    d.brightness / (32.0 / 255.0),
                    (d.contrast - 1.0) / 0.5,
                    (d.saturation - 1.0) / 0.5,
                    d.hue / 0.2,
                ];
                for (i, value) in drawn.into_iter().enumerate() {
                    lowest[i] = lowest[i].min(value / strength);
                    highest[i] = highest[i].max(value / strength);
                }
            }
            assert!(lowest.iter().all(|x| (-1.001..-0.99).contains(x)), "{colour:?} {lowest:?}");
            assert!(highest.iter().all(|x| (0.99..1.001).contains(x)), "{colour:?} {highest:?}");
            assert!((n_contrast_last - 2000).abs() < 160, "{n_contrast_last}"); // 5 deviations
        }
        assert_eq!(Colour::None.draw(&mut sample_rng(1, 0, 0, Purpose::Augment)), None);
    }
}
