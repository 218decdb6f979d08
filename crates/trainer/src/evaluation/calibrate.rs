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
//! Executors move their running statistics by `running <- (1 - momentum) running + momentum batch`
//! with the unbiased variance, m/(m-1) sigma_B^2. With a momentum of 1 the running statistics behind
//! a forward pass are therefore those of its batch, and since all batches have one size, and so one
//! m, the algorithm is their plain mean.
//!
//! Training mini-batches are what training sees: random crops, mirrored and distorted by the run's
//! settings, not the centre crops of evaluation.

use std::sync::Arc;
use std::time::Duration;

use bninception_data::{Failure, LoadOptions, Loader, Preprocessing, Source, TrainPlan};
use bninception_engine::Executor;
use bninception_engine::model::{BatchNormOptions, Network, Weights};

use crate::error::Error;
use crate::terminal::progress::ProgressBar;
use crate::terminal::signals;
use crate::terminal::text::counted;

/// What [`population_statistics`] found.
pub struct Population {
    /// Mean and unbiased variance of every batch norm, in the layout of running statistics.
    pub statistics: Vec<f32>,
    /// Mini-batches averaged.
    pub batches: u64,
    /// Images that could not be read.
    pub failed: Vec<Failure>,
}

/// `network` as an executor must run it for [`population_statistics`].
///
/// # Errors
/// The network has no batch norm.
pub fn network(network: &Network) -> Result<Network, Error> {
    let Some(norm) = network.options.batch_norm else {
        return Err(Error::Usage(
            "there is nothing to calibrate: the network has no batch norm (network.batch_norm = \
             false)"
                .to_owned(),
        ));
    };
    let mut network = network.clone();
    network.options.batch_norm = Some(BatchNormOptions { momentum: 1.0, ..norm });
    Ok(network)
}

/// Averages batch statistics over the mini-batches of `plan`, with `weights` as they are.
///
/// `executor` runs a [`network`] of this module. A batch with an image that cannot be read would be
/// smaller than the others and is left out.
///
/// # Errors
/// No whole batch, an executor or loader that fails, statistics that are not finite, or a signal that
/// asks to stop.
pub fn population_statistics(
    executor: &mut dyn Executor,
    weights: &Weights,
    source: Arc<dyn Source>,
    preprocessing: &Preprocessing,
    options: &LoadOptions,
    plan: &TrainPlan,
) -> Result<Population, Error> {
    let n_batches = plan.steps.end - plan.steps.start;
    let mut progress = ProgressBar::start("calibrating", n_batches * options.batch_size as u64);
    let mut loader = Loader::train(source, preprocessing, options, plan)?;
    let mut weights = weights.clone();
    let mut mean = Mean::new(weights.statistics.len());
    let mut failed = Vec::new();
    while let Some(batch) = loader.next() {
        let mut batch = batch?;
        signals::check()?;
        if batch.failed.is_empty() {
            executor.move_statistics(&batch.images, &mut weights)?;
            mean.add(&weights.statistics);
        }
        progress.advance(options.batch_size as u64, batch.wait);
        failed.append(&mut batch.failed);
        loader.recycle(batch);
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
    Ok(Population { statistics, batches, failed })
}

/// A mean of vectors, summed in f64.
struct Mean {
    sums: Vec<f64>,
    count: u64,
}

impl Mean {
    fn new(len: usize) -> Mean {
        Mean { sums: vec![0.0; len], count: 0 }
    }

    fn add(&mut self, values: &[f32]) {
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

    /// Batches {1, 3} and {5, 9}: means 2 and 7, biased variances 1 and 4. E = 4.5; with m = 2,
    /// Var = 2 / 1 * (1 + 4) / 2 = 5, where the mean of the biased variances is 2.5.
    #[test]
    fn the_mean_of_unbiased_variances_is_algorithm_2() {
        let mut mean = Mean::new(2);
        assert_eq!(mean.value(), None);
        let m = 2.0_f32;
        for (batch_mean, biased) in [(2.0, 1.0), (7.0, 4.0)] {
            mean.add(&[batch_mean, biased * m / (m - 1.0)]);
        }
        assert_eq!(mean.value(), Some(vec![4.5, 5.0]));
    }
}
