//! The range test of learning rates (Smith 2015, <https://arxiv.org/abs/1506.01186>, section 3.3): updates
//! at rates that rise, until the loss runs away.

use bninception_data::Batch;

use crate::config::TrainConfig;
use crate::error::Error;
use crate::terminal::progress::ProgressBar;
use crate::terminal::signals;
use crate::training::trial::Trial;

/// How far the loss may rise above its lowest before the test ends, as a factor (fastai's `LRFinder`,
/// <https://docs.fast.ai/callback.schedule.html#lrfinder>).
pub const RUNAWAY: f64 = 4.0;

/// Losses whose mean is looked at for that.
const FEW: usize = 3;

/// An update of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangePoint {
    /// Its learning rate.
    pub lr: f64,
    /// Mean loss of its images before it, in nats, not finite at the end of some tests.
    pub loss: f64,
}

/// The rates of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateRange {
    /// The first, above 0.
    pub from: f64,
    /// The last, above the first.
    pub to: f64,
    /// Updates.
    pub n_steps: u64,
}

impl RateRange {
    /// The rate of update `index`, from 0: each is the same multiple of the one before.
    pub fn rate(&self, index: u64) -> f64 {
        let share = index as f64 / self.n_steps.saturating_sub(1).max(1) as f64;
        self.from * (self.to / self.from).powf(share)
    }
}

/// Makes the updates of `range` with `trial`, until the loss has run
/// away. The loss of an update is that before it, so it tells of the rates below.
///
/// # Errors
/// A loader or executor that fails, or a signal that asks to stop.
pub fn range_test(
    trial: &mut Trial<'_>,
    range: &RateRange,
    train: &TrainConfig,
) -> Result<Vec<RangePoint>, Error> {
    let images = range.n_steps * train.images_per_update() as u64;
    let mut bar = ProgressBar::start("trying rates", images);
    let mut points = Vec::new();
    for index in 0..range.n_steps {
        let lr = range.rate(index);
        let (mut sum, mut n) = (0.0, 0);
        for _ in 0..train.accumulate {
            signals::check()?;
            let Some(batch) = trial.batch()? else { return Ok(points) };
            let wait = batch.wait;
            if let Some(loss) = loss_of(trial, &batch)? {
                sum += loss;
                n += 1;
            }
            trial.recycle(batch);
            bar.advance(train.batch_size as u64, wait);
        }
        if n == 0 {
            continue;
        }
        let loss = sum / f64::from(n);
        points.push(RangePoint { lr, loss });
        bar.say(&format!("lr {lr:.1e} loss {loss:.2}"));
        if has_run_away(&points) || !trial.update(lr)? {
            break;
        }
    }
    Ok(points)
}

/// Whether the last loss is not finite, or the mean of the last [`FEW`] is more than [`RUNAWAY`] times the
/// lowest such mean: one batch may be easy by chance.
fn has_run_away(points: &[RangePoint]) -> bool {
    let mean =
        |few: &[RangePoint]| few.iter().map(|point| point.loss).sum::<f64>() / few.len() as f64;
    let mut means = points.windows(FEW.min(points.len()).max(1)).map(mean);
    let lowest = means.clone().fold(f64::INFINITY, f64::min);
    means.next_back().is_some_and(|last| !last.is_finite() || last > RUNAWAY * lowest)
}

/// The loss of a micro-batch, whose gradients are added; `None` if too few of its images can be read.
fn loss_of(trial: &mut Trial<'_>, batch: &Batch) -> Result<Option<f64>, Error> {
    match trial.is_enough(batch) {
        true => Ok(Some(trial.gradients(batch)?.loss)),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_runs_away_when_several_do() {
        for (losses, expected) in [
            (&[][..], false),
            (&[1.0], false),
            (&[1.0, 9.0], false),
            (&[1.0, 1.0, 1.0, 1.0, 9.0], false),
            (&[1.0, 1.0, 1.0, 1.0, 10.1], true),
            (&[1.0, 1.0, 1.0, 5.0, 5.0, 5.0], true),
            // A lucky batch is no measure.
            (&[0.7, 0.1, 0.7, 0.7, 0.7], false),
            (&[1.0, f64::NAN], true),
            (&[f64::INFINITY], true),
        ] {
            let point = |&loss: &f64| RangePoint { lr: 1.0, loss };
            let points: Vec<RangePoint> = losses.iter().map(point).collect();
            assert_eq!(has_run_away(&points), expected, "{losses:?}");
        }
    }

    #[test]
    fn rates_rise_by_one_factor() {
        let range = RateRange { from: 1e-4, to: 1.0, n_steps: 5 };
        for (index, rate) in [(0, 1e-4), (1, 1e-3), (2, 1e-2), (3, 0.1), (4, 1.0)] {
            assert!(
                (range.rate(index) / rate - 1.0).abs() < 1e-12,
                "{index}: {}",
                range.rate(index)
            );
        }
        for n_steps in [0, 1] {
            assert_eq!(RateRange { n_steps, ..range }.rate(0), 1e-4);
        }
    }
}
