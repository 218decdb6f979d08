//! Population statistics for batch norm: algorithm 2 of Ioffe & Szegedy (2015), section 3.1.
//!
//! "Process multiple training mini-batches B, each of size m, and average over them":
//!
//! ```text
//! E[x]   <- E_B[mu_B]
//! Var[x] <- m / (m - 1) E_B[sigma_B^2]      sigma_B^2: a batch's biased variance
//! ```
//!
//! For a convolution m counts the batch's images and positions (section 3.2).
//!
//! Executors give the mean and the unbiased variance of a batch, m/(m-1) sigma_B^2. Since all batches
//! have one size, and so one m, the algorithm is their plain mean.
//!
//! Training mini-batches are what training sees: random crops, mirrored and distorted by the run's
//! settings, not the centre crops of evaluation.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bninception_data::{
    AugmentConfig, Failure, LoadOptions, Loader, Preprocessing, Share, Shuffle, Source, TrainPlan,
};
use bninception_engine::model::Network;
use bninception_engine::{Executor, Images, Normaliser};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::distributed::Ranks;
use crate::distributed::failures::{self, ToldFailures};
use crate::distributed::round::round;
use crate::error::Error;
use crate::run::state::{Calibration, Population};
use crate::setup;
use crate::terminal::progress::ProgressBar;
use crate::terminal::text::counted;

/// What [`population_statistics`] found.
pub struct Calibrated {
    /// The statistics.
    pub population: Population,
    /// Images that could not be read.
    pub failed: Vec<Failure>,
}

/// Refuses a network that has no statistics.
///
/// # Errors
/// The network has no batch norm.
pub fn check_norm(network: &Network) -> Result<(), Error> {
    match network.options.batch_norm {
        Some(_) => Ok(()),
        None => Err(Error::Usage(
            "there is nothing to calibrate: the network has no batch norm (network.batch_norm = \
             false)"
                .to_owned(),
        )),
    }
}

/// The first `n_batches` of an order of all training images that `seed` decides, augmented as in
/// training, but never mixed: evaluation sees whole images.
pub fn plan(config: &Config, seed: u64, n_batches: u64) -> TrainPlan {
    TrainPlan {
        augment: AugmentConfig { mixup: 0.0, ..config.augment.clone() },
        shuffle: Shuffle::Full,
        seed,
        accumulate: 1,
        ..setup::train_plan(config, Share::default(), 0..n_batches)
    }
}

/// Fewest and most images of an estimate inside a run. Measured on a run of 40 epochs on 220 photographs
/// of two classes, 16 a batch, behind its fifth epoch, whose loss under moving statistics was 1.25: the
/// mean loss of three estimates was 0.91 (0.71 to 1.24) over 16 images, 0.82 (0.66 to 0.93) over 32, 0.71
/// (0.67 to 0.74) over 64, 0.70 (0.68 to 0.73) over 128 and 0.70 (0.67 to 0.72) over all. With the
/// centre crops of evaluation in place of augmented ones it was 0.72 over all, with 3 points less of top-1.
const IMAGES_WHILE_TRAINING: RangeInclusive<usize> = 64..=1024;

/// Whole batches of an estimate inside a run: a quarter of the training images, within
/// 64 to 1,024 images, but at least one. That takes about a tenth of the time of an epoch's
/// training: measured at 96 px in bf16 on one thread, an image takes 10 ms here, decoded and augmented, and
/// 28 ms in a step of training.
pub fn n_batches_while_training(batch_size: usize, n_images: usize) -> u64 {
    let (fewest, most) = IMAGES_WHILE_TRAINING.into_inner();
    let images = (n_images / 4).clamp(fewest, most).min(n_images);
    (images / batch_size.max(1)).max(1) as u64
}

/// What a rank tells the others of its batch.
#[derive(Default, Serialize, Deserialize)]
struct Told {
    has_batch: bool,
    /// None of a batch with an image that could not be read.
    statistics: Vec<f32>,
    failed: ToldFailures,
}

