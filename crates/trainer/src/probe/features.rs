//! What the last layer of a network reads of each image, in one pass over centre crops.

use std::sync::Arc;
use std::time::Instant;

use bninception_data::{Failure, LoadOptions, Loader, Preprocessing, Source};
use bninception_engine::{EvaluationWeights, Executor, Features, Images, Normaliser};

use crate::error::Error;
use crate::terminal::progress::ProgressBar;
use crate::terminal::signals;

/// The features of images, which take 4 kB each.
pub struct FeatureTable {
    /// `[images][channels]`, of the images that could be read, in their order.
    pub values: Vec<f32>,
    /// The class of each of them.
    pub labels: Vec<u32>,
    /// The others.
    pub failed: Vec<Failure>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl FeatureTable {
    /// Runs every image of `source` through a network once.
    ///
    /// # Errors
    /// An executor or loader that fails, or a signal that asks to stop.
    pub fn of(
        executor: &mut dyn Executor,
        weights: EvaluationWeights<'_>,
        source: Arc<dyn Source>,
        preprocessing: &Preprocessing,
        options: &LoadOptions,
    ) -> Result<FeatureTable, Error> {
        executor.prepare_evaluation(weights)?;
        let normaliser = Normaliser::new(preprocessing.mean, preprocessing.std);
        let start = Instant::now();
        let mut progress = ProgressBar::start("features", source.len() as u64);
        let mut loader = Loader::eval(source, preprocessing, options)?;
        let (mut logits, mut features) = (Vec::new(), Features::default());
        let (mut values, mut labels, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(batch) = loader.next() {
            let mut batch = batch?;
            signals::check()?;
            if !batch.labels.is_empty() {
                let images = Images::Levels { levels: &batch.images, normaliser: &normaliser };
                executor.evaluate_features(images, &mut logits, &mut features)?;
                values.extend_from_slice(&features.pooled);
                labels.extend_from_slice(&batch.labels);
            }
            progress.advance((batch.labels.len() + batch.failed.len()) as u64, batch.wait);
            failed.append(&mut batch.failed);
            loader.recycle(batch);
        }
        drop(progress);
        let seconds = start.elapsed().as_secs_f64();
        Ok(FeatureTable { values, labels, failed, seconds })
    }
}
