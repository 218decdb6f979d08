//! How long a run will take, from steps that were measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bninception_data::{Batch, Loader, Source};
use bninception_engine::{EvaluationWeights, Executor, Images, ModelState};

use crate::config::Config;
use crate::error::Error;
use crate::evaluation::calibrate::n_batches_while_training;
use crate::evaluation::statistics::{self, Statistics};
use crate::setup;
use crate::terminal::signals;
use crate::training::trial::Trial;

/// Micro-batches that are timed behind the first, which sets the engine up.
const MOST_TIMED: usize = 5;

/// Time after which no further micro-batch is timed, if one was.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// Batches of evaluation that are timed behind the first.
const TIMED_EVALUATIONS: usize = 2;

/// Seconds that the parts of a run take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Forward and backward pass of a micro-batch, the median of [`Pace::n_timed`].
    pub gradients_seconds: f64,
    /// The end of an update.
    pub update_seconds: f64,
    /// A micro-batch that all workers together load, while nothing else runs.
    pub loading_seconds: f64,
    /// An evaluation of all validation images, with the statistics of batch norm that it needs.
    pub evaluation_seconds: f64,
    /// Micro-batches that were timed.
    pub n_timed: usize,
    /// Micro-batches in an update.
    pub accumulate: u64,
}

impl Pace {
    /// An update. Loading goes on meanwhile, and is waited for where it takes longer.
    pub fn step_seconds(&self) -> f64 {
        let computing = self.accumulate as f64 * self.gradients_seconds + self.update_seconds;
        computing.max(self.accumulate as f64 * self.loading_seconds)
    }

    /// Whether the network waits for images.
    pub fn waits_for_loading(&self) -> bool {
        let computing = self.accumulate as f64 * self.gradients_seconds + self.update_seconds;
        self.accumulate as f64 * self.loading_seconds > computing
    }

    /// An epoch of so many updates, with its evaluation.
    pub fn epoch_seconds(&self, steps_per_epoch: u64) -> f64 {
        steps_per_epoch as f64 * self.step_seconds() + self.evaluation_seconds
    }

    /// A run of so many updates, which is evaluated behind every epoch and at its end.
    pub fn run_seconds(&self, total_steps: u64, steps_per_epoch: u64) -> f64 {
        let n_evaluations = total_steps.div_ceil(steps_per_epoch.max(1));
        total_steps as f64 * self.step_seconds() + n_evaluations as f64 * self.evaluation_seconds
    }
}

/// What the first micro-batch gave.
#[derive(Clone, Copy, Debug)]
pub struct FirstStep {
    /// Images that could be read.
    pub images: usize,
    /// Mean loss in nats.
    pub loss: f64,
    /// Seconds of gradients, setting up included.
    pub seconds: f64,
}

/// Makes a few updates of `state`, which is thrown away, and evaluates a few batches.
///
/// # Errors
/// A first batch of which too few images can be read, a loader or executor that fails, or a signal that
/// asks to stop.
pub fn measure(
    config: &Config,
    executor: &mut dyn Executor,
    state: ModelState,
    train: Arc<dyn Source>,
    val: Arc<dyn Source>,
    class_weights: Option<Vec<f64>>,
) -> Result<(FirstStep, Pace), Error> {
    let n_images = train.len();
    let workers = setup::load_options(config, config.train.batch_size).workers.max(1);
    let n_batches = workers.max(1 + MOST_TIMED);
    let start = Instant::now();
    let mut trial = Trial::start(config, executor, state, train, class_weights, n_batches as u64)?;
    // Each worker makes a whole batch: as many come at about the same time.
    let mut loaded: Vec<Batch> = Vec::new();
    for _ in 0..workers {
        loaded.extend(trial.batch()?);
        signals::check()?;
    }
    let loading_seconds = start.elapsed().as_secs_f64() / workers as f64;

    let mut loaded = loaded.into_iter();
    let Some(batch) = loaded.next() else {
        return Err(Error::Unusable("there is no batch to train on".to_owned()));
    };
    if !trial.is_enough(&batch) {
        return Err(Error::Unusable(format!(
            "the first batch has too few images that can be read: {} of {}",
            batch.labels.len(),
            config.train.batch_size
        )));
    }
    let start = Instant::now();
    let loss = trial.gradients(&batch)?.loss;
    let first =
        FirstStep { images: batch.labels.len(), loss, seconds: start.elapsed().as_secs_f64() };
    trial.update(0.0)?;
    let statistics_seconds = match batch_norm_is_estimated(config, n_images) {
        true => {
            let start = Instant::now();
            trial.statistics(&batch)?;
            let n_batches = n_batches_while_training(config.train.batch_size, n_images);
            n_batches as f64 * start.elapsed().as_secs_f64()
        }
        false => 0.0,
    };
    trial.recycle(batch);

    let (mut gradients, mut updates) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while gradients.len() < MOST_TIMED && (gradients.is_empty() || start.elapsed() < LONG_ENOUGH) {
        signals::check()?;
        let next = match loaded.next() {
            Some(batch) => Some(batch),
            None => trial.batch()?,
        };
        let Some(batch) = next else { break };
        if trial.is_enough(&batch) {
            let start = Instant::now();
            trial.gradients(&batch)?;
            gradients.push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            trial.update(0.0)?; // a rate of 0: the weights stay as they are
            updates.push(start.elapsed().as_secs_f64());
        }
        trial.recycle(batch);
    }
    let pace = Pace {
        n_timed: gradients.len(),
        gradients_seconds: median(&mut gradients).unwrap_or(first.seconds),
        update_seconds: median(&mut updates).unwrap_or(0.0),
        loading_seconds,
        evaluation_seconds: statistics_seconds + time_evaluation(config, executor, val)?,
        accumulate: config.train.accumulate as u64,
    };
    Ok((first, pace))
}

