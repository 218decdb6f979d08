//! The loop: a network is trained, and evaluated on all test images at set steps.

use std::time::Instant;

use bninception_data::{Shuffle, epoch_order};

use super::images::{Digits, Split};
use super::network::{Model, Network};
use super::stage::Mode;
use crate::error::Error;

/// The unit of the last hidden layer whose inputs are shown. The paper shows "a typical sigmoid";
/// ours is the first, chosen before any was seen.
pub const UNIT: usize = 0;

/// Standard deviation of the initial weights. Our reading of "small random Gaussian values" (section
/// 4.1): a sum over 100 inputs between 0 and 1 then has a deviation of at most 1, where no sigmoid is flat.
pub const SIGMA: f64 = 0.1;

/// What decides a result.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Steps of plain SGD.
    pub steps: usize,
    /// Images of a step.
    pub batch_size: usize,
    /// Learning rate, the same throughout.
    pub lr: f64,
    /// Standard deviation of the initial weights.
    pub sigma: f64,
    /// Decides the initial weights and the order of the images.
    pub seed: u64,
}

/// What was seen behind a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Steps done.
    pub step: usize,
    /// Part of all test images that are named right.
    pub test_accuracy: f64,
    /// Mean loss of the training batches since the point before.
    pub train_loss: f64,
    /// 15th, 50th and 85th percentile, over the test images, of what goes into the sigmoid of unit
    /// [`UNIT`] of the last hidden layer.
    pub percentiles: [f64; 3],
}

/// One network's way.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Which network.
    pub model: Model,
    /// With batch norm in front of every sigmoid.
    pub normalised: bool,
    /// What it was trained with.
    pub settings: Settings,
    /// In the order of steps.
    pub points: Vec<Point>,
    /// Seconds that it took, beside the other network.
    pub seconds: f64,
}

impl Curve {
    /// As in files and legends: `mlp`, or `mlp-bn` with batch norm.
    pub fn name(&self) -> String {
        let suffix = if self.normalised { "-bn" } else { "" };
        format!("{}{suffix}", self.model.name())
    }

    /// The earliest point with the best test accuracy.
    pub fn best(&self) -> Option<&Point> {
        let better = |a: &&Point, b: &&Point| {
            a.test_accuracy.total_cmp(&b.test_accuracy).then(b.step.cmp(&a.step))
        };
        self.points.iter().max_by(better)
    }

    /// The first step, among those with an evaluation, with at least this test accuracy.
    pub fn first_step_with(&self, accuracy: f64) -> Option<usize> {
        self.points.iter().find(|point| point.test_accuracy >= accuracy).map(|point| point.step)
    }
}

/// Trains `model` without and with batch norm, side by side in two threads, from the same weights on
/// the same batches. `advance` is told of images done; `stop` ends both early.
///
/// # Errors
/// The loss of one of them is not finite.
pub fn compare(
    digits: &Digits,
    model: Model,
    settings: &Settings,
    advance: &(dyn Fn(usize) + Sync),
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<[Curve; 2], Error> {
    let run = |normalised| train(digits, model, normalised, settings, advance, stop);
    let (plain, normalised) = std::thread::scope(|scope| {
        let plain = scope.spawn(|| run(false));
        let normalised = run(true);
        (plain.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), normalised)
    });
    Ok([plain?, normalised?])
}

fn train(
    digits: &Digits,
    model: Model,
    normalised: bool,
    settings: &Settings,
    advance: &dyn Fn(usize),
    stop: &dyn Fn() -> bool,
) -> Result<Curve, Error> {
    let &Settings { steps, batch_size, lr, sigma, seed } = settings;
    let start = Instant::now();
    let mut network = Network::new(model, normalised, sigma, seed);
    let mut curve =
        Curve { model, normalised, settings: *settings, points: Vec::new(), seconds: 0.0 };
    let steps_per_epoch = digits.train.len() / batch_size;
    let mut order = Vec::new();
    let (mut x, mut labels) = (Vec::new(), Vec::new());
    let (mut loss_sum, mut n_losses) = (0.0, 0);
    for step in 0..steps {
        if stop() {
            break;
        }
        let (epoch, position) = (step / steps_per_epoch, step % steps_per_epoch);
        if position == 0 {
            order = epoch_order(digits.train.len(), Shuffle::Full, 0, seed, epoch as u64);
        }
        let chosen = order[position * batch_size..][..batch_size].iter();
        digits.train.batch(chosen.map(|&i| i as usize), model.side(), &mut x, &mut labels);
        network.forward(&x, batch_size, Mode::Train);
        let loss = network.backward(&labels);
        if !loss.is_finite() {
            return Err(Error::NetworkDiverged { network: curve.name(), loss, step, lr });
        }
        network.step(lr as f32);
        (loss_sum, n_losses) = (loss_sum + loss, n_losses + 1);
        advance(batch_size);

        let step = step + 1;
        if is_evaluated(step, steps) {
            let train_loss = loss_sum / f64::from(n_losses);
            (loss_sum, n_losses) = (0.0, 0);
            let (test_accuracy, percentiles) =
                evaluate(&mut network, model, &digits.test, batch_size);
            curve.points.push(Point { step, test_accuracy, train_loss, percentiles });
            if step % 5_000 == 0 || step == steps {
                let (name, percent) = (curve.name(), 100.0 * test_accuracy);
                tracing::info!("{name} at step {step}: test accuracy {percent:.2} %");
            }
        }
    }
    curve.seconds = start.elapsed().as_secs_f64();
    Ok(curve)
}

