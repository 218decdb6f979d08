//! Everything that must survive a stop: what a checkpoint holds and an executor changes.

use std::collections::BTreeSet;

use bninception_engine::Executor;
use bninception_engine::model::init::initial_weights;
use bninception_engine::model::{Network, ParameterTable, Weights};
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// The state of a run between two steps.
#[derive(Clone, Debug)]
pub struct TrainState {
    /// Weights and running statistics.
    pub weights: Weights,
    /// Momentum of the optimizer, in the trainable layout.
    pub velocity: Vec<f32>,
    /// Moving average of weights and statistics, if the run keeps one.
    pub ema: Option<Weights>,
    /// Counters and sums.
    pub progress: RunProgress,
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

impl TrainState {
    /// The state before the first step.
    pub fn new(network: &Network, table: &ParameterTable, seed: u64, with_ema: bool) -> TrainState {
        let weights = initial_weights(network, table, seed);
        TrainState {
            velocity: vec![0.0; weights.trainable.len()],
            ema: with_ema.then(|| weights.clone()),
            weights,
            progress: RunProgress::default(),
        }
    }

    /// Becomes a copy of `other`, in the memory that it has.
    pub fn copy_from(&mut self, other: &TrainState) {
        let copy = |to: &mut Weights, from: &Weights| {
            to.trainable.clone_from(&from.trainable);
            to.statistics.clone_from(&from.statistics);
        };
        copy(&mut self.weights, &other.weights);
        self.velocity.clone_from(&other.velocity);
        match (&mut self.ema, &other.ema) {
            (Some(to), Some(from)) => copy(to, from),
            (to, from) => to.clone_from(from),
        }
        self.progress.clone_from(&other.progress);
    }

    /// The weights that evaluation and prediction use: the moving average where there is one.
    pub fn evaluation_weights(&self) -> &Weights {
        self.ema.as_ref().unwrap_or(&self.weights)
    }
}

/// The decay of the moving average at an update: `min(decay, (1 + t) / (10 + t))` with t updates
/// done before, so that the first values do not linger (TensorFlow's `ExponentialMovingAverage`
/// with `num_updates`, <https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage>).
pub fn ema_decay(decay: f64, updates_done: u64) -> f64 {
    let t = updates_done as f64;
    decay.min((1.0 + t) / (10.0 + t))
}

/// Moves the average `ema` towards `weights` on the executor's threads:
/// `ema <- decay * ema + (1 - decay) * weights`.
pub fn update_ema(ema: &mut Weights, weights: &Weights, decay: f64, executor: &dyn Executor) {
    let share = (1.0 - decay) as f32;
    executor.move_average(share, &weights.trainable, &mut ema.trainable);
    executor.move_average(share, &weights.statistics, &mut ema.statistics);
}

#[cfg(test)]
mod tests {
    use bninception_engine::Reference;
    use bninception_engine::model::NetworkOptions;

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

    #[test]
    fn ema_moves_by_its_share() {
        let weights = |value| Weights { trainable: vec![value], statistics: vec![-value] };
        let mut ema = weights(1.0);
        let network = Network::bn_inception(NetworkOptions::default()).unwrap();
        update_ema(&mut ema, &weights(3.0), 0.75, &Reference::new(network));
        assert_eq!(ema, weights(1.5));
    }
}
