//! One pass over images without training: used by `train` and `eval` alike.

use std::sync::Arc;
use std::time::Instant;

use bninception_data::{Failure, LoadOptions, Loader, Preprocessing, Source};
use bninception_engine::Executor;
use bninception_engine::model::Weights;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::signals;

/// What an evaluation found.
pub struct Evaluation {
    /// Counts and loss over the images that could be read.
    pub metrics: Metrics,
    /// Images that could not be read.
    pub failed: Vec<Failure>,
    /// Seconds from the first batch to the last.
    pub seconds: f64,
}

impl Evaluation {
    /// All images, those that could not be read included.
    pub fn images(&self) -> u64 {
        self.metrics.images() + self.failed.len() as u64
    }

    /// Fraction of all images whose class came first. An image that cannot be read counts as wrong:
    /// leaving it out, or putting another in its place, would flatter the network.
    pub fn top1(&self) -> f64 {
        self.of_all(self.metrics.top1())
    }

    /// Fraction of all images whose class was among the first five.
    pub fn top5(&self) -> f64 {
        self.of_all(self.metrics.top5())
    }

    /// Mean loss of the images that could be read; not a number if there was none.
    pub fn loss(&self) -> f64 {
        self.metrics.loss().unwrap_or(f64::NAN)
    }

    fn of_all(&self, rate: Option<f64>) -> f64 {
        rate.map_or(0.0, |rate| rate * self.metrics.images() as f64 / self.images() as f64)
    }
}

/// Evaluates every image of `source` once.
///
/// # Errors
/// No image at all, an executor or loader that fails, or a signal that asks to stop.
pub fn evaluate(
    executor: &mut dyn Executor,
    weights: &Weights,
    source: Arc<dyn Source>,
    preprocessing: &Preprocessing,
    options: &LoadOptions,
) -> Result<Evaluation, Error> {
    let n_images = source.len();
    if n_images == 0 {
        return Err(Error::Unusable("there is no image to evaluate".to_owned()));
    }
    let classes = executor.network().options.classes;
    tracing::debug!("evaluating {n_images} images");
    executor.prepare_evaluation(weights)?;
    let start = Instant::now();
    let mut progress = Progress::start("evaluating", n_images as u64);
    let mut loader = Loader::eval(source, preprocessing, options)?;
    let mut metrics = Metrics::default();
    let mut failed = Vec::new();
    let mut logits = Vec::new();
    while let Some(batch) = loader.next() {
        let mut batch = batch?;
        signals::check()?;
        if !batch.labels.is_empty() {
            executor.evaluate(&batch.images, &mut logits)?;
            metrics.add_batch(&logits, &batch.labels, classes, 0.0);
        }
        progress.advance((batch.labels.len() + batch.failed.len()) as u64, batch.wait);
        failed.append(&mut batch.failed);
        loader.recycle(batch);
    }
    drop(progress);
    if metrics.not_finite() > 0 {
        let n = metrics.not_finite();
        tracing::warn!("{n} images got a logit that is not finite and count as wrong");
    }
    Ok(Evaluation { metrics, failed, seconds: start.elapsed().as_secs_f64() })
}