/// Whether the network is evaluated when `step` of `steps` steps are done: often at first, where
/// the curves are steep.
pub fn is_evaluated(step: usize, steps: usize) -> bool {
    let every = match step {
        0..=1_000 => 50,
        1_001..=5_000 => 250,
        5_001..=10_000 => 500,
        _ => 1_000,
    };
    step == steps || step.is_multiple_of(every)
}

/// Test accuracy with the running statistics, and the percentiles of [`Point::percentiles`].
fn evaluate(
    network: &mut Network,
    model: Model,
    test: &Split,
    batch_size: usize,
) -> (f64, [f64; 3]) {
    let (mut x, mut labels) = (Vec::new(), Vec::new());
    let mut n_correct = 0;
    let mut inputs: Vec<f32> = Vec::with_capacity(test.len());
    for first in (0..test.len()).step_by(batch_size) {
        let images = batch_size.min(test.len() - first);
        test.batch(first..first + images, model.side(), &mut x, &mut labels);
        network.forward(&x, images, Mode::Evaluate);
        n_correct += network.correct(&labels);
        // The last hidden layer has one place an image.
        inputs.extend_from_slice(&network.last_hidden().sigmoid_input()[UNIT * images..][..images]);
    }
    inputs.sort_unstable_by(f32::total_cmp);
    let percentiles = [0.15, 0.5, 0.85].map(|part| quantile(&inputs, part));
    (n_correct as f64 / test.len() as f64, percentiles)
}

/// The value below which `part` of the sorted values lie, between neighbours on a straight line.
/// NaN without values.
pub fn quantile(sorted: &[f32], part: f64) -> f64 {
    let place = part * (sorted.len().max(1) - 1) as f64;
    let value = |index: usize| sorted.get(index).map_or(f64::NAN, |&value| f64::from(value));
    let (below, above) = (place.floor(), place.ceil());
    let share = place - below;
    value(below as usize) * (1.0 - share) + value(above as usize) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_are_dense_at_first_and_end_with_the_last_step() {
        for (step, steps, expected) in [
            (1, 50_000, false),
            (50, 50_000, true),
            (1_000, 50_000, true),
            (1_050, 50_000, false),
            (1_250, 50_000, true),
            (5_250, 50_000, false),
            (5_500, 50_000, true),
            (10_250, 50_000, false),
            (11_000, 50_000, true),
            (7, 7, true),
        ] {
            assert_eq!(is_evaluated(step, steps), expected, "{step} of {steps}");
        }
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let values = [1.0, 2.0, 4.0];
        for (part, expected) in [(0.0, 1.0), (0.25, 1.5), (0.5, 2.0), (0.75, 3.0), (1.0, 4.0)] {
            assert_eq!(quantile(&values, part), expected, "{part}");
        }
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn the_best_point_is_the_earliest_of_equals() {
        let point = |step, test_accuracy| Point {
            step,
            test_accuracy,
            train_loss: 0.0,
            percentiles: [0.0; 3],
        };
        let points = vec![point(1, 0.5), point(2, 0.9), point(3, 0.9), point(4, 0.8)];
        let settings = Settings { steps: 4, batch_size: 60, lr: 0.1, sigma: 0.1, seed: 0 };
        let curve = Curve { model: Model::Mlp, normalised: true, settings, points, seconds: 0.0 };
        assert_eq!(curve.best().map(|point| point.step), Some(2));
        for (accuracy, expected) in [(0.5, Some(1)), (0.6, Some(2)), (0.95, None)] {
            assert_eq!(curve.first_step_with(accuracy), expected, "{accuracy}");
        }
    }
}
