//! Two networks on the same images: whether their accuracies differ by more than chance explains.
//!
//! What both get right and what both get wrong tells nothing of the difference, so the images are taken in
//! pairs: each is one of four kinds.

use crate::evaluation::interval::Interval;

/// Below this p-value a difference is called significant, the usual level.
pub const LEVEL: f64 = 0.05;

/// How many images are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairedCounts {
    /// Right in both evaluations.
    pub both: u64,
    /// Right in this one alone.
    pub only_this: u64,
    /// Right in the baseline alone.
    pub only_baseline: u64,
    /// Wrong in both.
    pub neither: u64,
}

impl PairedCounts {
    /// Counts an image.
    pub fn add(&mut self, is_right: bool, is_right_in_baseline: bool) {
        let count = match (is_right, is_right_in_baseline) {
            (true, true) => &mut self.both,
            (true, false) => &mut self.only_this,
            (false, true) => &mut self.only_baseline,
            (false, false) => &mut self.neither,
        };
        *count += 1;
    }

    /// All images.
    pub fn images(&self) -> u64 {
        self.both + self.only_this + self.only_baseline + self.neither
    }

    /// The accuracy less that of the baseline, from -1 to 1; `None` without images.
    pub fn difference(&self) -> Option<f64> {
        let more = self.only_this as f64 - self.only_baseline as f64;
        (self.images() > 0).then(|| more / self.images() as f64)
    }

    /// The 95 % interval of [`PairedCounts::difference`]: Newcombe's method 10 (1998,
    /// <https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22%3C2635::AID-SIM954%3E3.0.CO;2-C>), which joins
    /// the Wilson intervals of both accuracies by their correlation. `None` without images.
    ///
    /// Wald's interval, the difference plus and minus 1.96 standard errors, has no width where no image
    /// changed, and is too narrow where few did. That is how two checkpoints on some hundred images mostly
    /// differ.
    pub fn interval(&self) -> Option<Interval> {
        let images = self.images();
        let difference = self.difference()?;
        let [both, this, baseline, neither] =
            [self.both, self.only_this, self.only_baseline, self.neither].map(|n| n as f64);
        let own = Interval::wilson(self.both + self.only_this, images)?;
        let other = Interval::wilson(self.both + self.only_baseline, images)?;
        let (own_rate, other_rate) =
            ((both + this) / images as f64, (both + baseline) / images as f64);
        // A correlation above 0 is reduced by a correction for continuity.
        let covariance = match both * neither - this * baseline {
            above if above > 0.0 => (above - images as f64 / 2.0).max(0.0),
            below => below,
        };
        let margins =
            [both + this, baseline + neither, both + baseline, this + neither].map(f64::sqrt);
        let margins: f64 = margins.iter().product();
        let correlation = if margins > 0.0 { covariance / margins } else { 0.0 };
        let reach = |a: f64, b: f64| (a * a - 2.0 * correlation * a * b + b * b).max(0.0).sqrt();
        let down = reach(own_rate - own.low, other.high - other_rate);
        let up = reach(own.high - own_rate, other_rate - other.low);
        Some(Interval { low: (difference - down).max(-1.0), high: (difference + up).min(1.0) })
    }

    /// The p-value of McNemar's exact test, two-sided (McNemar 1947, <https://doi.org/10.1007/BF02295996>):
    /// were both networks equally good, an image that only one gets right would be either's with probability
    /// 1/2. It is the probability of a split at least as uneven as this one, and 1 if no image changed.
    pub fn p_value(&self) -> f64 {
        let n = self.only_this + self.only_baseline;
        let fewer = self.only_this.min(self.only_baseline);
        // The tail's largest term, C(n, fewer) / 2^n, as a logarithm: it may be far below what f64 holds. The
        // others follow from it by their ratios, down to where they add nothing.
        let chosen = (1..=fewer).map(|k| ((n - fewer + k) as f64 / k as f64).ln()).sum::<f64>();
        let largest = chosen - n as f64 * std::f64::consts::LN_2;
        let (mut term, mut sum) = (1.0, 1.0);
        for k in (1..=fewer).rev() {
            term *= k as f64 / (n - k + 1) as f64;
            sum += term;
            if term < f64::EPSILON * 1e-3 {
                break;
            }
        }
        (2.0 * sum * largest.exp()).min(1.0)
    }

