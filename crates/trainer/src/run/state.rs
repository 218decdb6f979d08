//! Everything that must survive a stop: what a checkpoint holds and an executor changes.

use std::collections::BTreeSet;

use bninception_engine::ModelState;
use bninception_engine::metrics::Metrics;
use bninception_engine::model::{Network, ParameterTable};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::config::BestBy;
use crate::terminal::text::percent;

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
    /// The moving averages of training, with which the paper tracks the accuracy of a model as it trains.
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
    /// The best evaluation so far, by `checkpoint.best_by`; the earlier one of equals.
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
    /// Since which step how many processes train the run; one where it does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<RanksSince>,
    /// Since which step what computes the run; the processor where it does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceSince>,
}

/// What a run was computed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSince {
    /// Updates done before.
    pub step: u64,
    /// `cpu`, or the name of a GPU, from there on.
    pub device: String,
}

/// A number of processes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RanksSince {
    /// Updates done before.
    pub step: u64,
    /// Processes from there on.
    pub ranks: usize,
}

impl RunProgress {
    /// Writes down that the run goes on with so many processes. Gives how many it had, if others.
    pub fn go_on_with(&mut self, ranks: usize) -> Option<usize> {
        let before = self.ranks.last().map_or(1, |last| last.ranks);
        if before == ranks {
            return None;
        }
        // What was written down and then not done is not history.
        self.ranks.retain(|since| since.step < self.step);
        self.ranks.push(RanksSince { step: self.step, ranks });
        Some(before)
    }

    /// Writes down that the run goes on on this device: `cpu`, or the name of a GPU. Gives what it was computed on,
    /// if that was another.
    pub fn go_on_at(&mut self, device: &str) -> Option<String> {
        let before = self.devices.last().map_or("cpu", |last| &last.device);
        if before == device {
            return None;
        }
        let before = before.to_owned();
        self.devices.retain(|since| since.step < self.step);
        self.devices.push(DeviceSince { step: self.step, device: device.to_owned() });
        Some(before)
    }

    /// Forgets what was evaluated: the network is used otherwise now.
    pub fn forget_evaluations(&mut self) {
        (self.evaluated_step, self.evaluation, self.best) = (None, None, None);
    }
}

/// The numbers of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationResult {
    /// Updates done when it was made.
    pub step: u64,
    /// The epoch that it ended, counted from 1; unknown of earlier programs.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// Images evaluated, those that could not be read included.
    pub images: u64,
    /// Images that could not be read; they count as wrong.
    pub failed: u64,
    /// Fraction whose class came first.
    pub top1: f64,
    /// Fraction whose class was among the first five.
    pub top5: f64,
    /// Mean recall of the classes that have images; unknown of earlier programs.
    #[serde(default)]
    pub balanced: Option<f64>,
    /// Mean loss of the images that could be read; none if it is not finite, or no image could be read.
    pub loss: Option<f64>,
    /// Batch norm statistics that it was made with; none without batch norm, and unknown of earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Statistics>,
}

impl EvaluationResult {
    /// Whether it is better than the best so far by the measure `by`. One whose loss is not finite never is.
    pub fn beats(&self, best: Option<EvaluationResult>, by: BestBy) -> bool {
        // The best of an earlier program may have no measure; then any is better.
        let best = best.filter(|best| best.loss.is_some());
        let best = best.and_then(|best| best.measure(by));
        let own = self.measure(by).filter(|_| self.loss.is_some());
        own.is_some_and(|own| {
            best.is_none_or(|best| match by {
                BestBy::Top1 | BestBy::Balanced => own > best,
                BestBy::Loss => own < best,
            })
        })
    }

    /// What `by` measures.
    fn measure(&self, by: BestBy) -> Option<f64> {
        match by {
            BestBy::Top1 => Some(self.top1),
            BestBy::Balanced => self.balanced,
            BestBy::Loss => self.loss,
        }
    }

    /// What `by` measures, as a person reads it.
    pub fn shown(&self, by: BestBy) -> String {
        match (by, self.measure(by)) {
            (BestBy::Loss, Some(loss)) => format!("{loss:.4}"),
            (BestBy::Loss, None) => "not finite".to_owned(),
            (_, Some(rate)) => percent(rate),
            (_, None) => "unknown".to_owned(),
        }
    }
}

impl RunProgress {
    /// Updates that changed something.
    pub fn updates(&self) -> u64 {
        self.step.saturating_sub(self.skipped_batches)
    }
}

impl TrainState {
    /// The state before the first update, with drawn weights.
    pub fn new(network: &Network, table: &ParameterTable, seed: u64, with_ema: bool) -> TrainState {
        TrainState::of(ModelState::initial(network, table, seed, with_ema))
    }

    /// The state of a run that begins with `model`.
    pub fn of(model: ModelState) -> TrainState {
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
        use BestBy::{Balanced, Loss, Top1};
        let result = |top1, balanced, loss| EvaluationResult {
            step: 1,
            epoch: Some(1),
            images: 4,
            failed: 0,
            top1,
            top5: 1.0,
            balanced,
            loss,
            statistics: None,
        };
        let good = result(0.5, Some(0.75), Some(2.0));
        let better = result(0.75, Some(0.5), Some(9.0));
        let broken = result(1.0, Some(1.0), None);
        // Of a program that knew no balanced accuracy.
        let old = result(0.5, None, Some(2.0));
        for (new, best, by, beats) in [
            (good, None, Top1, true),
            (better, Some(good), Top1, true),
            (good, Some(good), Top1, false),
            (good, Some(better), Top1, false),
            (broken, None, Top1, false),
            (broken, Some(good), Top1, false),
            // Of a program that took it for the best.
            (good, Some(broken), Top1, true),
            (better, Some(good), Balanced, false),
            (good, Some(better), Balanced, true),
            (good, Some(good), Balanced, false),
            (broken, Some(good), Balanced, false),
            (better, Some(old), Balanced, true),
            (old, None, Balanced, false),
            (better, Some(good), Loss, false),
            (good, Some(better), Loss, true),
            (good, Some(good), Loss, false),
            (broken, None, Loss, false),
            (good, Some(broken), Loss, true),
        ] {
            assert_eq!(new.beats(best, by), beats, "{new:?} after {best:?} by {by:?}");
        }
        assert_eq!(
            [Top1, Balanced, Loss].map(|by| good.shown(by)),
            ["50.00 %", "75.00 %", "2.0000"]
        );
        assert_eq!(
            (old.shown(Balanced), broken.shown(Loss)),
            ("unknown".into(), "not finite".into())
        );
    }
}