/// Averages batch statistics over the mini-batches of `plan`, with the weights that `executor` was
/// prepared to evaluate. Its state does not change.
///
/// A batch with an image that cannot be read would be smaller than the others and is left out.
///
/// # Errors
/// No whole batch, an executor or loader that fails, statistics that are not finite, or a signal that
/// asks to stop.
pub fn population_statistics(
    executor: &mut dyn Executor,
    source: Arc<dyn Source>,
    preprocessing: &Preprocessing,
    options: &LoadOptions,
    plan: &TrainPlan,
    ranks: &mut Ranks,
) -> Result<Calibrated, Error> {
    let n_batches = plan.batches.end - plan.batches.start;
    tracing::debug!("population statistics over {}: begun", counted(n_batches, "batch"));
    let mut progress = ProgressBar::start("calibrating", n_batches * options.batch_size as u64);
    ranks.at("the estimate of statistics");
    let share = ranks.share();
    let plan = TrainPlan { share, ..plan.clone() };
    let mut loader = Loader::train(Arc::clone(&source), preprocessing, options, &plan)?;
    let normaliser = Normaliser::new(preprocessing.mean, preprocessing.std);
    let mut mean = Mean::default();
    let mut failed = Vec::new();
    for _ in 0..n_batches.div_ceil(share.ranks as u64) {
        let (mut told, mut wait) = (Told::default(), Duration::ZERO);
        // The last round may have fewer batches than ranks.
        if let Some(batch) = loader.next() {
            let batch = batch?;
            (told.has_batch, wait) = (true, batch.wait);
            if batch.failed.is_empty() {
                let images = Images::Levels { levels: &batch.images, normaliser: &normaliser };
                executor.batch_statistics(images, &mut told.statistics)?;
            }
            told.failed = failures::told(&batch.failed);
            loader.recycle(batch);
        }
        // Added in the order of the batches, whichever rank made them.
        for told in round(ranks, told)? {
            if !told.statistics.is_empty() {
                mean.add(&told.statistics);
            }
            let images = if told.has_batch { options.batch_size as u64 } else { 0 };
            progress.advance(images, std::mem::take(&mut wait));
            failed.extend(failures::heard(source.as_ref(), &told.failed));
        }
    }
    progress.advance(0, Duration::ZERO);
    drop(progress);
    let batches = mean.count;
    let Some(statistics) = mean.value() else {
        return Err(Error::Unusable(format!(
            "no batch of {} could be read whole; {}",
            counted(options.batch_size as u64, "training image"),
            failed.first().map_or("there is none", |failure| &failure.error)
        )));
    };
    if statistics.iter().any(|value| !value.is_finite()) {
        return Err(Error::Unusable(
            "the batch statistics are not finite: these weights have diverged".to_owned(),
        ));
    }
    let made = Calibration { batches, batch_size: options.batch_size, seed: plan.seed };
    Ok(Calibrated { population: Population { statistics, made }, failed })
}

/// A mean of vectors, summed in f64.
#[derive(Default)]
struct Mean {
    sums: Vec<f64>,
    count: u64,
}

impl Mean {
    fn add(&mut self, values: &[f32]) {
        self.sums.resize(values.len(), 0.0);
        self.sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += f64::from(value));
        self.count += 1;
    }

    /// `None` without vectors.
    fn value(&self) -> Option<Vec<f32>> {
        let mean = |sum: &f64| (sum / self.count as f64) as f32;
        (self.count > 0).then(|| self.sums.iter().map(mean).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_inside_a_run_takes_a_quarter_of_the_images() {
        // (batch size, training images, batches)
        for (batch_size, n_images, expected) in [
            (16, 244, 4), // 64, more than a quarter
            (32, 1_000, 7),
            (32, 1_281_167, 32),
            (2, 1_281_167, 512),
            (128, 244, 1), // no fewer
            (8, 40, 5),    // all
            (40, 40, 1),
            (1024, 100_000, 1),
            (4096, 100_000, 1),
        ] {
            let found = n_batches_while_training(batch_size, n_images);
            assert_eq!(found, expected, "{n_images} in batches of {batch_size}");
            assert!(found as usize * batch_size <= n_images);
        }
    }

    /// Batches {1, 3} and {5, 9}: means 2 and 7, biased variances 1 and 4. E = 4.5; with m = 2,
    /// Var = 2 / 1 * (1 + 4) / 2 = 5, where the mean of the biased variances is 2.5.
    #[test]
    fn the_mean_of_unbiased_variances_is_algorithm_2() {
        let mut mean = Mean::default();
        assert_eq!(mean.value(), None);
        let m = 2.0_f32;
        for (batch_mean, biased) in [(2.0, 1.0), (7.0, 4.0)] {
            mean.add(&[batch_mean, biased * m / (m - 1.0)]);
        }
        assert_eq!(mean.value(), Some(vec![4.5, 5.0]));
    }
}