    /// What the test says, in a sentence.
    pub fn verdict(&self) -> String {
        let p = self.p_value();
        let shown = if p < 0.0001 { "p < 0.0001".to_owned() } else { format!("p = {p:.4}") };
        let test = format!("(McNemar's exact test, {shown})");
        match () {
            () if self.only_this + self.only_baseline == 0 => {
                format!("not different: no image changed {test}")
            }
            () if p >= LEVEL => format!("not significantly different {test}"),
            () if self.only_this > self.only_baseline => {
                format!("significantly better than the baseline {test}")
            }
            () => format!("significantly worse than the baseline {test}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts([both, only_this, only_baseline, neither]: [u64; 4]) -> PairedCounts {
        PairedCounts { both, only_this, only_baseline, neither }
    }

    /// The first is in the tests of the R package contingencytables (`Newcombe_square_and_add_CI_paired_2x2`, data
    /// of Cavo et al. 2012). The others: the formula in Python, on the data of Bentur et al. (2009), which that
    /// package has too, of Altman et al. (2000), Statistics with Confidence, table 6.2, and on edge cases.
    #[test]
    fn intervals_are_those_of_newcombe() {
        for (table, low, high) in [
            ([59, 6, 16, 80], -0.1186, -0.0046),
            ([1, 1, 7, 12], -0.5069, -0.0256),
            ([14, 5, 0, 22], 0.0115, 0.2265),
            ([20, 0, 0, 0], -0.161125, 0.161125),
            ([0, 0, 0, 20], -0.161125, 0.161125),
            ([18, 0, 0, 2], -0.157072, 0.157072),
            ([10, 0, 0, 10], -0.089757, 0.089757),
            ([0, 3, 5, 0], -0.726311, 0.388515),
            ([0, 0, 1, 0], -1.0, 0.122109),
            ([36_000, 900, 1000, 12_100], -0.003710, -0.000291),
        ] {
            let found = counts(table).interval().unwrap();
            let near = |a: f64, b: f64| (a - b).abs() < 0.000_06;
            assert!(near(found.low, low) && near(found.high, high), "{table:?}: {found:?}");
            assert!(found.holds(counts(table).difference().unwrap()), "{table:?}: {found:?}");
            // The other way round it is the same with the other sign.
            let [both, this, baseline, neither] = table;
            let turned = counts([both, baseline, this, neither]).interval().unwrap();
            let same =
                (turned.low + found.high).abs() < 1e-12 && (turned.high + found.low).abs() < 1e-12;
            assert!(same, "{table:?}: {found:?}, turned {turned:?}");
        }
        assert_eq!(PairedCounts::default().interval(), None);
        assert_eq!(PairedCounts::default().difference(), None);
    }

    /// Sums of binomial coefficients in whole numbers (Python).
    #[test]
    fn p_values_are_those_of_exact_arithmetic() {
        for (this, baseline, expected) in [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (0, 5, 6.25e-2),
            (0, 6, 3.125e-2),
            (3, 3, 1.0),
            (1, 7, 7.031_25e-2),
            (6, 16, 5.247_879_028_320e-2),
            (10, 20, 9.873_714_670_539e-2),
            (59, 121, 4.434_449_263_755e-6),
            (500, 620, 3.724_137_555_441e-4),
            (900, 1000, 2.310_884_510_890e-2),
            (4900, 5100, 4.658_552_770_495e-2),
            (4500, 5500, 1.551_064_056_825e-23),
            (0, 2000, 0.0),
            (25_000, 25_000, 1.0),
            (0, 50_000, 0.0),
        ] {
            for (this, baseline) in [(this, baseline), (baseline, this)] {
                let found = counts([7, this, baseline, 3]).p_value();
                let near = (found - expected).abs() <= 1e-10 * expected;
                assert!(near, "{this} and {baseline}: {found:e}, expected {expected:e}");
            }
        }
    }

    #[test]
    fn a_sentence_tells_whether_they_differ() {
        for (table, text) in [
            ([9, 0, 0, 1], "not different: no image changed (McNemar's exact test, p = 1.0000)"),
            ([9, 3, 5, 1], "not significantly different (McNemar's exact test, p = 0.7266)"),
            (
                [9, 7, 0, 1],
                "significantly better than the baseline (McNemar's exact test, p = 0.0156)",
            ),
            (
                [9, 0, 20, 1],
                "significantly worse than the baseline (McNemar's exact test, p < 0.0001)",
            ),
        ] {
            assert_eq!(counts(table).verdict(), text);
        }
    }

    #[test]
    fn every_image_is_of_one_kind() {
        let mut found = PairedCounts::default();
        for (this, baseline, n) in
            [(true, true, 4), (true, false, 3), (false, true, 2), (false, false, 1)]
        {
            (0..n).for_each(|_| found.add(this, baseline));
        }
        assert_eq!(found, counts([4, 3, 2, 1]));
        assert_eq!((found.images(), found.difference()), (10, Some(0.1)));
    }
}
