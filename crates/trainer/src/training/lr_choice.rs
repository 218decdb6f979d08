//! The learning rate that a range test suggests.

use std::fmt;

use crate::training::range_test::RangePoint;

/// Fewest updates that tell anything.
pub const FEWEST_POINTS: usize = 10;

/// What the suggested rate is of the highest good one: "the optimum learning rate is usually within a factor
/// of two of the largest one that converges", and a third of that is the lower end of his range (Smith 2015,
/// <https://arxiv.org/abs/1506.01186>, section 3.3). A run stays at its rate for longer than one update, so
/// it is that end which is taken.
pub const BELOW_EDGE: f64 = 1.0 / 3.0;

/// How far from its lowest the loss may be at a good rate: as a share of that, and in standard deviations of
/// the smoothed loss. The larger of the two counts.
const NEAR: (f64, f64) = (0.1, 2.0);

/// How far the loss must rise above its lowest behind the edge, as [`NEAR`]. The deviations keep chance from
/// being taken for a rise: five range tests on 244 photographs of two classes, in batches of 8, suggested
/// 0.000022 to 0.001 by shares alone and 0.00063 to 0.018 with them.
const RISEN: (f64, f64) = (0.25, 4.0);

/// A rate that a range test suggests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrSuggestion {
    /// The rate, to two digits.
    pub lr: f64,
    /// The highest rate at which the smoothed loss was near its lowest, before it rose.
    pub edge: f64,
    /// The lowest smoothed loss, in nats.
    pub lowest: f64,
}

/// Why a range test suggests nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoSuggestion {
    /// Too few updates.
    Few(usize),
    /// The loss did not rise at any rate; the last one.
    NoRise(f64),
    /// The loss rose within the first rates; the first one.
    NoFall(f64),
}

/// The losses, each the mean over itself and its neighbours: as many on either side, a twentieth of all, at
/// least one, and fewer at the ends. A loss that is not finite stays, and counts for no other.
pub fn smoothed(points: &[RangePoint]) -> Vec<f64> {
    let reach = reach(points.len());
    let finite = points.iter().take_while(|point| point.loss.is_finite()).count();
    let mean = |index: usize| {
        if index >= finite {
            return points[index].loss;
        }
        let reach = reach.min(index).min(finite - 1 - index);
        let near = &points[index - reach..=index + reach];
        near.iter().map(|point| point.loss).sum::<f64>() / near.len() as f64
    };
    (0..points.len()).map(mean).collect()
}

/// Neighbours on either side of one of `n_points`.
fn reach(n_points: usize) -> usize {
    (n_points / 20).max(1)
}

/// The standard deviation of the smoothed loss about its course. That of a single loss is estimated by the
/// median of the differences of neighbours, which the few steep ones of a rise hardly move: normal numbers of
/// deviation s differ by 0.6745 sqrt(2) s in the median.
fn deviation(points: &[RangePoint]) -> f64 {
    let steps = points.windows(2).map(|pair| (pair[1].loss - pair[0].loss).abs());
    let mut steps: Vec<f64> = steps.filter(|step| step.is_finite()).collect();
    if steps.is_empty() {
        return 0.0;
    }
    let middle = steps.len() / 2;
    let (_, median, _) = steps.select_nth_unstable_by(middle, f64::total_cmp);
    let averaged = (2 * reach(points.len()) + 1) as f64;
    *median / (0.6745 * 2.0_f64.sqrt()) / averaged.sqrt()
}

/// A third of the highest rate at which the smoothed loss is still near its lowest, before it rises. What
/// comes behind the rise does not count: a network with batch norm that was driven apart may come back to
/// the loss of chance, and stay there at any rate.
///
/// # Errors
/// There is no such rate.
pub fn suggest(points: &[RangePoint]) -> Result<LrSuggestion, NoSuggestion> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Err(NoSuggestion::Few(0));
    };
    if points.len() < FEWEST_POINTS {
        return Err(NoSuggestion::Few(points.len()));
    }
    let losses = smoothed(points);
    // The first are means of fewer, and the lowest of those by chance.
    let reach = reach(points.len());
    let deviation = deviation(points);
    let within = |(share, deviations): (f64, f64), lowest: f64| {
        lowest + (share * lowest).max(deviations * deviation)
    };
    let mut lowest = f64::INFINITY;
    let mut rise = None;
    for (index, &loss) in losses.iter().enumerate().skip(reach) {
        if !loss.is_finite() || loss >= within(RISEN, lowest) {
            rise = Some(index);
            break;
        }
        lowest = lowest.min(loss);
    }
    let Some(rise) = rise else { return Err(NoSuggestion::NoRise(last.lr)) };
    match losses[..rise].iter().rposition(|loss| *loss <= within(NEAR, lowest)) {
        Some(edge) if edge > 2 * reach => {
            let edge = points[edge].lr;
            Ok(LrSuggestion { lr: two_digits(BELOW_EDGE * edge), edge, lowest })
        }
        _ => Err(NoSuggestion::NoFall(first.lr)),
    }
}

/// A number to two digits, of which there are no more to be told.
fn two_digits(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}

impl fmt::Display for LrSuggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a third of {}, the highest rate with which the loss was still near its lowest ({:.3}), \
             before it rose",
            two_digits(self.edge),
            self.lowest
        )
    }
}