/// Whether evaluations of the run begin with population statistics of batch norm.
fn batch_norm_is_estimated(config: &Config, n_images: usize) -> bool {
    let (steps_per_epoch, _) = setup::steps(config, n_images);
    let chosen = statistics::chosen(config.train.eval_statistics, steps_per_epoch);
    config.network.batch_norm && chosen == Statistics::Population
}

/// Seconds of an evaluation of all images of `val`, from those of a few batches with the weights that
/// `executor` holds.
fn time_evaluation(
    config: &Config,
    executor: &mut dyn Executor,
    val: Arc<dyn Source>,
) -> Result<f64, Error> {
    let n_images = val.len();
    if n_images == 0 {
        return Ok(0.0);
    }
    let normaliser = setup::normaliser(config);
    let options = setup::load_options(config, setup::val_batch_size(config));
    let mut logits = Vec::new();
    let begun = Instant::now();
    executor.prepare_evaluation(EvaluationWeights::Held)?;
    let mut loader = Loader::eval(val, &setup::preprocessing(config), &options)?;
    // The first batch sets the engine up. Where there is no other, it is all there is to time.
    let (mut start, mut images) = (begun, 0);
    for index in 0..=TIMED_EVALUATIONS {
        let Some(batch) = loader.next() else { break };
        let batch = batch?;
        signals::check()?;
        if !batch.labels.is_empty() {
            let levels = Images::Levels { levels: &batch.images, normaliser: &normaliser };
            executor.evaluate(levels, &mut logits)?;
        }
        images += batch.labels.len() + batch.failed.len();
        if index == 0 && images < n_images {
            (start, images) = (Instant::now(), 0);
        }
    }
    Ok(start.elapsed().as_secs_f64() * n_images as f64 / images.max(1) as f64)
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_takes_its_steps_and_evaluations() {
        let pace = Pace {
            gradients_seconds: 0.5,
            update_seconds: 0.25,
            loading_seconds: 0.25,
            evaluation_seconds: 3.0,
            n_timed: 5,
            accumulate: 1,
        };
        let slow_loading = Pace { loading_seconds: 2.0, ..pace };
        let accumulating = Pace { accumulate: 4, ..pace };
        // (pace, seconds of a step, of an epoch of 10, of 25 steps, whether it waits)
        for (pace, step, epoch, run, waits) in [
            (pace, 0.75, 10.5, 27.75, false),
            (slow_loading, 2.0, 23.0, 59.0, true),
            (accumulating, 2.25, 25.5, 65.25, false),
            (Pace { accumulate: 4, ..slow_loading }, 8.0, 83.0, 209.0, true),
            (Pace { evaluation_seconds: 0.0, ..pace }, 0.75, 7.5, 18.75, false),
        ] {
            assert_eq!(pace.step_seconds(), step, "{pace:?}");
            assert_eq!(pace.epoch_seconds(10), epoch, "{pace:?}");
            assert_eq!(pace.run_seconds(25, 10), run, "{pace:?}");
            assert_eq!(pace.waits_for_loading(), waits, "{pace:?}");
        }
    }

    #[test]
    fn the_median_is_a_value() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0]), Some(4.0));
        assert_eq!(median(&mut []), None);
    }
}
