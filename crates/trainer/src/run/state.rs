//! Everything that must survive a stop: what a checkpoint holds and an executor changes.

use std::collections::BTreeSet;

use bninception_engine::ModelState;
use bninception_engine::metrics::Metrics;
use bninception_engine::model::{Network, ParameterTable};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The state of a run between two updates.
#[derive(Clone, Debug)]
pub struct TrainState {
    /// What an executor holds while the run goes on.
    pub model: ModelState,
    /// Counters and sums.
    pub progress: RunProgress,
    /// Population statistics of the weights that evaluation uses, if some were estimated. The next
    /// update drops them, because it changes the weights that they belong to; training never uses them.
    pub population: Option<Population>,
}

/// Population statistics (Ioffe & Szegedy 2015, algorithm 2).
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    /// Mean and unbiased variance of every batch norm, in the layout of running statistics.
    pub statistics: Vec<f32>,
    /// How they were made.
    pub made: Calibration,
}

/// How population statistics were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Mini-batches averaged.
    pub batches: u64,
    /// Images in each.
    pub batch_size: usize,
    /// Seed of the order and the augmentation.
    pub seed: u64,
}

/// What stands for the mean and variance of a layer's inputs when a network is used (Ioffe & Szegedy
/// 2015, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Statistics {
    /// The moving averages of training: "using moving averages instead, we can track the accuracy of
    /// a model as it trains".
    Moving,
    /// Means over training mini-batches with the weights that are used (algorithm 2).
    Population,
}

impl Statistics {
    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Statistics::Moving => "moving",
            Statistics::Population => "population",
        }
    }
}

/// How far a run is. Stored as JSON in the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunProgress {
    /// Updates done.
    pub step: u64,
    /// The step whose weights were evaluated last; equal to `step` right behind an evaluation.
    pub evaluated_step: Option<u64>,
    /// Result of that evaluation.
    pub evaluation: Option<EvaluationResult>,
    /// The best evaluation so far, by top-1; the earlier one of equals.
    pub best: Option<EvaluationResult>,
    /// Training images since the last row of `summary.csv`.
    pub epoch_metrics: Metrics,
    /// Training images since the last row of `metrics.jsonl`.
    pub log_metrics: Metrics,
    /// Training images that could not be read, by their place in the list of training images.
    pub bad_images: BTreeSet<u32>,
    /// Seconds of training and evaluation, in the whole run.
    pub seconds: f64,
    /// The value of `seconds` at the last row of `summary.csv`.
    pub epoch_start_seconds: f64,
    /// How often the run went back to a checkpoint after it diverged; each time halves the learning
    /// rate from there on.
    #[serde(default)]
    pub rollbacks: u32,
    /// What changes of the batch size made of the batches done: [`crate::training::course::Course`].
    #[serde(default)]
    pub batch_shift: i64,
    /// The step at which such a change let an epoch begin again; it is the end of none.
    #[serde(default)]
    pub epoch_begun_again: Option<u64>,
    /// Batches that changed nothing, because too few of their images could be read.
    #[serde(default)]
    pub skipped_batches: u64,
}

/// The numbers of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationResult {
    /// Updates done when it was made.
    pub step: u64,
    /// Images evaluated, those that could not be read included.
    pub images: u64,
    /// Images that could not be read; they count as wrong.
    pub failed: u64,
    /// Fraction whose class came first.
    pub top1: f64,
    /// Fraction whose class was among the first five.
    pub top5: f64,
    /// Mean loss of the images that could be read; none if it is not finite, or no image could be read.
    pub loss: Option<f64>,
}

impl EvaluationResult {
    /// Whether it is better than the best so far: more images right, and a loss that is finite.
    pub fn beats(&self, best: Option<EvaluationResult>) -> bool {
        let best = best.filter(|best| best.loss.is_some());
        self.loss.is_some() && best.is_none_or(|best| self.top1 > best.top1)
    }
}

impl RunProgress {
    /// Updates that changed something.
    pub fn updates(&self) -> u64 {
        self.step.saturating_sub(self.skipped_batches)
    }
}

impl TrainState {
    /// The state before the first update.
    pub fn new(network: &Network, table: &ParameterTable, seed: u64, with_ema: bool) -> TrainState {
        let model = ModelState::initial(network, table, seed, with_ema);
        TrainState { model, progress: RunProgress::default(), population: None }
    }
}

/// The weight of the newest batch in the running statistics at an update, with t updates done before:
/// `max(momentum, 1 / (t + 1))`. The first batch replaces the initial mean of 0 and variance of 1, which
/// no layer has; up to update 1 / momentum the statistics are the plain mean over all batches, as with
/// PyTorch's `momentum=None` (<https://pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>).
/// TensorFlow's `zero_debias` and Adam's bias correction (<https://arxiv.org/abs/1412.6980>, section 3)
/// remove the same bias.
pub fn bn_momentum(momentum: f64, updates_done: u64) -> f64 {
    momentum.max(1.0 / (updates_done as f64 + 1.0))
}

/// The decay of the moving average at an update: `min(decay, (1 + t) / (10 + t))` with t updates
/// done before, so that the first values do not linger (TensorFlow's `ExponentialMovingAverage`
/// with `num_updates`, <https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage>).
pub fn ema_decay(decay: f64, updates_done: u64) -> f64 {
    let t = updates_done as f64;
    decay.min((1.0 + t) / (10.0 + t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ema_decay_warms_up() {
        // (updates done, decay asked for, decay used)
        for (t, decay, used) in
            [(0, 0.999, 0.1), (8, 0.999, 0.5), (1_000_000, 0.999, 0.999), (0, 0.05, 0.05)]
        {
            assert_eq!(ema_decay(decay, t), used, "{t} updates, decay {decay}");
        }
    }

    #[test]
    fn running_statistics_are_right_from_the_first_batch() {
        // (updates done, momentum asked for, momentum used)
        let table = [
            (0, 0.1, 1.0),
            (1, 0.1, 0.5),
            (3, 0.1, 0.25),
            (9, 0.1, 0.1),
            (1_000_000, 0.1, 0.1),
            (1, 0.9, 0.9),
            (0, 0.9, 1.0),
            (u64::MAX, 0.01, 0.01),
        ];
        for (t, momentum, used) in table {
            assert_eq!(bn_momentum(momentum, t), used, "{t} updates, momentum {momentum}");
        }
        // Whatever they began with, they are the plain mean of the first ten batches.
        let batches: Vec<f64> = (0..10).map(|t| f64::from(t * t % 7)).collect();
        for begin in [0.0, 1.0, -1e6] {
            let mut running = begin;
            for (t, batch) in batches.iter().enumerate() {
                let momentum = bn_momentum(0.1, t as u64);
                running = (1.0 - momentum) * running + momentum * batch;
            }
            let mean = batches.iter().sum::<f64>() / 10.0;
            assert!((running - mean).abs() < 1e-12, "{running} from {begin}, mean {mean}");
        }
    }

    #[test]
    fn only_a_finite_evaluation_is_best() {
        let result =
            |top1, loss| EvaluationResult { step: 1, images: 4, failed: 0, top1, top5: 1.0, loss };
        let (good, better) = (result(0.5, Some(2.0)), result(0.75, Some(9.0)));
        let broken = result(1.0, None);
        for (new, best, beats) in [
            (good, None, true),
            (better, Some(good), true),
            (good, Some(good), false),
            (good, Some(better), false),
            (broken, None, false),
            (broken, Some(good), false),
            // Of a program that took it for the best.
            (good, Some(broken), true),
        ] {
            assert_eq!(new.beats(best), beats, "{new:?} after {best:?}");
        }
    }
}
