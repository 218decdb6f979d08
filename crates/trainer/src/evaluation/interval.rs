//! How far a rate that was counted on a few images may lie from the rate on all images of their kind.

/// The 97.5 % quantile of the normal distribution: 95 % lie between its negative and itself.
const Z: f64 = 1.959_963_984_540_054;

/// An interval of rates, both from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// The score interval of Wilson (1927, <https://doi.org/10.1080/01621459.1927.10502953>): the rates p
    /// for which the rate found is within 1.96 standard deviations, sqrt(p (1 - p) / n), of p. 95 of 100
    /// such intervals hold the true rate, also of few images and near 0 and 1, where the usual plus and
    /// minus fails (Brown, Cai & DasGupta 2001, <https://doi.org/10.1214/ss/1009213286>, who recommend it
    /// below 40 images). `None` without images.
    ///
    /// The images must be drawn independently: of copies of one picture it knows nothing.
    pub fn wilson(right: u64, images: u64) -> Option<Interval> {
        if images == 0 {
            return None;
        }
        let n = images as f64;
        let right = right.min(images) as f64;
        let wrong = n - right;
        let z2 = Z * Z;
        let centre = right + z2 / 2.0;
        let half = Z * (right * wrong / n + z2 / 4.0).sqrt();
        // Without a wrong or a right image the interval reaches the end, whatever is rounded.
        Some(Interval {
            low: if right == 0.0 { 0.0 } else { (centre - half) / (n + z2) },
            high: if wrong == 0.0 { 1.0 } else { (centre + half) / (n + z2) },
        })
    }

    /// [`Interval::wilson`] of a rate that was counted on `images` images.
    pub fn of_rate(rate: f64, images: u64) -> Option<Interval> {
        Interval::wilson((rate * images as f64).round() as u64, images)
    }

    /// Whether `rate` lies in it.
    pub fn holds(&self, rate: f64) -> bool {
        (self.low..=self.high).contains(&rate)
    }

    /// Its ends in percent, with as many digits as tell them apart: `65.0 to 79.0`.
    pub fn to_text(&self) -> String {
        let digits = if self.high - self.low < 0.01 { 2 } else { 1 };
        format!("{:.digits$} to {:.digits$}", 100.0 * self.low, 100.0 * self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first four: Newcombe (1998, <https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C857::AID-SIM777%3E3.0.CO;2-E>),
    /// table I, method 3, which prints four digits.
    #[test]
    fn intervals_are_those_of_the_literature() {
        for (right, images, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0000, 0.1611),
            (1, 29, 0.0061, 0.1718),
            (111, 153, 0.6499, 0.7900),
            (29, 29, 0.8830, 1.0000),
            (1, 1, 0.2065, 1.0000),
        ] {
            let found = Interval::wilson(right, images).unwrap();
            let near = |a: f64, b: f64| (a - b).abs() < 0.000_06;
            assert!(near(found.low, low) && near(found.high, high), "{right}/{images}: {found:?}");
            let rate = right as f64 / images as f64;
            assert!(found.holds(rate), "{right}/{images}: {found:?}");
            assert_eq!(Interval::of_rate(rate, images), Some(found));
        }
        assert_eq!(Interval::wilson(0, 0), None);
        assert_eq!(Interval::of_rate(f64::NAN, 3), Interval::wilson(0, 3));
    }

    #[test]
    fn ends_are_told_apart() {
        for (right, images, text) in
            [(111, 153, "65.0 to 79.0"), (0, 20, "0.0 to 16.1"), (36_000, 50_000, "71.60 to 72.39")]
        {
            assert_eq!(Interval::wilson(right, images).unwrap().to_text(), text);
        }
    }
}