impl fmt::Display for NoSuggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoSuggestion::Few(n) => write!(
                f,
                "{n} updates are too few to tell a rate, which takes {FEWEST_POINTS}: an epoch has no \
                 more; try a smaller --batch-size"
            ),
            NoSuggestion::NoRise(lr) => {
                write!(f, "the loss did not rise at any rate up to {lr}; try a higher --to")
            }
            NoSuggestion::NoFall(lr) => {
                write!(f, "the loss rose from the first rate on, {lr}; try a lower --from")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred points at rates from 1e-5 to 10, six decades, with the losses of `loss` of the rate's
    /// decimal logarithm.
    fn curve(loss: impl Fn(f64) -> f64) -> Vec<RangePoint> {
        let point = |index: u32| {
            let decade = -5.0 + 6.0 * f64::from(index) / 99.0;
            RangePoint { lr: 10_f64.powf(decade), loss: loss(decade) }
        };
        (0..100).map(point).collect()
    }

    /// Up and down by turns, up to 1 either way.
    fn noise(decade: f64) -> f64 {
        (decade * 1234.5).sin()
    }

    #[test]
    fn a_rate_lies_below_the_edge() {
        type Curve = fn(f64) -> f64;
        // (losses, edge)
        let table: [(&str, Curve, f64); 7] = [
            // Batch norm comes back to the loss of chance at rates that are far too high.
            ("a hill", |d| if (-1.0..0.0).contains(&d) { 4.0 } else { 2.3 }, 0.05),
            ("a valley", |d| 1.0 + 0.5 * (d + 2.0).abs(), 2.4e-2),
            ("a plateau and a wall", |d| if d < -1.0 { 0.7 } else { 0.7 + 3.0 * (d + 1.0) }, 0.1),
            (
                "a fall and a wall",
                |d| if d < -2.0 { 0.3 - d / 4.0 } else { 0.8 + 2.0 * (d + 2.0) },
                1e-2,
            ),
            (
                "a noisy fall",
                |d| {
                    if d < -2.0 { 0.3 - d / 4.0 + 0.02 * noise(d) } else { 0.8 + 2.0 * (d + 2.0) }
                },
                1e-2,
            ),
            ("a cliff", |d| if d < 0.0 { 2.3 } else { f64::NAN }, 1.0),
            // A first loss that is low by chance is not what others must be near.
            (
                "a lucky start",
                |d| match d {
                    ..-4.99 => 0.1,
                    ..-1.0 => 0.7,
                    d => 0.7 + 3.0 * (d + 1.0),
                },
                0.05,
            ),
        ];
        for (what, loss, edge) in table {
            let found = suggest(&curve(loss)).unwrap();
            // Smoothing reaches 0.3 decades to either side.
            assert!((found.edge / edge).log10().abs() < 0.2, "{what}: {found:?}");
            assert!((found.lr / found.edge / BELOW_EDGE - 1.0).abs() < 0.06, "{what}: {found:?}");
            // Two digits.
            let shown = format!("{:.1e}", found.lr).parse::<f64>().unwrap();
            assert_eq!(shown, found.lr, "{what}");
        }
    }

    /// Two classes, of which few updates of small batches learn nothing: the loss jumps about ln(2).
    #[test]
    fn chance_is_not_taken_for_a_rise() {
        let points: Vec<RangePoint> = curve(|d| {
            let wall = if d < -1.0 { 0.0 } else { 4.0 * (d + 1.0) };
            0.7 + 0.35 * noise(d) + wall
        });
        // Thirty updates, as 244 images in batches of eight give.
        let few: Vec<RangePoint> = points.into_iter().step_by(3).collect();
        assert!(deviation(&few) > 0.1, "{}", deviation(&few));
        let found = suggest(&few).unwrap();
        assert!((found.edge / 0.1).log10().abs() < 0.5, "{found:?}");
    }

    #[test]
    fn what_tells_nothing_is_named() {
        let (flat, first) = (curve(|_| 0.7), 1e-5);
        let last = flat[99].lr;
        let table = [
            (flat.clone(), NoSuggestion::NoRise(last)),
            (curve(|d| 2.0 - d / 10.0), NoSuggestion::NoRise(last)),
            // Some noise is no rise.
            (curve(|d| 0.7 + 0.05 * noise(d)), NoSuggestion::NoRise(last)),
            (flat[..9].to_vec(), NoSuggestion::Few(9)),
            (vec![], NoSuggestion::Few(0)),
            (curve(|d| 5.5 + d), NoSuggestion::NoFall(first)),
            (curve(|_| f64::NAN), NoSuggestion::NoFall(first)),
            (curve(|d| if d < -4.9 { 1.0 } else { f64::INFINITY }), NoSuggestion::NoFall(first)),
        ];
        for (index, (points, expected)) in table.into_iter().enumerate() {
            let found = suggest(&points).unwrap_err();
            match (found, expected) {
                (NoSuggestion::NoFall(a), NoSuggestion::NoFall(b)) => {
                    assert!((a / b - 1.0).abs() < 1e-9, "row {index}");
                }
                (found, expected) => assert_eq!(found, expected, "row {index}"),
            }
        }
    }

    #[test]
    fn smoothing_reaches_as_far_on_either_side() {
        let at = |losses: &[f64]| -> Vec<RangePoint> {
            losses.iter().map(|&loss| RangePoint { lr: 1.0, loss }).collect()
        };
        assert_eq!(smoothed(&at(&[1.0, 2.0, 6.0, 4.0])), [1.0, 3.0, 4.0, 4.0]);
        assert_eq!(smoothed(&at(&[5.0])), [5.0]);
        assert!(smoothed(&[]).is_empty());
        let ends = smoothed(&at(&[1.0, 2.0, 6.0, f64::NAN]));
        assert!(ends[..3] == [1.0, 3.0, 6.0] && ends[3].is_nan(), "{ends:?}");
        // A straight line stays one.
        let line: Vec<f64> = (0..60).map(f64::from).collect();
        assert_eq!(smoothed(&at(&line)), line);
    }
}
