//! Mixup: training on mixtures of two images and of their labels (Zhang et al. 2018,
//! <https://arxiv.org/abs/1710.09412>).
//!
//! As in the authors' code, a batch is mixed with itself, at one share for all its images. The partner of
//! an image is the one as far from the end of the batch as it is from the beginning: behind a full shuffle
//! that is a random one.

use rand::RngExt;

use crate::random::{Purpose, sample_rng};

/// The parts that an image is divided into: shares are multiples of 1/256, so that levels are mixed in whole
/// numbers.
const PARTS: u16 = 256;

/// At which shares the images of a batch are mixed with their partners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mixture {
    /// Parts of an image itself, from half of them to all; the rest is its partner's.
    own: u16,
}

impl Mixture {
    /// Draws the share of batch `number` from the distribution Beta(`alpha`, `alpha`); none if `alpha` is 0.
    ///
    /// It is never below a half: a share below it gives the same mixtures, image and partner exchanged.
    pub(crate) fn draw(alpha: f64, seed: u64, number: u64) -> Option<Mixture> {
        if alpha <= 0.0 {
            return None;
        }
        let rng = &mut sample_rng(seed, 0, number, Purpose::Mixup);
        // Jöhnk's method (1964): of two uniform numbers to the power 1/alpha whose sum is at most 1, the
        // share of the first has this distribution. At the largest alpha, 1, every second pair has.
        let share = loop {
            let [a, b]: [f64; 2] = [rng.random(), rng.random()].map(|u: f64| u.powf(1.0 / alpha));
            if a + b > 0.0 && a + b <= 1.0 {
                break a / (a + b);
            }
        };
        let own = (share.max(1.0 - share) * f64::from(PARTS)).round() as u16;
        Some(Mixture { own })
    }

    /// The share of each image's own label in its target; its partner's has the rest.
    pub(crate) fn own_share(self) -> f64 {
        f64::from(self.own) / f64::from(PARTS)
    }

    /// Mixes the levels of `n` images in place, each with its partner. The middle one of an odd number stays.
    pub(crate) fn apply(self, levels: &mut [u8], n: usize) {
        let (own, other) = (self.own, PARTS - self.own);
        // At most 256 * 255 + 128, which 16 bits hold.
        let mix =
            |a: u8, b: u8| ((own * u16::from(a) + other * u16::from(b) + PARTS / 2) / PARTS) as u8;
        let image = levels.len() / n.max(1);
        if image == 0 {
            return;
        }
        let (first, rest) = levels.split_at_mut(n / 2 * image);
        let last = &mut rest[n % 2 * image..];
        for (a, b) in first.chunks_exact_mut(image).zip(last.chunks_exact_mut(image).rev()) {
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (mix(*a, *b), mix(*b, *a));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_the_distribution_that_is_asked_for() {
        assert_eq!(Mixture::draw(0.0, 1, 2), None);
        let shares = |alpha| {
            (0..4000).map(move |number| Mixture::draw(alpha, 3, number).unwrap().own_share())
        };
        // The larger of a share and its rest has the mean 3/4 for Beta(1, 1), and 0.899 for Beta(0.2, 0.2)
        // by 400,000 draws of Python's random.betavariate.
        for (alpha, expected) in [(1.0, 0.75), (0.2, 0.899)] {
            let mean = shares(alpha).sum::<f64>() / 4000.0;
            assert!((mean - expected).abs() < 0.01, "alpha {alpha}: {mean}");
            assert!(shares(alpha).all(|share| (0.5..=1.0).contains(&share)));
        }
        // A number depends on seed and batch, and on nothing else.
        assert_eq!(Mixture::draw(1.0, 3, 7), Mixture::draw(1.0, 3, 7));
        assert_ne!(Mixture::draw(1.0, 3, 7), Mixture::draw(1.0, 4, 7));
    }

    #[test]
    fn each_image_is_mixed_with_its_partner() {
        let mut levels = [0, 10, 100, 200, 255, 255];
        Mixture { own: 192 }.apply(&mut levels, 3);
        // Three quarters of an image and a quarter of its partner; the middle one stays.
        assert_eq!(levels, [64, 71, 100, 200, 191, 194]);
        let mut levels = [1, 2, 3, 4];
        Mixture { own: PARTS }.apply(&mut levels, 2);
        assert_eq!(levels, [1, 2, 3, 4]);
        Mixture { own: 128 }.apply(&mut levels, 2);
        assert_eq!(levels, [2, 3, 2, 3]);
        Mixture { own: 128 }.apply(&mut [], 0);
    }
}
